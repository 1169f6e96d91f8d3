"""mribench demo."""

from __future__ import annotations

from pathlib import Path

import click

from mribench.commands.options import Compute, bench_folder, compute_options


@click.command()
@bench_folder("mribench-demo")
@compute_options()
@click.pass_obj
def demo(quiet: bool, folder: Path, compute: Compute) -> None:
    """Simulated brains to finished report, in minutes, on a laptop.

    \b
    mribench demo
    mribench demo --bench /tmp/look --device cpu
    """
    from mribench.bench.folder import start_bench
    from mribench.commands.console import session
    from mribench.models import MODELS
    from mribench.training import plan_training

    with session(quiet, compute, lambda: start_bench(folder, "demo")) as current:
        for model in MODELS:
            with current.collect_failures(model):
                current.train(plan_training(current.bench, current.cohort(), model, None, {}, seed=0))
        current.generate_all()
        current.report()
