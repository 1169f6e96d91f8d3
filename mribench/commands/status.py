"""mribench status."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribench.commands.options import bench_option, json_option

if TYPE_CHECKING:
    from mribench.bench.activity import Activity
    from mribench.bench.status import RunStatus

_SILENT = 120.0  # seconds without a word, after which a process is called silent


@click.command()
@bench_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """How far a bench is: what runs now with its estimated end, and steps, loss, samples and scores of every run.

    Another terminal may ask while commands work. It reads files only, and checks no digest.

    \b
    mribench status
    mribench status --bench trial --json
    """
    from mribench.bench.activity import activities
    from mribench.bench.folder import open_bench
    from mribench.bench.status import run_statuses

    bench = open_bench(folder)
    working, runs = activities(folder), run_statuses(bench)
    if as_json:
        both = {"activities": [a.as_json() for a in working], "runs": [asdict(run) for run in runs]}
        click.echo(json.dumps(both, indent=1))
        return
    for activity in working:
        click.echo(_activity_line(activity))
    if not working:
        click.echo("No command works on this bench.")
    for run in runs:
        click.echo(_run_line(run))


def _activity_line(activity: Activity) -> str:
    now = time.time()
    line = f"now: {activity.work}: {activity.done}/{activity.total}"
    if activity.seconds_left is not None:
        end = activity.updated + activity.seconds_left
        line += f", {max(0, end - now):.0f} s left, until {datetime.fromtimestamp(end):%H:%M:%S}"
    silent = now - activity.updated
    line += f", silent for {silent:.0f} s" if silent > _SILENT else ""
    return f"{line} {activity.note}".rstrip()


def _run_line(run: RunStatus) -> str:
    if run.problem:
        return f"{run.name}: {run.problem}"
    parts = []
    if run.trained:
        parts.append("trained")
    elif run.step is not None:
        losses = " ".join(f"{name} {value:.4g}" for name, value in (run.losses or {}).items())
        of = f" of {run.budget}" if run.budget else ""
        parts.append(f"step {run.step}, {run.seen}{of} volumes seen, {losses}".rstrip(", "))
    if run.samples:
        wanted = f" of {run.samples_wanted}" if run.samples_wanted else ""
        parts.append(f"{run.samples}{wanted} samples")
    parts.append("has scores" if run.scored else f"next: {run.next}")
    return f"{run.name}: {'; '.join(parts)}"
