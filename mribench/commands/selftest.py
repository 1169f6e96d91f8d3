"""The command that turns the metrics on themselves: selftest."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mribench.commands.options import bench_folder, device_option, json_option, weights_option
from mribench.errors import MribenchError, finish


@click.command()
@bench_folder("mribench-selftest")
@click.option("--quick", is_flag=True, help="Every other dose and, in a new bench, half of the volumes.")
@click.option(
    "--volumes",
    type=click.IntRange(4),
    default=32,
    show_default=True,
    help="Held-out volumes to degrade, at most; half of those there are stay held out.",
)
@click.option("--gauntlet", is_flag=True, help="Only rank adversaries: cheats must not pass honest entrants.")
@weights_option
@device_option
@json_option
@click.pass_obj
def selftest(
    quiet: bool,
    folder: Path,
    quick: bool,
    volumes: int,
    gauntlet: bool,
    weights: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Degrade real volumes in growing doses and see what each metric notices; plant copies and see which are found.

    A folder without a bench gets one, with simulated brains at 32^3. Writes selftest.json and selftest.csv into the
    bench and prints the table as Markdown. Fails when a metric misses a control that it declares to see, when a
    planted copy is not found, or when a real volume is taken for a copy.

    With --gauntlet, instead: put adversaries made from the bench's volumes (copies, mosaics, defects) one at a time
    beside slightly imperfect honest entrants and rank them. Writes gauntlet.json. Fails when a cheat is ranked above
    or level with an honest entrant.

    \b
    mribench selftest
    mribench selftest --bench trial --volumes 16
    mribench selftest --gauntlet
    """
    from mribench.commands import steps as commands
    from mribench.commands.console import display
    from mribench.files import write_json, write_text
    from mribench.selftest import gauntlet as adversaries
    from mribench.selftest import gauntlet_table, run, verdicts

    bench = run.start_bench(folder, quick)
    path = bench.folder / ("gauntlet.json" if gauntlet else "selftest.json")
    with display(quiet) as screen:
        cohort = commands.start_cohort(bench, screen.report)
        with bench.lock("selftest"):
            if gauntlet:
                placed = adversaries.run(
                    bench,
                    cohort,
                    most=volumes,
                    weights=weights,
                    device=device,
                    progress=screen.report,
                )
                placed.write(path)
            else:
                record = run.run(
                    bench,
                    cohort,
                    most=volumes,
                    quick=quick,
                    weights=weights,
                    device=device,
                    progress=screen.report,
                )
                write_text(bench.folder / "selftest.csv", verdicts.as_csv(record))
                write_json(path, record)
    if gauntlet:
        click.echo(json.dumps(placed.as_json(), indent=1) if as_json else gauntlet_table.markdown(placed))
    else:
        click.echo(json.dumps(record, indent=1) if as_json else verdicts.markdown(record))
    click.echo(f"Written: {path}", err=True)
    if not gauntlet:
        finish(record["problems"])
    elif sentences := adversaries.problems(placed):
        raise MribenchError("gauntlet: " + "\n  ".join(sentences))
