"""The command that turns the metrics on themselves: selftest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribench.commands.options import Compute, bench_folder, compute_options, json_option
from mribench.errors import finish

if TYPE_CHECKING:
    from mribench.bench.folder import Bench
    from mribench.data.cohort import Cohort
    from mribench.files import Record
    from mribench.runtime import Context

    Outcome = tuple[Record, str, list[str]]  # of a self-test: its record, its table, what does not hold


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
@compute_options("weights")
@json_option
@click.pass_obj
def selftest(
    quiet: bool, folder: Path, quick: bool, volumes: int, gauntlet: bool, compute: Compute, as_json: bool
) -> None:
    """Degrade real volumes in growing doses and report what each metric detects; plant copies and report those found.

    A folder without a bench gets one, with simulated brains at 32^3. Writes selftest.json and selftest.csv into the
    bench and prints the table as Markdown. Fails when a metric misses a control that it declares to detect, when a
    planted copy is not found, or when a real volume is taken for a copy.

    With --gauntlet, instead: put adversaries made from the bench's volumes (copies, mosaics, defects) one at a time
    beside slightly imperfect honest entrants and rank them. Writes gauntlet.json. Fails when a cheat is ranked above
    or level with an honest entrant.

    \b
    mribench selftest
    mribench selftest --bench trial --volumes 16
    mribench selftest --gauntlet
    """
    from mribench.bench.cohort import start_cohort
    from mribench.commands.console import display
    from mribench.selftest import run

    with display(quiet) as screen:
        context = compute(screen.report)
        bench = run.start_bench(folder, quick)
        screen.announce_at(folder)
        cohort = start_cohort(bench, screen.report)
        with bench.lock("selftest"):
            if gauntlet:
                written, table, problems = _gauntlet(bench, cohort, context, volumes)
            else:
                written, table, problems = _selftest(bench, cohort, context, volumes, quick)
    click.echo(json.dumps(written.as_json(), indent=1) if as_json else table)
    click.echo(f"Written: {bench.folder / ('gauntlet.json' if gauntlet else 'selftest.json')}", err=True)
    finish(problems)


def _selftest(bench: Bench, cohort: Cohort, context: Context, most: int, quick: bool) -> Outcome:
    from mribench.files import write_sums, write_text
    from mribench.selftest import run, verdicts

    record = run.run(bench, cohort, context, most=most, quick=quick)
    write_text(bench.folder / "selftest.csv", verdicts.as_csv(record))
    write_sums(bench.folder, ["selftest.csv"])
    record.write(bench.folder / "selftest.json")
    return record, verdicts.markdown(record), list(record.problems)


def _gauntlet(bench: Bench, cohort: Cohort, context: Context, most: int) -> Outcome:
    from mribench.selftest import gauntlet, gauntlet_table

    record = gauntlet.run(bench, cohort, context, most=most)
    record.write(bench.folder / "gauntlet.json")
    return record, gauntlet_table.markdown(record), gauntlet.problems(record)
