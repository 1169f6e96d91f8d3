"""mribench verify."""

from __future__ import annotations

from pathlib import Path

import click

from mribench.commands.options import bench_option
from mribench.errors import finish


@click.command()
@bench_option
@click.pass_obj
def verify(quiet: bool, folder: Path) -> None:
    """Re-hash cohort, weights and samples of a bench against what was recorded.

    \b
    mribench verify
    mribench verify --bench trial
    """
    from mribench.bench import verification
    from mribench.bench.folder import open_bench
    from mribench.commands.console import display

    with display(quiet) as screen:
        problems = verification.verify(open_bench(folder), screen.report)
    finish(problems)
    click.echo("everything is as recorded")
