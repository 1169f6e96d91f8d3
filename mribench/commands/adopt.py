"""mribench adopt: samples of other programs as an entrant of a bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribench.commands.options import bench_option, overwrite_option
from mribench.errors import UsageError

if TYPE_CHECKING:
    from mribench.adoption import Door, Trial
    from mribench.bench.folder import Bench
    from mribench.runtime import Context, Progress
    from mribench.session import Session

_PRESETS = ("hagan", "med-ddpm", "wdm", "brain-ldm", "maisi")


@click.command()
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path, exists=True))
@click.option("--name", required=True, help="Name of the new entrant.")
@bench_option
@click.option(
    "--preset",
    type=click.Choice(_PRESETS),
    help="How that published code stores its samples; the options below replace parts of it.",
)
@click.option(
    "--orientation",
    metavar="CODES",
    help="Axes of the stored array in their order, by the side that each runs to: RAS, LPS, SAR for [D,H,W]. "
    "N, C and _ name axes of volumes, channels and length 1 (NCSAR).",
)
@click.option(
    "--assume-affine",
    metavar="AFFINE",
    help="In the place of the header's: bench (the array spans the bench's field of view), a voxel size in mm "
    "(2 or 0.8,1,1: left-right, front-back, up-down), fov:256, 12 or 16 numbers, or a NIfTI file with the right one.",
)
@click.option("--channel", type=click.IntRange(0), help="Channel to take, counted from 0.")
@click.option(
    "--rescale",
    nargs=2,
    type=str,
    metavar="LOW HIGH",
    help="Intensities to map to 0 and 1; p99.5 is that percentile of each volume.",
)
@click.option(
    "--to-grid",
    type=click.Choice(["resample", "pad", "register"]),
    help="resample: through world mm. pad: keep the voxels, crop and pad around the centre. register: each stripped "
    "brain to MNI152. [default: resample, or the preset's]",
)
@click.option("--skip-bad", is_flag=True, help="Leave out volumes that are not usable, and list them.")
@click.option(
    "--dry-run", is_flag=True, help="Make no entrant; draw three volumes and say what would be done."
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where --dry-run draws. [default: mribench-adopt-NAME.png]",
)
@overwrite_option
@click.pass_obj
def adopt(
    quiet: bool,
    source: Path,
    name: str,
    folder: Path,
    preset: str | None,
    orientation: str | None,
    assume_affine: str | None,
    channel: int | None,
    rescale: tuple[str, str] | None,
    to_grid: str | None,
    skip_bad: bool,
    dry_run: bool,
    picture: Path | None,
    overwrite: bool,
) -> None:
    """Bring samples of any grid, orientation and intensities (.nii, .nii.gz, .npy, .npz) into a bench.

    Beside the entrant stands a control, NAME-door: held-out real volumes, stored as these samples are and brought in by
    the same recipe. `mribench report` scores and ranks.

    \b
    mribench adopt samples/ --name wdm --preset wdm --dry-run
    mribench adopt samples/ --name theirs --orientation LPS --assume-affine 2 --rescale -1 1
    """
    from mribench.bench.folder import open_bench
    from mribench.commands.console import session
    from mribench.runtime import make_context

    def compute(progress: Progress) -> Context:
        return make_context("cpu", progress=progress)

    if picture is not None and not dry_run:
        raise UsageError("--picture goes with --dry-run.")
    door = _door(source, preset, orientation, assume_affine, channel, rescale, to_grid)
    with session(quiet, compute, lambda: open_bench(folder)) as current:
        if dry_run:
            _try_out(current, name, door, skip_bad, picture or Path(f"mribench-adopt-{name}.png"))
        else:
            current.adopt(name, door, skip_bad, overwrite)


def _door(
    source: Path,
    preset: str | None,
    orientation: str | None,
    assume_affine: str | None,
    channel: int | None,
    rescale: tuple[str, str] | None,
    to_grid: str | None,
) -> Door:
    """The files and their recipe; raises UsageError for options that contradict or a library that is missing."""
    from importlib.util import find_spec

    from mribench.adoption import Door
    from mribench.data.foreign.recipe import make_recipe, parse_affine, parse_rescale
    from mribench.data.foreign.stored import stored_files

    form, files = stored_files(source)
    settings: dict[str, Any] = {"axes": orientation, "channel": channel, "to_grid": to_grid}
    settings |= {"rescale": parse_rescale(rescale)} if rescale else {}
    settings |= parse_affine(assume_affine) if assume_affine else {}
    recipe = make_recipe(preset, form, {key: value for key, value in settings.items() if value is not None})
    if recipe.to_grid == "register" and find_spec("SimpleITK") is None:
        raise UsageError(
            "--to-grid register needs SimpleITK, not installed here. Run: pip install 'mribench[prepare]'"
        )
    return Door(tuple(files), recipe)


def _try_out(current: Session, name: str, door: Door, skip_bad: bool, picture: Path) -> None:
    """Say what an adoption would do and draw its first volumes beside a real one; prints the picture's path."""
    from mribench.adoption import check_name, examine, listed, try_out
    from mribench.bench.cohort import start_cohort
    from mribench.reports.preview import write_preview

    bench = current.bench
    check_name(bench, name)
    wanted, grid = bench.protocol.evaluation.samples, bench.protocol.cohort.voxels
    chosen, left_out = examine(door, grid, wanted, skip_bad, current.context.progress)
    cohort = start_cohort(bench, current.context.progress)
    trial = try_out(door, chosen, cohort)
    rows = [(passage.source, volume) for passage, volume in zip(trial.passages, trial.volumes, strict=True)]
    write_preview(picture, [*rows, ("a real volume", cohort.set("reference")[0])], grid)
    for line in _summary(bench, name, door, trial, len(chosen)):
        click.echo(line, err=True)
    if left_out:
        click.echo("\n".join(["left out:", *listed(left_out)]), err=True)
    click.echo(picture)


def _summary(bench: Bench, name: str, door: Door, trial: Trial, count: int) -> list[str]:
    wanted, grid, passage = bench.protocol.evaluation.samples, bench.protocol.cohort.voxels, trial.passages[0]
    size = " x ".join(map(str, reversed(passage.shape)))
    onto = " x ".join(map(str, reversed(grid.shape)))
    spacing = " x ".join(f"{sum(row[i] ** 2 for row in passage.affine[:3]) ** 0.5:.4g}" for i in range(3))
    control = min(wanted, bench.protocol.cohort.holdout)
    return [
        f"recipe: {door.recipe}",
        f"first volume: {passage.source}, {size} voxels of {spacing} mm (left-right, front-back, up-down), onto {onto}",
        f"intensities: {passage.low:g} becomes 0, {passage.high:g} becomes 1; {passage.clipped:.2%} of the voxels are "
        f"clipped; {passage.outside:.1%} of the brightness lies outside the bench's field of view",
        f"would make the entrant {name} of {count} volumes ({wanted} are asked for)"
        + (f" and the control {name}-door of {control} real volumes" if control > 1 else ""),
        *([trial.advice] if trial.advice else []),
    ]
