"""How well a raw scan was stripped and registered: measures, and the thresholds they must reach."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import affine_transform

from mribench.data.grid import index_map
from mribench.data.nifti import NiftiVolume
from mribench.data.prepare.recipe import Quality
from mribench.data.records import RawRecord

_FACES = ("left", "right", "posterior", "anterior", "inferior", "superior")


@lru_cache(maxsize=2)
def template(mm: int = 1) -> NiftiVolume:
    """The stripped MNI152 2009a T1 of nilearn at so many mm: `[D,H,W]` in [0,1], 0 outside the brain."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=mm)
    data = np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32).T)
    return NiftiVolume(data, np.asarray(image.affine, dtype=np.float64), (float(mm),) * 3, oblique=False)


def brain_dice(mask: np.ndarray, affine: np.ndarray) -> float:
    """Dice overlap of `mask` `[D,H,W]`, whose voxels `affine` takes to MNI152 mm, with the template's brain."""
    mni = template()
    step = np.diag([2.0, 2.0, 2.0, 1.0])
    brain = mni.data[::2, ::2, ::2] > 0
    matrix, offset = index_map(affine, mni.affine @ step)
    moved = affine_transform(mask.astype(np.float32), matrix, offset, brain.shape, order=1) > 0.5
    return float(2 * (moved & brain).sum() / max(int(moved.sum() + brain.sum()), 1))


def border_contact(mask: np.ndarray, affine: np.ndarray) -> tuple[float, str]:
    """The largest area (cm2) in which `mask` `[D,H,W]` touches a face of its volume, and that face's name."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)  # mm along W, H, D
    areas = {}
    for axis in range(3):
        face_mm2 = float(np.prod(np.delete(sides, axis)))
        for end in (0, -1):
            cut = np.take(mask, end, axis=2 - axis)
            areas[_FACES[2 * axis + (end == -1)]] = float(cut.sum()) * face_mm2 / 100
    name = max(areas, key=lambda face: areas[face])
    return areas[name], name if areas[name] > 0 else ""


def failures(record: RawRecord, quality: Quality) -> list[str]:
    """Why the scan may not be used: one clause per threshold that it misses."""
    low, high = quality.brain_cm3
    smallest, largest = quality.determinant
    missed = {
        f"its brain has {record.brain_cm3:.0f} cm3, which must be {low:g} to {high:g} (wrong spacing, or a "
        "failed mask)": not low <= record.brain_cm3 <= high,
        f"its Dice overlap with the MNI152 brain is {record.dice:.3f}, which must reach "
        f"{quality.min_dice:g}": record.dice < quality.min_dice,
        f"its correlation with the MNI152 T1 is {record.template_correlation:.2f}, which must reach "
        f"{quality.min_correlation:g}": record.template_correlation < quality.min_correlation,
        f"the determinant of its affine is {record.determinant:.2f}, which must be {smallest:g} to "
        f"{largest:g}": not smallest <= record.determinant <= largest,
        f"{record.border_cm2:.0f} cm2 of its brain lie on the {record.border} face of the scan, where at most "
        f"{quality.max_border_cm2:g} may": record.border_cm2 > quality.max_border_cm2,
        f"{record.saturated_fraction:.1%} of its brain have the scan's largest value (saturated), where at most "
        f"{quality.max_saturated:.1%} may": record.saturated_fraction > quality.max_saturated,
    }
    return [text for text, holds in missed.items() if holds]
