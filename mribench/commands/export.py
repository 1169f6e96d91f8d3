"""mribench export."""

from __future__ import annotations

from pathlib import Path

import click

from mribench.commands.options import bench_option


@click.command()
@bench_option
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The bundle. [default: BENCH.zip]"
)
@click.option(
    "--with-real-pictures",
    is_flag=True,
    help="Also show a reference volume, controls made of real ones, and entrants that fail a gate for copies.",
)
def export(folder: Path, out: Path | None, with_real_pictures: bool) -> None:
    """Write what a bench says of its entrants into one file that can be given away: no volumes, no names of real ones.

    \b
    mribench export
    mribench export --bench trial --out laboratory-a.zip
    """
    from mribench.bench.bundles import write_bundle
    from mribench.bench.folder import open_bench
    from mribench.reports.export import bundle_of

    bundle = bundle_of(open_bench(folder), real_pictures=with_real_pictures)
    path = out or Path(f"{bundle.label}.zip")
    write_bundle(path, bundle)
    for run in bundle.record.left_out:
        click.echo(f"left out {run.name}: {run.reason}", err=True)
    without = [e.name for e in bundle.record.entrants if not bundle.views(e.name)]
    if without:
        click.echo(
            f"without pictures, because they show or may show real volumes: {', '.join(without)}", err=True
        )
    click.echo(path)
