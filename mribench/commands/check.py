"""mribench check."""

from __future__ import annotations

import sys

import click

from mribench.commands.completion import checkable_names


@click.command()
@click.argument("name", shell_complete=checkable_names)
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
