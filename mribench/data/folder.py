"""A folder of NIfTI as one set of volumes, every file checked once; the files themselves are `nifti.py`'s."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from mribench.data.formats import scan_stem
from mribench.data.grid import Grid, dequantise, quantise
from mribench.data.nifti import Rescale, check_range, is_nifti_name, read_nifti
from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError
from mribench.files import Record, digest_json, digest_volume

log = logging.getLogger(__name__)

AFFINE_TOLERANCE = 1e-3
_ADVICE = (
    "Bring samples of any grid into a bench with `mribench adopt`, and real scans with `mribench prepare`."
)
_CHECKS_VERSION = 1  # a higher number makes every cached check stale


class _Checked(BaseModel):
    """What opening a folder remembers of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    shape: tuple[int, int, int]
    affine: list[list[float]]


class _Checks(Record):
    """checks-NAME.json: every file of a folder that was checked, by its name, size, time and rescaling."""

    SCHEMA: ClassVar[str] = "mribench/checks/1"

    files: dict[str, _Checked] = {}


def open_folder(
    folder: Path,
    *,
    name: str,
    rescale: Rescale | None = None,
    expect_grid: Grid | None = None,
    digests_cache: Path | None = None,
    progress: Progress | None = None,
) -> VolumeSet:
    """Every .nii and .nii.gz directly in `folder` (hidden files apart) as one set, each checked once.

    `digests_cache` remembers this folder's checks by file size and time; `progress(file name, done, total)`
    follows them. Volumes are read again on demand, in [0,1], quantised to 1/65535. Raises MribenchError that
    lists every unusable file, or names two files whose grids differ.
    """
    files = _nifti_files(Path(folder))
    checked = _check_all(files, rescale, digests_cache, progress)
    _check_one_grid(files, checked, expect_grid)
    return VolumeSet(
        name=name,
        names=tuple(scan_stem(file.name) for file in files),
        digests=tuple(check.digest for check in checked),
        shape=checked[0].shape,
        load=lambda i: _load(files[i], rescale, checked[i].digest),
        affine=tuple(map(tuple, checked[0].affine)),
    )


def _nifti_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MribenchError(f"{folder} must be a folder of NIfTI files. Check the path.")
    files = [p for p in folder.iterdir() if is_nifti_name(p) and not p.name.startswith(".")]
    if not files:
        raise MribenchError(f"{folder} must hold .nii or .nii.gz files, but there are none directly in it.")
    if strange := [p.name for p in files if not p.name.isprintable()]:
        raise MribenchError(
            f"{folder} must hold files with printable names, but one is {strange[0]!a}. Rename it."
        )
    by_stem: dict[str, Path] = {}
    for file in sorted(files, key=lambda p: p.name):
        twin = by_stem.setdefault(scan_stem(file.name), file)
        if twin is not file:
            raise MribenchError(
                f"{folder} must hold each volume once, but {twin.name!r} and {file.name!r} share a name. "
                "Remove one."
            )
    return [by_stem[key] for key in sorted(by_stem)]


def _check_all(
    files: list[Path], rescale: Rescale | None, cache: Path | None, progress: Progress | None
) -> list[_Checked]:
    cached = _read_cache(cache)
    checks: dict[str, _Checked] = {}
    problems = []
    for done, file in enumerate(files, 1):
        try:
            key = _cache_key(file, rescale)
            checks[key] = cached.get(key) or _check_file(file, rescale)
        except MribenchError as error:
            problems.append(str(error))
        if progress is not None:
            progress(file.name, done, len(files))
    if cache is not None and checks != cached:
        _Checks(files=checks).write(cache)
    _raise_problems(problems, len(files))
    return list(checks.values())


def _raise_problems(problems: list[str], total: int) -> None:
    """Raise one MribenchError with the count and the first ten of `problems`; return when there are none."""
    if not problems:
        return
    lines = [f"Every file must be usable, but {len(problems)} of {total} are not:"]
    lines += [f"  {problem}" for problem in problems[:10]]
    if len(problems) > 10:
        lines.append(f"  ... and {len(problems) - 10} more")
    raise MribenchError("\n".join(lines))


def _check_file(file: Path, rescale: Rescale | None) -> _Checked:
    volume = read_nifti(file)
    if volume.oblique:
        log.warning("%s is oblique: its slices are not exactly axial, coronal and sagittal.", file)
    voxels = quantise(check_range(volume.data, str(file), rescale))
    return _Checked(
        digest=digest_volume(voxels, volume.affine), shape=voxels.shape, affine=volume.affine.tolist()
    )


def _cache_key(file: Path, rescale: Rescale | None) -> str:
    try:
        stat = file.stat()
    except OSError as error:
        raise MribenchError(f"{file} must be readable, but: {error.strerror}.") from error
    return digest_json([_CHECKS_VERSION, file.name, stat.st_size, stat.st_mtime_ns, rescale])


def _read_cache(cache: Path | None) -> dict[str, _Checked]:
    if cache is None or not cache.exists():
        return {}
    try:
        return _Checks.read(cache).files
    except MribenchError as error:
        log.warning("%s Every file is checked again.", error)
        return {}


def _check_one_grid(files: list[Path], checked: list[_Checked], expect: Grid | None) -> None:
    shape = expect.shape if expect else checked[0].shape
    affine = expect.affine if expect else np.array(checked[0].affine)
    against = "the protocol's grid" if expect else repr(files[0].name)
    for file, check in zip(files, checked, strict=True):
        if check.shape != shape:
            raise MribenchError(
                f"All volumes must have one shape, but {file.name!r} is {check.shape} and {against} is {shape} "
                f"(axial, coronal, sagittal). {_ADVICE}"
            )
        apart = float(np.abs(np.array(check.affine) - affine).max())
        if apart > AFFINE_TOLERANCE:
            raise MribenchError(
                f"All volumes must share one grid in world mm, but the affines of {file.name!r} and "
                f"{against} differ by up to {apart:.4g}. {_ADVICE}"
            )


def _load(file: Path, rescale: Rescale | None, digest: str) -> np.ndarray:
    """The volume as its digest knows it: quantised to 1/65535."""
    volume = read_nifti(file)
    voxels = quantise(check_range(volume.data, str(file), rescale))
    if digest_volume(voxels, volume.affine) != digest:
        raise MribenchError(f"{file} must not change while it is in use, but it did. Run the command again.")
    return dequantise(voxels)
