"""One stripped and registered scan onto the common grid: checks, one interpolation, intensities to [0,1]."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from mribench.data.formats import digest_scan, read_scan
from mribench.data.grid import Grid, paper_grid, quantise
from mribench.data.interpolation import interpolate
from mribench.data.nifti import NiftiVolume
from mribench.data.prepare.builder import Product
from mribench.data.prepare.layouts import Scan
from mribench.data.prepare.quality import template
from mribench.data.prepare.recipe import StrippedRecipe
from mribench.data.records import ScanRecord
from mribench.errors import MribenchError
from mribench.files import digest_volume

_FEWEST_INTENSITIES = 16  # a mask or label map has fewer
# Measured: Colin27 0.89, simulated brains 0.70 to 0.82; Colin27 moved by 15 mm 0.48, upside down 0.51.
_LOW_CORRELATION = 0.6
_MANY_NEGATIVE = 0.01
_MANY_CLIPPED = 0.02


def process_stripped(scan: Scan, grid: Grid, recipe: StrippedRecipe) -> Product:
    """Read, check and resample one scan.

    Raises MribenchError with the reason when the scan cannot be used.
    """
    source = read_scan(scan.path)
    try:
        volume, measures = resample(source, grid, recipe)
    except MribenchError as error:
        raise MribenchError(f"{scan.name}: {error}") from error
    voxels = quantise(volume)
    record = ScanRecord(
        **scan.labels(),
        sha256=digest_scan(scan.path),
        digest=digest_volume(voxels, grid.affine),
        **measures,
    )
    return Product(voxels, record)


def resample(source: NiftiVolume, grid: Grid, recipe: StrippedRecipe) -> tuple[np.ndarray, dict[str, Any]]:
    """One interpolation of `source` onto `grid` through world mm, then percentile normalisation to [0,1].

    Outside the source is 0. Returns `[D,H,W]` float32 and the measures that ScanRecord holds. Raises
    MribenchError for a mask, for what is not stripped, and for what is not registered.
    """
    brain, outside = _checked_brain(source, grid, recipe)
    scale = float(np.percentile(source.data[brain], recipe.percentile))
    volume = _interpolate(source, grid, recipe.presmoothing) / np.float32(scale)
    inside = volume > 0
    measures = {
        "spacing_mm": source.spacing_mm,
        "oblique": source.oblique,
        "intensity_of_one": scale,
        "brain_cm3": _cm3(brain, source),
        "template_correlation": _template_correlation(source),
        "outside_fov_fraction": outside,
        "negative_fraction": float((source.data < 0).mean()),
        "clipped_fraction": float((volume > 1).sum() / max(inside.sum(), 1)),
    }
    measures["problems"] = remarks(source, measures)
    return np.clip(volume, 0, 1).astype(np.float32, copy=False), measures


def _checked_brain(source: NiftiVolume, grid: Grid, recipe: StrippedRecipe) -> tuple[np.ndarray, float]:
    """The brain's voxels as a boolean `[D,H,W]`, and the share of them outside the grid."""
    positive = source.data[source.data > 0]
    if positive.size == 0:
        raise MribenchError("a brain must have values above 0, but there are none. Make the background 0.")
    # Upstream spline interpolation leaves tiny positive ringing all over the background.
    brain = source.data > recipe.foreground * np.percentile(positive, 99.9)
    if len(np.unique(source.data[brain][:: max(1, int(brain.sum()) // 10_000)])) < _FEWEST_INTENSITIES:
        raise MribenchError("a T1 must have many intensities, but this looks like a mask or label map.")
    low, high = recipe.brain_cm3
    if not low <= (cm3 := _cm3(brain, source)) <= high:
        raise MribenchError(
            f"a stripped brain must have {low:g} to {high:g} cm3 above a background of 0, but this has "
            f"{cm3:.0f}. Strip the skull first and set the background to 0."
        )
    outside = _outside_fraction(source, brain, grid)
    if outside > recipe.max_outside_fov:
        raise MribenchError(
            f"at most {recipe.max_outside_fov:.0%} of the brain may lie outside the field of view, but "
            f"{outside:.0%} does. Register the scan to MNI152 first."
        )
    return brain, outside


def _cm3(mask: np.ndarray, source: NiftiVolume) -> float:
    return float(mask.sum() * abs(np.linalg.det(source.affine[:3, :3])) / 1000)


def _outside_fraction(source: NiftiVolume, mask: np.ndarray, grid: Grid) -> float:
    to_grid = np.linalg.inv(grid.affine) @ source.affine
    indices = np.argwhere(mask)[:, ::-1] @ to_grid[:3, :3].T + to_grid[:3, 3]
    inside = ((indices >= -0.5) & (indices <= np.array(grid.sides) - 0.5)).all(axis=1)
    return float(1 - inside.mean())


def _interpolate(source: NiftiVolume, grid: Grid, presmoothing: float) -> np.ndarray:
    return interpolate(np.maximum(source.data, 0), source.affine, grid.affine, grid.shape, presmoothing)


def _template_correlation(source: NiftiVolume) -> float:
    """Pearson correlation with the MNI152 T1 inside its brain, on 32^3 voxels: a check of registration."""
    expected, brain = _coarse_template()
    values = _coarse(source)[brain]
    return float(np.corrcoef(values, expected[brain])[0, 1]) if values.std() > 0 else 0.0


@lru_cache(maxsize=1)
def _coarse_template() -> tuple[np.ndarray, np.ndarray]:
    """The template `[32,32,32]` and its brain."""
    coarse = _coarse(template(2))
    return coarse, coarse > 0.05 * coarse.max()


def _coarse(source: NiftiVolume) -> np.ndarray:
    return _interpolate(source, paper_grid(32), StrippedRecipe().presmoothing)


def remarks(source: NiftiVolume, measures: Mapping[str, Any]) -> tuple[str, ...]:
    """What the user should look at, though the scan is used."""
    alike, negative = measures["template_correlation"], measures["negative_fraction"]
    clipped = measures["clipped_fraction"]
    notes = {
        source.remark: bool(source.remark),
        f"correlates with the MNI152 T1 by only {alike:.2f}": alike < _LOW_CORRELATION,
        f"{negative:.1%} of the voxels were negative and became 0": negative > _MANY_NEGATIVE,
        f"{clipped:.1%} of the brain was clipped to 1": clipped > _MANY_CLIPPED,
    }
    return tuple(text for text, holds in notes.items() if holds)
