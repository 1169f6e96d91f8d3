"""The command that turns the metrics on themselves: selftest."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mribench.commands.options import Compute, bench_folder, compute_options, json_option
from mribench.errors import finish


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
@compute_options("weights")
@json_option
@click.pass_obj
def selftest(quiet: bool, folder: Path, quick: bool, volumes: int, compute: Compute, as_json: bool) -> None:
    """Degrade real volumes in growing doses and report what each metric detects; plant copies and report those found.

    A folder without a bench gets one, with simulated brains at 32^3. Writes selftest.json and selftest.csv into the
    bench and prints the table as Markdown. Fails when a metric misses a control that it declares to detect, when a
    planted copy is not found, or when a real volume is taken for a copy.

    \b
    mribench selftest
    mribench selftest --bench trial --volumes 16
    """
    from mribench.bench.cohort import start_cohort
    from mribench.commands.console import display
    from mribench.files import write_sums, write_text
    from mribench.selftest import run, verdicts

    with display(quiet) as screen:
        context = compute(screen.report)
        bench = run.start_bench(folder, quick)
        cohort = start_cohort(bench, screen.report)
        with bench.lock("selftest"):
            record = run.run(bench, cohort, context, most=volumes, quick=quick)
            write_text(bench.folder / "selftest.csv", verdicts.as_csv(record))
            write_sums(bench.folder, ["selftest.csv"])
            record.write(bench.folder / "selftest.json")
    click.echo(json.dumps(record.as_json(), indent=1) if as_json else verdicts.markdown(record))
    click.echo(f"Written: {bench.folder / 'selftest.json'}", err=True)
    finish(list(record.problems))
