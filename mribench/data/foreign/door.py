"""The way of a stored volume onto a bench's grid, and back: affine, intensities, one interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, axcodes2ornt

from mribench.data.foreign.recipe import Passage, Recipe
from mribench.data.foreign.stored import Stored
from mribench.data.grid import Grid
from mribench.data.interpolation import interpolate
from mribench.data.nifti import NiftiVolume, canonical, check_range
from mribench.errors import MribenchError, UsageError

_SAME_SIZE = 0.01  # relative difference of voxel sizes that --to-grid pad overlooks
_CLIPPED = (
    0.05  # beyond the range, as a proportion of it, before a voxel counts as clipped: noise is no fault
)


def upright(stored: Stored, recipe: Recipe, grid: Grid, path: Path) -> NiftiVolume:
    """The stored volume in canonical RAS+ with the file's or the assumed affine, in its own intensities.

    Raises MribenchError, naming `path`, where neither file nor recipe says where the voxels lie, and as `canonical`.
    """
    return canonical(stored.voxels, _affine(stored, recipe, grid, path), path)


def _affine(stored: Stored, recipe: Recipe, grid: Grid, path: Path) -> np.ndarray:
    """`[4,4]` from the stored indices to world mm."""
    if recipe.affine == "matrix":
        matrix = np.reshape(recipe.numbers, (4, 4))
        if stored.sides and (sides := "".join(aff2axcodes(matrix))) != stored.sides:
            raise UsageError(
                f"--orientation {stored.sides} must agree with the matrix of --assume-affine, which says {sides}. "
                "Leave one out."
            )
        return matrix
    if not stored.sides and recipe.affine == "header":
        return _header_affine(stored, path)
    if not stored.sides:
        _header_affine(stored, path)  # raises where the file does not say how its axes run
    sides = sides_of(stored)
    shape, world = stored.voxels.shape, axcodes2ornt(sides)
    centre = _centre(grid)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (side, sign) in enumerate(world):
        side = int(side)
        affine[side, axis] = sign * _spacing(stored, recipe, grid, side, axis, path)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _header_affine(stored: Stored, path: Path) -> np.ndarray:
    """The file's own affine; one with the first voxel at 0 0 0 and no turn is what programs write that know none."""
    affine = stored.affine
    advice = (
        "Say how its axes run with --orientation (for example RAS), and the size of its voxels or of its field of view "
        "with --assume-affine where the header is wrong; or choose a --preset."
    )
    if affine is None:
        raise MribenchError(f"{path} must state its orientation, but it does not. {advice}")
    plain = np.allclose(affine[:3, :3], np.diag(np.abs(np.diag(affine)[:3])), atol=1e-6)
    if plain and np.allclose(affine[:3, 3], 0, atol=1e-6):
        what = "the identity" if np.allclose(affine, np.eye(4), atol=1e-6) else "only a voxel size"
        raise MribenchError(
            f"{path} must say where its voxels lie, but its affine is {what}, with the first voxel at 0 0 0. {advice}"
        )
    return affine


def sides_of(stored: Stored) -> str:
    """The letters of the stored axes: the recipe's, or those of the file's affine."""
    return stored.sides or "".join(aff2axcodes(stored.affine))


def _spacing(stored: Stored, recipe: Recipe, grid: Grid, side: int, axis: int, path: Path) -> float:
    """Millimetres between the voxels of a stored axis that lies along the world's axis `side`."""
    length = stored.voxels.shape[axis]
    if recipe.affine == "spacing":
        return recipe.numbers[side]
    if recipe.affine == "fov":
        return recipe.numbers[side] / length
    if recipe.affine == "bench":
        return grid.spacing_mm[side] * grid.shape[2 - side] / length
    if stored.spacing_mm is not None and stored.spacing_mm[axis] > 0:
        return stored.spacing_mm[axis]
    if recipe.to_grid == "pad":
        return grid.spacing_mm[side]
    raise MribenchError(
        f"{path} must state the size of its voxels, but it does not. Give it with --assume-affine: the size in mm, "
        "fov:SIZE for a field of view, or bench where the array spans that of the bench."
    )


def _centre(grid: Grid) -> np.ndarray:
    """World mm of the centre of the bench's field of view."""
    centre = (np.array(grid.shape[::-1]) - 1) / 2
    return np.asarray(grid.affine[:3, :3] @ centre + grid.affine[:3, 3])


def enter(
    volume: NiftiVolume, recipe: Recipe, grid: Grid, source: str, step: float, path: Path
) -> tuple[np.ndarray, Passage]:
    """`[D,H,W]` in [0,1] on the grid, and how it came there.

    Raises MribenchError for intensities outside [0,1] without a --rescale, for voxel sizes that --to-grid pad cannot
    keep, and for a registration that loses the brain.
    """
    data, low, high, clipped = unit(volume, recipe, path)
    placement = _placement(volume, data, recipe, grid, path)
    sample = interpolate(data, placement, grid.affine, grid.shape, recipe.presmoothing)
    passage = Passage(
        source=source,
        shape=data.shape,
        affine=_rows(volume.affine),
        placement=_rows(placement),
        low=low,
        high=high,
        step=step,
        clipped=round(clipped, 6),
        outside=round(_outside(data, placement, sample, grid), 6),
    )
    return np.clip(sample, 0, 1).astype(np.float32, copy=False), passage


def check_entry(volume: NiftiVolume, recipe: Recipe, grid: Grid, path: Path) -> float:
    """Raise as `enter` does, the registration apart; returns the volume's largest value in [0,1]."""
    if recipe.to_grid == "pad":
        _kept_voxels(volume, grid, path)
    return float(unit(volume, recipe, path)[0].max())


def unit(volume: NiftiVolume, recipe: Recipe, path: Path) -> tuple[np.ndarray, float, float, float]:
    """The volume in [0,1], what became 0 and 1, and the proportion of voxels that were clipped."""
    if recipe.rescale is None:
        return check_range(volume.data, str(path)), 0.0, 1.0, 0.0
    low, high = (_resolved(bound, volume.data) for bound in recipe.rescale)
    if not low < high:
        raise MribenchError(
            f"{path} must have {recipe.rescale[0]} below {recipe.rescale[1]}, but they are {low:g} and {high:g}. "
            "Choose another --rescale."
        )
    data = (volume.data - np.float32(low)) / np.float32(high - low)
    clipped = float(((data < -_CLIPPED) | (data > 1 + _CLIPPED)).mean())
    return np.clip(data, 0, 1), low, high, clipped


def _resolved(bound: float | str, data: np.ndarray) -> float:
    return float(np.percentile(data, float(bound[1:]))) if isinstance(bound, str) else bound


def _placement(volume: NiftiVolume, data: np.ndarray, recipe: Recipe, grid: Grid, path: Path) -> np.ndarray:
    """`[4,4]` from canonical indices (W, H, D) to the bench's world mm."""
    if recipe.to_grid == "pad":
        return _kept_voxels(volume, grid, path)
    if recipe.registration is None:
        return volume.affine
    from mribench.data.prepare.registration import register

    brain = NiftiVolume(data, volume.affine, volume.spacing_mm, volume.oblique)
    try:
        return np.asarray(register(brain, recipe.registration) @ volume.affine)
    except RuntimeError as error:
        raise MribenchError(
            f"{path} must be a stripped brain that can be registered to MNI152, but ITK says: "
            f"{str(error).strip().splitlines()[-1]} Use --to-grid resample, or leave it out."
        ) from error


def _kept_voxels(volume: NiftiVolume, grid: Grid, path: Path) -> np.ndarray:
    """Centre on centre, by whole voxels, whatever the affine's origin says."""
    sizes = voxel_sizes(volume.affine)
    if volume.oblique or np.abs(sizes / np.array(grid.spacing_mm) - 1).max() > _SAME_SIZE:
        kind = "turned voxels" if volume.oblique else f"voxels of {' x '.join(f'{s:.4g}' for s in sizes)} mm"
        raise MribenchError(
            f"{path} must have the bench's voxels of {' x '.join(f'{s:.4g}' for s in grid.spacing_mm)} mm for "
            f"--to-grid pad, which does not interpolate, but it has {kind}. Use --to-grid resample."
        )
    first = np.floor((np.array(grid.shape) - np.array(volume.data.shape)) / 2)[::-1]
    shift = np.eye(4)
    shift[:3, 3] = first
    return np.asarray(grid.affine @ shift)


def _outside(data: np.ndarray, placement: np.ndarray, sample: np.ndarray, grid: Grid) -> float:
    """The proportion of all brightness that the grid does not hold."""
    whole = float(data.sum(dtype=np.float64)) * abs(np.linalg.det(placement[:3, :3]))
    held = float(sample.sum(dtype=np.float64)) * abs(np.linalg.det(grid.affine[:3, :3]))
    return max(0.0, 1 - held / whole) if whole > 0 else 1.0


def leave(real: np.ndarray, passage: Passage, recipe: Recipe, grid: Grid) -> NiftiVolume:
    """A volume of the bench as the other program would have stored it: the inverse of a sample's passage."""
    placement, affine = np.array(passage.placement), np.array(passage.affine)
    data = interpolate(real, grid.affine, placement, passage.shape, recipe.presmoothing)
    data = np.clip(data, 0, 1) * (passage.high - passage.low) + passage.low
    if passage.step > 0:
        data = np.round(data / passage.step) * passage.step
    sizes = [float(size) for size in voxel_sizes(affine)]
    return NiftiVolume(
        data=data.astype(np.float32),
        affine=affine,
        spacing_mm=(sizes[0], sizes[1], sizes[2]),
        oblique=False,
    )


def _rows(matrix: np.ndarray) -> tuple[tuple[float, float, float, float], ...]:
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in matrix)
