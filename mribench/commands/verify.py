"""mribench verify."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribench.commands.options import Compute, bench_option, compute_options
from mribench.errors import finish

if TYPE_CHECKING:
    from mribench.bench.verification import Findings

_SHOWN = 5  # paths of one note


@click.command()
@bench_option
@click.option("--repair", is_flag=True, help="Make again what is damaged and can be made again.")
@compute_options("memory", "weights", "weights_3d")
@click.pass_obj
def verify(quiet: bool, folder: Path, repair: bool, compute: Compute) -> None:
    """Compare every file of a bench with its digest.

    With --repair damaged arrays are removed (they are computed when they are needed), and a damaged volume, weights,
    sample, score, table or page is made again by the command that made it.

    \b
    mribench verify
    mribench verify --bench trial --repair
    """
    from mribench.bench import verification
    from mribench.bench.folder import open_bench
    from mribench.commands.console import session
    from mribench.commands.repair import repair_damages

    with session(quiet, compute, lambda: open_bench(folder)) as current:
        findings = verification.verify(current.bench, current.context.progress)
        if repair and findings.damages:
            for damage in findings.damages:
                click.echo(f"{'repairing' if damage.remedy else 'cannot repair'} {damage}", err=True)
            repair_damages(current, findings.damages)
            findings = verification.verify(current.bench, current.context.progress)
        _say_notes(findings)
    finish([str(damage) for damage in findings.damages])
    click.echo("everything is as recorded")


def _say_notes(findings: Findings) -> None:
    _say("are being worked on and were not verified", findings.busy)
    _say("carry no digest (written by an earlier version, or changed on purpose)", findings.unproven)
    _say("were written by no command of mribench", findings.strangers)


def _say(what: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        click.echo(f"note: {len(names)} {what}: {', '.join(names[:_SHOWN])}{more}", err=True)
