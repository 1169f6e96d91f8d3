"""The commands that only look: list, check, verify."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mribench.commands.options import bench_option, json_option
from mribench.errors import finish


@click.command("list")
@click.argument("what", type=click.Choice(["models", "metrics", "protocols", "runs"]))
@bench_option
@json_option
def list_things(what: str, folder: Path, as_json: bool) -> None:
    """List models (with presets and parameter counts), metrics, protocols, or the runs of a bench.

    \b
    mribench list models --json
    mribench list runs --bench trial
    """
    from mribench.commands import listing

    rows = listing.rows(what, folder)
    click.echo(json.dumps(rows, indent=1) if as_json else listing.as_text(rows))


@click.command()
@click.argument("name")
def check(name: str) -> None:
    """Run the contract that every generator (or metric) must keep, on tiny volumes.

    \b
    mribench check cdpm
    mribench check ms_ssim
    """
    from mribench.selftest import contract

    failures = []
    for title, problem in contract.run(name):
        click.echo(f"{'FAILED' if problem else 'ok':7s}{title}{': ' + problem if problem else ''}")
        failures += [title] if problem else []
    if failures:
        sys.exit(1)


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
