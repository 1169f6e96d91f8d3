"""One interpolation from the voxels of one affine to those of another."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from mribench.data.grid import index_map


def interpolate(
    data: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    shape: tuple[int, int, int],
    presmoothing: float,
) -> np.ndarray:
    """Trilinear values of `[D,H,W]` data of the affine `source` at the voxels of the affine `target`; 0 outside.

    Where the target is coarser, a Gaussian with an SD of `presmoothing` times (step - 1) source voxels goes before it.
    """
    matrix, offset = index_map(source, target)
    steps = np.linalg.norm(matrix, axis=1)
    if presmoothing > 0 and (steps > 1).any():
        data = gaussian_filter(data, presmoothing * np.maximum(steps - 1, 0), mode="constant")
    # grid-constant, because plain constant drops a border plane when a coordinate rounds to -1e-16.
    return affine_transform(data, matrix, offset, shape, order=1, mode="grid-constant")
