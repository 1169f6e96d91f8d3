"""Seams of a volume: steps between neighbouring slices that stand out from the steps around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

WIDTHS = (1, 2, 3)  # slices of a slab that may not belong between its neighbours
BLUR, PULL = 0.5, 0.25  # SD in voxels and share of the way, of the changes that no join explains
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
    damping = _damping(steps)
    logarithms = [np.log(of_axis + damping) for of_axis in steps]
    return np.concatenate([part for of_axis in logarithms for part in (_single(of_axis), _double(of_axis))])


class Place(NamedTuple):
    """Where parts may be joined: before slice `first` of an axis, or at the `width` slices from there on."""

    axis: int
    width: int  # 0: the border between two parts
    first: int


def places(shape: Sequence[int]) -> list[Place]:
    """The places that `join_profile` has a number for, in its order."""
    return [
        Place(axis, width, first)
        for axis, size in enumerate(shape)
        for width in (0, *WIDTHS)
        for first in (range(2, size - 1) if width == 0 else range(1, size - width))
    ]


def join_definition() -> dict[str, Any]:
    """What can move a join profile, for cache keys."""
    return {"join": "log-step-over-neighbours+log-step-over-skip", "widths": WIDTHS, "damping": _DAMPING}


def join_profile(volume: np.ndarray) -> np.ndarray:
    """How much parts of `[D,H,W]` seem joined at every one of its `places`, `[P]` float64.

    At a border, how much the step stands out from the steps beside it. At a slab, the logarithm of the smaller of the
    steps into it and out of it, over the difference of the slices on both sides of the slab: a slab of another subject
    differs from both, but these belong together. A gain of the volume changes nothing.
    """
    steps = [_steps(volume, axis) for axis in range(volume.ndim)]
    damping = _damping(steps)
    parts = []
    for axis, of_axis in enumerate(steps):
        logarithms = np.log(of_axis + damping)
        parts.append(_single(logarithms))
        for width in WIDTHS:
            across = np.log(_steps(volume, axis, width + 1) + damping)
            count = len(across)
            parts.append(np.minimum(logarithms[:count], logarithms[width : width + count]) - across)
    return np.concatenate(parts)


def honest_changes(read: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    """How the mean join profile of `count` volumes changes when all are blurred, or pulled to their mean, `[2,P]`."""
    mean = np.zeros(())
    for i in range(count):
        mean = mean + read(i).astype(np.float64) / count
    profiles = []
    for i in range(count):
        volume = read(i).astype(np.float64)
        altered = (volume, gaussian_filter(volume, BLUR), (1 - PULL) * volume + PULL * mean)
        profiles.append([join_profile(each) for each in altered])
    own, *others = np.mean(profiles, axis=0)
    return np.stack(others) - own


def _damping(steps: Sequence[np.ndarray]) -> float:
    return max(_DAMPING * float(np.concatenate(steps).mean()), np.finfo(float).tiny)


def _steps(volume: np.ndarray, axis: int, reach: int = 1) -> np.ndarray:
    """The mean of |x(z+reach) - x(z)| over every slice."""
    slices = np.moveaxis(volume, axis, 0).astype(np.float64).reshape(volume.shape[axis], -1)
    steps: np.ndarray = np.abs(slices[reach:] - slices[:-reach]).mean(axis=1)
    return steps


def _single(steps: np.ndarray) -> np.ndarray:
    return steps[1:-1] - (steps[:-2] + steps[2:]) / 2


def _double(steps: np.ndarray) -> np.ndarray:
    return (steps[1:-2] + steps[2:-1] - steps[:-3] - steps[3:]) / 2
