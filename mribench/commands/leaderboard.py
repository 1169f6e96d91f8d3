"""mribench leaderboard."""

from __future__ import annotations

from pathlib import Path

import click

from mribench.errors import UsageError


@click.command()
@click.argument("bundles", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("mribench-site"),
    show_default=True,
    help="Folder of the site.",
)
def leaderboard(bundles: Path, out: Path) -> None:
    """Make a static site of a folder of bundles: a leaderboard for every protocol and set of reference volumes.

    \b
    mribench leaderboard bundles/
    mribench leaderboard bundles/ --out site/
    """
    from mribench.reports.export import open_sources
    from mribench.reports.page.travel import write_site

    files = sorted(path for path in bundles.iterdir() if path.suffix == ".zip")
    if not files:
        raise UsageError(f"{bundles} must hold bundles (.zip), but there are none. Run: mribench export")
    click.echo(write_site(open_sources(files), out))
