"""mribench train."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from mribench.commands.completion import model_names
from mribench.commands.options import (
    Compute,
    bench_option,
    compute_options,
    name_option,
    one_or_all,
    overwrite_option,
    parse_settings,
    protocol_option,
    simulated_option,
)
from mribench.errors import UsageError


@click.command()
@click.argument("model", required=False, shell_complete=model_names)
@click.option("--all", "everything", is_flag=True, help="Every model, of plug-ins too.")
@bench_option
@protocol_option
@simulated_option
@click.option("--preset", help="[default: the protocol's]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override one setting.")
@click.option(
    "--from",
    "start",
    default="scratch",
    show_default=True,
    metavar="scratch|pretrained|FILE",
    help="Weights to start from: none, those that come with mribench, or a file of weights.",
)
@name_option
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@compute_options()
@overwrite_option
@click.option(
    "--raise-budget", is_flag=True, help="Train a run on that exists with a smaller budget (--set budget=N)."
)
@click.option(
    "--score-every",
    type=click.IntRange(1),
    metavar="VOLUMES",
    help="Score a few samples whenever so many volumes have been seen; changes no weight.",
)
@click.option(
    "--tensorboard",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write losses and scores there for TensorBoard.",
)
@click.option(
    "-n",
    "--dry-run",
    is_flag=True,
    help="Print the resolved settings and stop; makes a new bench's cohort, trains nothing.",
)
@click.pass_obj
def train(
    quiet: bool,
    model: str | None,
    everything: bool,
    folder: Path,
    protocol: str | None,
    simulated: bool,
    preset: str | None,
    settings: tuple[str, ...],
    start: str,
    name: str | None,
    seed: int,
    compute: Compute,
    overwrite: bool,
    raise_budget: bool,
    score_every: int | None,
    tensorboard: Path | None,
    dry_run: bool,
) -> None:
    """Train MODEL on the bench's cohort (makes a demo bench if there is none).

    \b
    mribench train cdpm
    mribench train cdpm --preset tiny --set budget=6400 --seed 1
    mribench train cdpm --from pretrained --set budget=400
    mribench train cdpm --name cdpm-wide --set base=64
    mribench train cdpm --set budget=12800 --raise-budget
    mribench train cdpm --score-every 200 --tensorboard logs
    """
    from mribench.bench.folder import start_bench
    from mribench.commands.console import session
    from mribench.models import MODEL_REGISTRY
    from mribench.settings import resolve_settings
    from mribench.training import plan_training

    one_or_all(model, everything, "MODEL")
    if everything and (name or raise_budget):
        raise UsageError("--name and --raise-budget go with one MODEL.")
    if overwrite and raise_budget:
        raise UsageError(
            "--overwrite starts from the beginning and --raise-budget goes on. Give one of them."
        )
    models = [key for key, _ in MODEL_REGISTRY.usable()] if everything else [str(model)]
    MODEL_REGISTRY.get(models[0])
    overrides = parse_settings(settings)
    with session(quiet, compute, lambda: start_bench(folder, protocol, simulated)) as current:
        for each in models:
            with current.collect_failures(each) if everything else nullcontext():
                resolve_settings(current.bench, each, preset, overrides)  # before a cohort is made
                plan = plan_training(
                    current.bench, current.cohort(), each, preset, overrides, seed, name, start=start
                )
                if dry_run:
                    click.echo(plan.record.model_dump_json(indent=1))
                else:
                    current.train(plan, overwrite, raise_budget, score_every, tensorboard)
