"""The command that turns scans into a cohort: prepare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribench.commands.options import bench_option, overwrite_option, parse_settings
from mribench.errors import UsageError

if TYPE_CHECKING:
    from mribench.data.prepare.raw_cohort import RawPlan


@click.command()
@click.argument("source", required=False, type=click.Path(path_type=Path, exists=True))
@bench_option
@click.option("--protocol", help="[default: peng2023-heldout, or the bench's own]")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV with columns path, subject and perhaps session, source, done.",
)
@click.option("--raw", is_flag=True, help="Whole heads: mask, denoise, N4, affine to MNI152 first.")
@click.option(
    "--mask",
    "masks",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --raw: folder of brain masks (SynthStrip, HD-BET, ...) to use instead of deepbet.",
)
@click.option("--already-stripped", is_flag=True, help="With --raw: the scans have no skull.")
@click.option("--already-registered", is_flag=True, help="With --raw: the scans are in MNI152.")
@click.option("--workers", type=click.IntRange(1), help="With --raw: scans at a time. [default: cores]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="With --raw: a threshold of quality control.",
)
@overwrite_option
@click.pass_obj
def prepare(
    quiet: bool,
    source: Path | None,
    folder: Path,
    protocol: str | None,
    manifest: Path | None,
    raw: bool,
    masks: Path | None,
    already_stripped: bool,
    already_registered: bool,
    workers: int | None,
    settings: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Turn SOURCE (BIDS, ADNI, OASIS-1, IXI, FreeSurfer, a flat folder) or a --manifest into the cohort.

    Without --raw the scans must be stripped and registered to MNI152.

    \b
    mribench prepare ADNI/ --raw
    mribench prepare derivatives/ --protocol peng2023-heldout
    mribench prepare heads/ --raw --mask masks/ --set min_dice=0.9
    mribench prepare --manifest scans.csv --protocol mine.toml
    """
    from mribench.bench.protocol import ROLES
    from mribench.commands.console import display
    from mribench.data.prepare import preparation

    words = {
        "--mask": masks,
        "--already-stripped": already_stripped,
        "--already-registered": already_registered,
        "--workers": workers,
        "--set": settings,
    }
    if not raw and (given := [word for word, value in words.items() if value]):
        raise UsageError(f"{', '.join(given)} goes with --raw; without it nothing is masked or registered.")
    plan = None
    if raw:
        stages = {"stripped": already_stripped, "registered": already_registered}
        plan = _plan(source, manifest, masks, workers, parse_settings(settings), **stages)
    with display(quiet) as screen:
        bench, cohort, new = preparation.prepare(
            folder, protocol, source, manifest, overwrite, screen.report, raw=plan
        )
    for problem in cohort.record["problems"]:
        click.echo(f"kept out: {problem['reason']}", err=True)
    counts = ", ".join(f"{len(cohort.set(role))} {role}" for role in ROLES)
    click.echo(f"prepare: {'done' if new else 'up to date'}; {counts}", err=True)
    if raw:
        from mribench.reports.page.quality import quality_page

        click.echo(f"look at every scan: {quality_page(cohort, anew=new)}", err=True)
    click.echo(bench.cohort_folder)


def _plan(
    source: Path | None,
    manifest: Path | None,
    masks: Path | None,
    workers: int | None,
    quality: dict[str, Any],
    *,
    stripped: bool,
    registered: bool,
) -> RawPlan:
    from mribench.data.prepare.raw_cohort import RawPlan
    from mribench.data.prepare.recipe import build_recipe, require_backends

    recipe = build_recipe(
        given_masks=masks is not None, stripped=stripped, registered=registered, quality=quality
    )
    require_backends(recipe)
    return RawPlan(source, manifest, masks, recipe, workers)
