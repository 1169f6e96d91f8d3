"""Seams of a volume: steps between neighbouring slices that stand out from the steps around them."""

from __future__ import annotations

from typing import Any

import numpy as np

_DAMPING = 0.5  # of the mean step, added to every step: nearly empty slices say little about seams


def definition() -> dict[str, Any]:
    """What can move a seam, for signatures and cache keys."""
    return {"seam": "log-step-over-neighbours-1-2", "damping": _DAMPING}


def seam_profile(volume: np.ndarray) -> np.ndarray:
    """How much every step of `[D,H,W]` stands out, `[P]` float64: 0 where the steps around it are as large.

    A step is the mean of |x(z+1) - x(z)| over a slice. Its logarithm is compared with the mean of those before and
    after it, which finds the border between two parts; and the mean of two neighbouring ones with those around them,
    which finds a single foreign slice. All three axes one after the other. A gain of the volume changes nothing.
    """
    steps = [_steps(volume, axis) for axis in range(volume.ndim)]
    damping = max(_DAMPING * float(np.concatenate(steps).mean()), np.finfo(float).tiny)
    logarithms = [np.log(of_axis + damping) for of_axis in steps]
    return np.concatenate([part for of_axis in logarithms for part in (_single(of_axis), _double(of_axis))])


def _steps(volume: np.ndarray, axis: int) -> np.ndarray:
    slices = np.moveaxis(volume, axis, 0).astype(np.float64).reshape(volume.shape[axis], -1)
    steps: np.ndarray = np.abs(np.diff(slices, axis=0)).mean(axis=1)
    return steps


def _single(steps: np.ndarray) -> np.ndarray:
    return steps[1:-1] - (steps[:-2] + steps[2:]) / 2


def _double(steps: np.ndarray) -> np.ndarray:
    return (steps[1:-2] + steps[2:-1] - steps[:-3] - steps[3:]) / 2
