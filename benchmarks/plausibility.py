"""Does a generated volume show one head? Plain measures, the same for every generator."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

FOREGROUND = 0.1


def head_measures(volume: np.ndarray, reference_voxels: float, background: np.ndarray) -> dict[str, float]:
    """Of `[D,H,W]` in [0,1]: share of the foreground in its largest component, foreground size relative to
    the reference median, mean of the voxels that are empty in every reference volume (`background`, bool)."""
    foreground = volume > FOREGROUND
    labels, count = ndimage.label(foreground)
    largest = np.bincount(labels.ravel())[1:].max() if count else 0
    return {
        "largest_component": float(largest / max(foreground.sum(), 1)),
        "relative_size": float(foreground.sum() / reference_voxels),
        "background_mean": float(volume[background].mean()),
    }


def shows_one_head(measures: dict[str, float]) -> bool:
    """The acceptance rule: 95 % in one component, 0.5 to 1.5 of the usual size, background under 0.05."""
    return (
        measures["largest_component"] >= 0.95
        and 0.5 <= measures["relative_size"] <= 1.5
        and measures["background_mean"] < 0.05
    )


def reference_frame(reference: np.ndarray) -> tuple[float, np.ndarray]:
    """From `[N,D,H,W]`: the median number of foreground voxels, and where all volumes are empty."""
    sizes = [(volume > FOREGROUND).sum() for volume in reference]
    return float(np.median(sizes)), reference.max(axis=0) < 0.02


def seam_ratio(volumes: np.ndarray, reference: np.ndarray, per_stage: int) -> float:
    """Mean step between neighbouring axial slices at stage borders over that inside stages (1 = no seams).

    Each step is divided by the reference's step between the same slices; slices empty in the reference are
    left out. `volumes`, `reference`: `[N,D,H,W]`.
    """
    ours, real = (np.abs(np.diff(v, axis=1)).mean(axis=(0, 2, 3)) for v in (volumes, reference))
    used = real > 0.1 * real.max()
    border = np.zeros(len(real), dtype=bool)
    border[per_stage - 1 :: per_stage] = True
    step = ours[used] / real[used]
    return float(step[border[used]].mean() / step[~border[used]].mean())
