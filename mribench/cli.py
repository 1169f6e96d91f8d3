"""The command line: parse, call one verb of commands.py, print. torch is imported inside commands only."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribench import __version__
from mribench.commands.inspection import check, list_things, verify
from mribench.commands.options import (
    Group,
    batch_option,
    bench_folder,
    bench_option,
    device_option,
    json_option,
    memory_option,
    overwrite_option,
    parse_settings,
    protocol_option,
    simulated_option,
    weights_options,
)
from mribench.commands.prepare import prepare
from mribench.commands.selftest import selftest
from mribench.errors import UsageError, finish
from mribench.metrics.features.weights import Weights

if TYPE_CHECKING:
    from mribench.bench.folder import Bench
    from mribench.commands.session import Session

# What CUDA asks for before its matrix products are deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# On stderr; the product's path (or --json) is all that goes to stdout.
EPILOG = (
    "Run a killed command again: it goes on where it stopped. Exit codes: 0 done, 1 failed, 2 wrong usage."
)


@click.group(cls=Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mribench")
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_context
def main(context: click.Context, verbose: int, quiet: bool) -> None:
    """Train, sample and rank 3D generative models of brain MRI.

    \b
    mribench demo                                   everything once, on simulated brains
    mribench evaluate --real DIR --samples DIR      score two folders of NIfTI
    mribench train cdpm; mribench generate --all; mribench report
    """
    level = (logging.ERROR if quiet else logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    context.obj = quiet


@main.command()
@bench_folder("mribench-demo")
@device_option
@click.pass_obj
def demo(quiet: bool, folder: Path, device: str) -> None:
    """Simulated brains to finished report, in minutes, on a laptop.

    \b
    mribench demo
    mribench demo --bench /tmp/look --device cpu
    """
    from mribench.commands import steps as commands
    from mribench.models import MODELS

    with _session(quiet, commands.start_bench(folder, "demo", False)) as session:
        for model in MODELS:
            with session.at_its_own_cost(model):
                plan = commands.plan_training(session.bench, session.cohort, model, None, {}, 0)
                session.train(*plan, device, False)
        session.generate_all(device, 8, False)
        session.report(None, device)


@main.command()
@bench_option
@protocol_option
@simulated_option
@click.pass_obj
def init(quiet: bool, folder: Path, protocol: str | None, simulated: bool) -> None:
    """Make a bench; a simulated cohort is made at once.

    \b
    mribench init --protocol small
    mribench init --protocol peng2023-heldout --simulated --bench trial
    """
    from mribench.commands import steps as commands
    from mribench.commands.console import display

    bench = commands.start_bench(folder, protocol, simulated)
    if bench.protocol.cohort.source == "simulated":
        with display(quiet) as screen:
            commands.start_cohort(bench, screen.report)
    click.echo(bench.folder)


@main.command()
@click.argument("model", required=False)
@click.option("--all", "everything", is_flag=True, help="Every model.")
@bench_option
@protocol_option
@simulated_option
@click.option("--preset", help="[default: the protocol's]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override one setting.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@device_option
@overwrite_option
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
    seed: int,
    device: str,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Train MODEL on the bench's cohort (makes a demo bench if there is none).

    \b
    mribench train cdpm
    mribench train cdpm --preset tiny --set budget=6400 --seed 1
    """
    from mribench.commands import steps as commands
    from mribench.models import MODELS, get_model
    from mribench.runtime import choose_device

    _one_or_all(model, everything, "MODEL")
    names = list(MODELS) if everything else [str(model)]
    for name in names:
        get_model(name)
    overrides = parse_settings(settings)
    choose_device(device)  # a mistake must not cost the making of a cohort
    with _session(quiet, commands.start_bench(folder, protocol, simulated)) as session:
        for name in names:
            with session.at_its_own_cost(name) if everything else nullcontext():
                plan = commands.plan_training(session.bench, session.cohort, name, preset, overrides, seed)
                if dry_run:
                    click.echo(json.dumps(plan[1], indent=1))
                else:
                    session.train(*plan, device, overwrite)


@main.command()
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="Every trained run, and the controls.")
@bench_option
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting of RUN's sampler."
)
@device_option
@batch_option
@overwrite_option
@click.pass_obj
def generate(
    quiet: bool,
    run: str | None,
    everything: bool,
    folder: Path,
    settings: tuple[str, ...],
    device: str,
    batch: int,
    overwrite: bool,
) -> None:
    """Sample RUN into NIfTI volumes, as many as the protocol asks for.

    \b
    mribench generate --all
    mribench generate cdpm --set ddim_steps=20 --batch 4
    """
    from mribench.bench.folder import open_bench

    _one_or_all(run, everything, "RUN")
    if everything and settings:
        raise UsageError("--set goes with one RUN: models have different samplers.")
    with _session(quiet, open_bench(folder)) as session:
        if everything:
            session.generate_all(device, batch, overwrite)
        else:
            chosen = session.bench.existing_run(str(run))
            session.generate(chosen, parse_settings(settings) or None, device, batch, overwrite)


@main.command()
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="Every run that has samples.")
@bench_option
@click.option(
    "--real",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of real NIfTI volumes (no bench needed).",
)
@click.option(
    "--samples",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of generated NIfTI volumes; with --name, it becomes an entrant of the bench.",
)
@click.option(
    "--train",
    "train_folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the volumes the generator was trained on: adds the memorisation test.",
)
@click.option("--name", help="Name of the --samples folder as an entrant of the bench.")
@click.option(
    "--rescale",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    help="Intensities to map to 0 and 1, for all volumes.",
)
@click.option(
    "--extractor",
    help="Feature extractor for FID and MMD without a bench. [default: effnet-lite0]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("mribench-scores"),
    show_default=True,
    help="Where --real/--samples puts scores.json, scores.csv and its cache.",
)
@weights_options
@device_option
@memory_option
@overwrite_option
@json_option
@click.pass_obj
def evaluate(
    quiet: bool,
    run: str | None,
    everything: bool,
    folder: Path,
    real: Path | None,
    samples: Path | None,
    train_folder: Path | None,
    name: str | None,
    rescale: tuple[float, float] | None,
    extractor: str | None,
    out: Path,
    weights: Weights,
    device: str,
    memory: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Score RUN, every run of a bench, or two folders of NIfTI.

    \b
    mribench evaluate --real real/ --samples generated/ --train train/
    mribench evaluate --all
    mribench evaluate --samples generated/ --name my_model --bench mribench-bench
    """
    if real is not None:
        if samples is None or run is not None or everything or name is not None:
            raise UsageError(
                "--real goes with --samples DIR (and perhaps --train DIR), not with a run or --name."
            )
        from mribench import folders
        from mribench.commands.console import display

        with display(quiet) as screen:
            result = folders.evaluate_folders(
                real, samples, train_folder, rescale, extractor, weights, device, memory, out, screen.report
            )
        click.echo(result.json if as_json else result.table)
        click.echo(f"Written: {result.path}", err=True)
        finish(result.failures)
        return
    if extractor is not None or train_folder is not None:
        raise UsageError("--extractor and --train go with --real DIR; in a bench its protocol decides.")
    if (samples is None) != (name is None):
        raise UsageError("--samples DIR needs --real DIR, or --name NAME to become an entrant of the bench.")
    _one_or_all(run or name, everything, "RUN")
    from mribench.bench.folder import open_bench

    with _session(quiet, open_bench(folder)) as session:
        if samples is not None and name is not None:
            session.add_folder(name, samples, rescale, overwrite)
        chosen = run or name
        scored = session.evaluate(
            [session.bench.existing_run(chosen)] if chosen else None, weights, device, memory, overwrite
        )
        click.echo(session.scores_as_json(scored) if as_json else session.table())


@main.command()
@bench_option
@weights_options
@device_option
@memory_option
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@click.pass_obj
def report(quiet: bool, folder: Path, weights: Weights, device: str, memory: int, show: bool) -> None:
    """Compute the scores that are missing, then write index.html, table.csv/.tex/.md and scores.csv.

    \b
    mribench report
    mribench report --bench trial --open
    """
    from mribench.bench.folder import open_bench

    bench = open_bench(folder)
    with _session(quiet, bench) as session:
        session.report(weights, device, memory)
    if show:
        click.launch(str(bench.report / "index.html"))


@contextmanager
def _session(quiet: bool, bench: Bench) -> Iterator[Session]:
    """A Session for the length of one command; fails in the end when any run failed."""
    from mribench.commands.console import display
    from mribench.commands.session import Session

    with display(quiet) as screen:
        session = Session(screen, bench, [])
        yield session
    finish(session.failures)


def _one_or_all(name: str | None, everything: bool, what: str) -> None:
    if everything == (name is not None):
        raise UsageError(f"Give either {what} or --all.")


main.add_command(list_things)
main.add_command(check)
main.add_command(verify)
main.add_command(prepare)
main.add_command(selftest)
