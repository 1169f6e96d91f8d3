"""mribench report."""

from __future__ import annotations

from pathlib import Path

import click

from mribench.commands.options import Compute, bench_option, compute_options, wide_option


@click.command()
@bench_option
@compute_options("memory", "weights", "weights_3d")
@click.option(
    "--no-real-pictures",
    is_flag=True,
    help="Show and name no real volume, and nothing made of one, so that the page may be shown to others.",
)
@click.option(
    "--pictures",
    type=click.IntRange(1, 50),
    default=2,
    show_default=True,
    help="Samples of each entrant that the page's viewer can look into; each adds up to 0.15 MB an entrant.",
)
@click.option(
    "--figures",
    is_flag=True,
    help="Write vector figures with captions and Table 1 for papers to report/figures/.",
)
@click.option("--pdf", is_flag=True, help="Print the page to report/index.pdf by Chromium, Chrome or Edge.")
@wide_option
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
@click.pass_obj
def report(
    quiet: bool,
    folder: Path,
    compute: Compute,
    no_real_pictures: bool,
    pictures: int,
    figures: bool,
    pdf: bool,
    wide: bool,
    show: bool,
) -> None:
    """Compute the scores that are missing, then write index.html, table.csv/.tex/.md and scores.csv.

    \b
    mribench report
    mribench report --bench trial --open
    mribench report --no-real-pictures
    mribench report --figures --pdf
    """
    from mribench.bench.folder import open_bench
    from mribench.commands.console import session
    from mribench.reports.printing import find_browser

    browser = find_browser() if pdf else None
    with session(quiet, compute, lambda: open_bench(folder)) as current:
        current.report(
            real_pictures=not no_real_pictures, pictures=pictures, wide=wide, figures=figures, browser=browser
        )
    if show:
        click.launch(str(current.bench.page))
