"""mribench demo."""

from __future__ import annotations

from pathlib import Path

import click

from mribench.commands.options import Compute, bench_folder, compute_options, wide_option

SHORT = {"budget": 160, "warmup": 10, "decay_from": 0.0}  # of a training that starts from shipped weights


@click.command()
@bench_folder("mribench-demo")
@click.option(
    "--models",
    type=click.Choice(["own", "all"]),
    default="own",
    show_default=True,
    help="mribench's own models, or also those of installed plug-ins.",
)
@compute_options()
@wide_option
@click.pass_obj
def demo(quiet: bool, folder: Path, models: str, compute: Compute, wide: bool) -> None:
    """Simulated brains to finished report, in minutes, on a laptop.

    Models whose weights come with mribench start from them and are trained for some seconds more; the page says so.

    \b
    mribench demo
    mribench demo --models all
    mribench demo --bench /tmp/look --device cpu
    """
    from mribench.bench.folder import start_bench
    from mribench.commands.console import session
    from mribench.models import MODEL_REGISTRY, MODELS
    from mribench.models.start import PRETRAINED, SCRATCH, read_pretrained
    from mribench.training import plan_training

    shipped = read_pretrained().models
    chosen = [name for name, _ in MODEL_REGISTRY.usable()] if models == "all" else list(MODELS)
    with session(quiet, compute, lambda: start_bench(folder, "demo")) as current:
        for model in chosen:
            with current.collect_failures(model):
                start, settings = (PRETRAINED, SHORT) if model in shipped else (SCRATCH, {})
                plan = plan_training(current.bench, current.cohort(), model, None, settings, 0, start=start)
                current.train(plan)
        current.generate_all()
        current.report(wide=wide)
