"""Volumes as other programs store them: NIfTI files, and .npy and .npz arrays of one volume or many."""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mribench.data.foreign.recipe import Form, Recipe
from mribench.data.nifti import (
    MAX_INFLATION,
    SUFFIXES,
    UNCHECKED_BYTES,
    check_memory,
    explained,
    is_nifti_name,
    read_stored,
)
from mribench.errors import MribenchError

_ARRAY_SUFFIXES = (".npy", ".npz")
_MAX_ARCHIVE = 8 * 1024**3  # an array of an .npz cannot be read in parts


@dataclass(frozen=True)
class Slot:
    """One volume of a file: the array `key` of an .npz, the volume `index` of an array of many."""

    file: Path
    key: str = ""
    index: int | None = None

    @property
    def name(self) -> str:
        """For example "sample_0.nii.gz" or "fake.npz:arr_0[3]"."""
        key = f":{self.key}" if self.key else ""
        return f"{self.file.name}{key}{'' if self.index is None else f'[{self.index}]'}"

    @property
    def path(self) -> Path:
        """The file's path, ending with this volume's name, for messages."""
        return self.file.with_name(self.name)


@dataclass(frozen=True, eq=False)
class Stored:
    """One volume in the order of its three stored axes, float32 `[I,J,K]`, and what the file says of it.

    `sides` are the letters that the recipe gives these axes ("" = the file decides); `spacing_mm` is None in an array.
    """

    voxels: np.ndarray
    sides: str
    affine: np.ndarray | None
    spacing_mm: tuple[float, float, float] | None
    step: float


def stored_files(folder: Path) -> tuple[Form, list[Path]]:
    """The file, or the files directly in a folder, hidden ones apart; sample_2 comes before sample_10.

    Raises MribenchError when there are none, both, two of one name, or a name that cannot be printed.
    """
    files = [folder] if folder.is_file() else [p for p in folder.iterdir() if not p.name.startswith(".")]
    nifti = [p for p in files if is_nifti_name(p)]
    arrays = [p for p in files if p.name.lower().endswith(_ARRAY_SUFFIXES)]
    if not nifti and not arrays:
        raise MribenchError(_nothing(folder, files))
    if nifti and arrays:
        raise MribenchError(
            f"{folder} must hold NIfTI files or arrays, but it holds both ({nifti[0].name!r} and {arrays[0].name!r}). "
            "Put one of them elsewhere."
        )
    chosen = sorted(nifti or arrays, key=_natural)
    if strange := [p.name for p in chosen if not p.name.isprintable()]:
        raise MribenchError(
            f"{folder} must hold files with printable names, but one is {strange[0]!a}. Rename it."
        )
    by_stem: dict[str, Path] = {}
    for file in chosen:
        twin = by_stem.setdefault(_stem(file.name), file)
        if twin is not file:
            raise MribenchError(
                f"{folder} must hold each volume once, but {twin.name!r} and {file.name!r} share a name. Remove one."
            )
    return ("nifti" if nifti else "array"), chosen


def _nothing(folder: Path, files: list[Path]) -> str:
    if folder.is_file():
        return f"{folder} must end in .nii, .nii.gz, .npy or .npz. Convert it first."
    below = sorted(p.name for p in files if p.is_dir() and any(_is_stored(q) for q in p.iterdir()))
    where = f" Those in {below[0]!r} are not looked at: give {folder / below[0]}." if below else ""
    return f"{folder} must hold .nii, .nii.gz, .npy or .npz files, but there are none directly in it.{where}"


def _is_stored(path: Path) -> bool:
    return path.name.lower().endswith((*SUFFIXES, *_ARRAY_SUFFIXES))


def _stem(name: str) -> str:
    suffix = next(s for s in (*SUFFIXES, *_ARRAY_SUFFIXES) if name.lower().endswith(s))
    return name[: -len(suffix)]


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """sample_2 before sample_10, because programs number their samples without leading zeros."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts if part], path.name


def slots(file: Path, recipe: Recipe) -> list[Slot]:
    """The volumes of a file, without reading their voxels; raises MribenchError where it cannot be read."""
    if is_nifti_name(file) and "N" not in recipe.axes:
        return [Slot(file)]
    if is_nifti_name(file):
        return [Slot(file, index=i) for i in range(_count(read_stored(file).voxels.shape, recipe, file))]
    found = []
    for key in _keys(file):
        shape = _array(file, key).shape
        many = "N" in _letters(recipe, len(shape), file)
        found += [
            Slot(file, key, i if many else None) for i in range(_count(shape, recipe, file) if many else 1)
        ]
    return found


def _count(shape: tuple[int, ...], recipe: Recipe, file: Path) -> int:
    return shape[_letters(recipe, len(shape), file).index("N")]


def read_slot(slot: Slot, recipe: Recipe) -> Stored:
    """The voxels of one volume; raises MribenchError where they cannot be read or the axes do not fit."""
    file = slot.file
    if is_nifti_name(file):
        stored = read_stored(file)
        letters = _letters(recipe, stored.voxels.ndim, file)
        voxels = _picked(stored.voxels, letters, slot, recipe)
        spatial = [i for i, letter in enumerate(letters) if letter not in "NC_"][:3]
        spacing = stored.spacing_mm if spatial == [0, 1, 2] else None
        affine = stored.affine if spatial == [0, 1, 2] else None
        return Stored(voxels, recipe.sides, affine, spacing, stored.step)
    array = _array(file, slot.key)
    letters = _letters(recipe, array.ndim, file)
    picked = _picked(array, letters, slot, recipe)
    with explained(file), np.errstate(over="ignore", invalid="ignore"):
        voxels = np.array(picked, dtype=np.float32)
    return Stored(voxels, recipe.sides, None, None, 1.0 if array.dtype.kind in "iu" else 0.0)


def _letters(recipe: Recipe, axes: int, file: Path) -> str:
    """One letter for every axis of the stored array; x, y and z where the file decides which side they run to."""
    if len(recipe.axes) > 3:
        if len(recipe.axes) != axes:
            raise MribenchError(
                f"{file} must have the {len(recipe.axes)} axes {recipe.axes}, but it has {axes}. "
                "Name its axes with --orientation, or only the three in space."
            )
        return recipe.axes
    sides = recipe.axes or "xyz"
    if is_nifti_name(file):
        if 3 <= axes <= 7:
            return sides + "C" * (axes - 3)
    elif 3 <= axes <= 5:
        many = "C" if recipe.channel is not None else "N"
        return {3: "", 4: many, 5: "NC"}[axes] + sides
    raise MribenchError(
        f"{file} must hold volumes with three axes in space, but its array has {axes} axes. Name all of them with "
        "--orientation, for example NCSAR."
    )


def _picked(array: np.ndarray, letters: str, slot: Slot, recipe: Recipe) -> np.ndarray:
    """The three axes in space of one volume and channel."""
    index: list[Any] = [slice(None)] * array.ndim
    channels = [i for i, letter in enumerate(letters) if letter == "C" and array.shape[i] > 1]
    if len(channels) > 1:
        raise MribenchError(
            f"{slot.path} must have one axis of channels, but its shape is {list(array.shape)}. "
            "Name its axes with --orientation, for example RAS_C."
        )
    for i, letter in enumerate(letters):
        if letter == "_" and array.shape[i] != 1:
            raise MribenchError(
                f"{slot.path} must have length 1 where --orientation {letters} has _, but its shape is "
                f"{list(array.shape)}. Name the axis: N for volumes, C for channels."
            )
        if letter in "C_":
            index[i] = 0
        if letter == "N":
            index[i] = slot.index
    for i in channels:
        index[i] = _channel(array.shape[i], slot, recipe)
    picked = array[tuple(index)]
    check_memory(picked.shape, array.dtype.itemsize, slot.path)
    return picked


def _channel(count: int, slot: Slot, recipe: Recipe) -> int:
    if recipe.channel is None or recipe.channel >= count:
        given = "none was chosen" if recipe.channel is None else f"number {recipe.channel} was chosen"
        raise MribenchError(
            f"{slot.path} has {count} channels, of which one must be chosen, but {given}. "
            f"Choose one with --channel 0 to {count - 1}."
        )
    return recipe.channel


def _keys(file: Path) -> list[str]:
    """The names of the arrays in an .npz; one empty name for an .npy."""
    if file.suffix.lower() == ".npy":
        return [""]
    with explained(file):
        _check_regular(file)
        try:
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
        except zipfile.BadZipFile as error:
            raise MribenchError(
                f"{file} must be an undamaged .npz file, but: {error}. Save it again."
            ) from error
    for info in infos:
        inflates = info.file_size > UNCHECKED_BYTES and info.file_size > MAX_INFLATION * info.compress_size
        if inflates or info.file_size > _MAX_ARCHIVE:
            raise MribenchError(
                f"{file} must hold arrays of at most {_MAX_ARCHIVE / 1024**3:g} GiB that inflate by at most a factor "
                f"{MAX_INFLATION}, but {info.filename!r} has {info.file_size} bytes of {info.compress_size}. "
                "Store one .npy for each volume."
            )
    names = [info.filename.removesuffix(".npy") for info in infos if info.filename.endswith(".npy")]
    if not names or not all(name.isprintable() for name in names):
        raise MribenchError(
            f"{file} must hold arrays with printable names, but has {names!a}. Save it again."
        )
    return sorted(names)


def _array(file: Path, key: str) -> np.ndarray:
    """The array, an .npy mapped into memory and an .npz's read once for all its volumes."""
    with explained(file):
        _check_regular(file)
        try:
            stat = file.stat()
            array = _loaded(file, key, stat.st_size, stat.st_mtime_ns)
        except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, SyntaxError) as error:
            raise MribenchError(
                f"{file} must be an undamaged array file, but: {error}. Save it again."
            ) from error
    if array.dtype.kind not in "iuf" or array.ndim == 0 or math.prod(array.shape) == 0:
        raise MribenchError(
            f"{file} must hold real numbers, but its array is {array.dtype} of shape {list(array.shape)}. "
            "Save one greyscale channel."
        )
    return array


@lru_cache(maxsize=1)
def _loaded(file: Path, key: str, size: int, changed: int) -> np.ndarray:
    """`size` and `changed` tell a file from its successor of the same name."""
    if key:
        with np.load(file, allow_pickle=False) as archive:
            loaded: np.ndarray = archive[key]
            return loaded
    mapped: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    return mapped


def _check_regular(file: Path) -> None:
    if not file.is_file():
        raise MribenchError(f"{file} must be an existing regular file. Check the path.")
