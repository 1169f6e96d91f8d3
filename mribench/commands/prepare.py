"""The command that turns scans into a cohort: prepare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mribench import processes
from mribench.commands.options import bench_option, overwrite_option, parse_settings
from mribench.errors import MribenchError, UsageError

if TYPE_CHECKING:
    from mribench.bench.folder import Bench
    from mribench.data.cohort import Cohort
    from mribench.data.prepare.own import Request
    from mribench.data.volume_set import Progress

_DEFAULT_PROTOCOL = "peng2023-heldout"


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
    from mribench.commands.console import display
    from mribench.data.cohort import ROLES
    from mribench.data.prepare.own import Request
    from mribench.data.prepare.recipe import RawRecipe, StrippedRecipe, raw_recipe

    words = {
        "--mask": masks,
        "--already-stripped": already_stripped,
        "--already-registered": already_registered,
        "--workers": workers,
        "--set": settings,
    }
    if not raw and (given := [word for word, value in words.items() if value]):
        raise UsageError(f"{', '.join(given)} goes with --raw; without it nothing is masked or registered.")
    recipe: RawRecipe | StrippedRecipe = StrippedRecipe()
    if raw:
        recipe = raw_recipe(
            given_masks=masks is not None,
            stripped=already_stripped,
            registered=already_registered,
            quality=parse_settings(settings),
        )
    request = Request(source, manifest, recipe, masks, workers)
    with display(quiet) as screen:
        if processes.is_first():
            screen.announce_at(folder)
        bench, cohort, new = prepare_cohort(folder, protocol, request, overwrite, screen.report)
    for scan in cohort.record.problems:
        click.echo(f"left out: {scan.reason}", err=True)
    counts = ", ".join(f"{len(cohort.set(role))} {role}" for role in ROLES)
    click.echo(f"prepare: {'done' if new else 'up to date'}; {counts}", err=True)
    if raw:
        from mribench.reports.page.quality import quality_page

        page = processes.from_first(lambda: quality_page(cohort, new=new))
        click.echo(f"look at every scan: {page}", err=True)
    click.echo(bench.cohort_folder)


def prepare_cohort(
    folder: Path, protocol: str | None, request: Request, overwrite: bool, progress: Progress
) -> tuple[Bench, Cohort, bool]:
    """Make the bench's cohort from own scans; a finished one is kept unless `overwrite`. Returns whether it is new.

    With `overwrite` only the volumes that must differ are made again. Raises UsageError for a protocol of simulated
    volumes, when the finished cohort is another than what is asked for, or when runs already depend on it.
    """
    from mribench.bench.folder import start_bench
    from mribench.data.cohort import open_cohort
    from mribench.data.prepare.own import own_cohort

    if not (folder / "bench.json").exists():
        protocol = protocol or _DEFAULT_PROTOCOL
        request.scans()  # nothing to prepare must leave no bench behind
    bench = processes.first_alone(lambda: start_bench(folder, protocol, simulated=False))
    if bench.protocol.cohort.source != "prepared":
        raise UsageError(
            f"Protocol {bench.protocol.name} makes simulated brains and takes no own volumes. "
            f"Choose another --bench and --protocol {_DEFAULT_PROTOCOL}, peng2023 or a .toml file."
        )
    with bench.lock("cohort"):
        if processes.from_first((bench.cohort_folder / "volumes.json").exists):
            if not overwrite:
                cohort = open_cohort(bench.cohort_folder)
                processes.from_first(lambda: _check_same(cohort, request))
                if not processes.from_first(cohort.altered):
                    return bench, cohort, False
                return bench, _restored(bench, cohort, request, progress), True
            processes.from_first(lambda: _forget_cohort(bench))
        return bench, own_cohort(bench.cohort_folder, bench.protocol.cohort_plan, request, progress), True


def _restored(bench: Bench, cohort: Cohort, request: Request, progress: Progress) -> Cohort:
    """The cohort with its damaged volumes made anew; raises MribenchError when they come out otherwise."""
    from mribench.data.prepare.own import own_cohort

    if request.source is None and request.manifest is None:
        raise UsageError(
            f"{', '.join(cohort.altered())} in {cohort.folder} must be what volumes.json records, but differ. Name the "
            "scans again, and they are made anew."
        )
    again = own_cohort(bench.cohort_folder, bench.protocol.cohort_plan, request, progress)
    if again.digest != cohort.digest:
        if processes.is_first():
            cohort.record.write(cohort.folder / "volumes.json")
        raise MribenchError(
            f"The damaged volumes in {cohort.folder} came out otherwise than they were: the scans or the programs have "
            "changed. Restore them from a copy, or prepare another --bench."
        )
    return again


def _forget_cohort(bench: Bench) -> None:
    from mribench.files import SUMS
    from mribench.reports.page.quality import PAGE

    if bench.runs():
        raise UsageError(
            f"{bench.folder} has runs that were trained on its cohort. Prepare into another --bench."
        )
    for name in ("volumes.json", PAGE, SUMS):
        (bench.cohort_folder / name).unlink(missing_ok=True)


def _check_same(cohort: Cohort, request: Request) -> None:
    """Raise UsageError, naming what differs, unless the finished cohort is what would be made now."""
    from mribench.bench.protocol import differences
    from mribench.data.prepare.recipe import RawRecipe, StrippedRecipe
    from mribench.data.prepare.scans import digest_inputs, identify

    made = {key: value for key, value in cohort.record.recipe.items() if key != "versions"}
    asked = request.recipe.model_dump(mode="json")
    ways = "choose another --bench, or add --overwrite"
    if made.get("name") != asked["name"]:
        kinds = {recipe().name: recipe.kind for recipe in (RawRecipe, StrippedRecipe)}
        raise UsageError(
            f"The cohort in {cohort.folder} is of {kinds.get(made.get('name', ''), 'other scans')}, but this asks for "
            f"{request.recipe.kind}: {ways}."
        )
    reasons = differences(made, asked)
    if cohort.record.inputs and (request.source or request.manifest):
        inputs = digest_inputs(identify(request.scans(), request.masks))
        if inputs != cohort.record.inputs:
            reasons.append("other scans, masks or labels than it was made from")
    if reasons:
        raise UsageError(
            f"The cohort in {cohort.folder} is finished, but this asks for another: {'; '.join(reasons)}. To have "
            f"that, {ways} (scans that are finished are judged again and not made again)."
        )
