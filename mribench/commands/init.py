"""mribench init."""

from __future__ import annotations

from pathlib import Path

import click

from mribench.commands.options import bench_option, protocol_option, simulated_option


@click.command()
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
    from mribench.bench.cohort import start_cohort
    from mribench.bench.folder import start_bench
    from mribench.commands.console import display

    bench = start_bench(folder, protocol, simulated)
    if bench.protocol.cohort.source == "simulated":
        with display(quiet) as screen:
            screen.announce_at(folder)
            start_cohort(bench, screen.report)
    click.echo(bench.folder)
