"""mribench compare."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mribench.commands.options import json_option, wide_option
from mribench.errors import UsageError


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("mribench-comparison.html"),
    show_default=True,
    help="The page.",
)
@wide_option
@json_option
def compare(sources: tuple[Path, ...], out: Path, wide: bool, as_json: bool) -> None:
    """Compare benches (folders) and bundles (files of mribench export): what is comparable, paired tests, changes.

    \b
    mribench compare laboratory-a.zip laboratory-b.zip
    mribench compare old.zip mribench-bench --out changes.html
    """
    from mribench.reports.comparison import compare as compare_bundles
    from mribench.reports.export import open_sources
    from mribench.reports.leaderboard import as_text
    from mribench.reports.page.travel import write_comparison

    if len(sources) < 2:
        raise UsageError("compare needs two or more benches or bundles.")
    comparison = compare_bundles(open_sources(sources))
    write_comparison(comparison, out)
    click.echo(json.dumps(comparison.as_json(), indent=1) if as_json else out)
    for digest, board in comparison.boards:
        click.echo(f"Reference volumes {digest[:12]}:\n\n{as_text(board, wide).rstrip()}", err=True)
    if not comparison.boards:
        click.echo("No common leaderboard: the reference volumes of all sources differ.", err=True)
