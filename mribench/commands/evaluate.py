"""mribench evaluate: entrants of a bench, or two folders of NIfTI."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mribench import processes
from mribench.commands.completion import run_names
from mribench.commands.options import (
    Compute,
    bench_option,
    compute_options,
    json_option,
    one_or_all,
    overwrite_option,
    wide_option,
)
from mribench.errors import UsageError, finish

_existing_folder = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command()
@click.argument("run", required=False, shell_complete=run_names)
@click.option("--all", "everything", is_flag=True, help="Every run that has samples.")
@bench_option
@click.option("--real", type=_existing_folder, help="Folder of real NIfTI volumes (no bench needed).")
@click.option(
    "--samples",
    type=_existing_folder,
    help="Folder of generated NIfTI volumes; with --name, it becomes an entrant of the bench.",
)
@click.option(
    "--train",
    "train_folder",
    type=_existing_folder,
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
@compute_options("memory", "weights", "weights_3d")
@overwrite_option
@wide_option
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
    compute: Compute,
    overwrite: bool,
    wide: bool,
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
        _score_folders(quiet, real, samples, train_folder, rescale, extractor, out, compute, wide, as_json)
        return
    if extractor is not None or train_folder is not None:
        raise UsageError("--extractor and --train go with --real DIR; in a bench its protocol decides.")
    if (samples is None) != (name is None):
        raise UsageError("--samples DIR needs --real DIR, or --name NAME to become an entrant of the bench.")
    one_or_all(run or name, everything, "RUN")
    from mribench.bench.folder import open_bench
    from mribench.commands.console import session

    with session(quiet, compute, lambda: open_bench(folder)) as current:
        if samples is not None and name is not None:
            current.add_folder(name, samples, rescale, overwrite)
        chosen = run or name
        scored = current.evaluate([current.bench.existing_run(chosen)] if chosen else None, overwrite)
        click.echo(current.scores_as_json(scored) if as_json else current.table(wide).rstrip())


def _score_folders(
    quiet: bool,
    real: Path,
    samples: Path,
    train: Path | None,
    rescale: tuple[float, float] | None,
    extractor: str | None,
    out: Path,
    compute: Compute,
    wide: bool,
    as_json: bool,
) -> None:
    """Score the volumes in `samples` against those in `real`; writes scores.json and scores.csv to `out`."""
    from mribench.commands.console import display
    from mribench.evaluation import DEFAULT_EXTRACTOR
    from mribench.evaluation import evaluate as evaluate_sets
    from mribench.files import write_text
    from mribench.reports import csv_tables, leaderboard

    with display(quiet) as screen:
        result = evaluate_sets(
            samples,
            real,
            train,
            extractor=extractor or DEFAULT_EXTRACTOR,
            rescale=rescale,
            cache=out / "cache",
            context=compute(screen.report),
        )
    name = samples.resolve().name
    record = result.record().model_copy(update={"entrant": name, "rescale": rescale})
    board = leaderboard.from_set(name, result.scores, result.missing)
    if processes.is_first():
        record.write(out / "scores.json")
        write_text(out / "scores.csv", csv_tables.as_scores_csv(board))
    click.echo(f"Written: {out / 'scores.json'}", err=True)
    table = leaderboard.as_text(board, wide).rstrip()
    click.echo(json.dumps(record.as_json(), indent=1) if as_json else table)
    finish(result.failures)
