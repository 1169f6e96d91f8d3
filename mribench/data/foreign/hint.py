"""Which way the axes of stored volumes run, judged by how their mean resembles real volumes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

_SIDES = "LRPAIS"  # index 2 * axis of the world + (1 for its positive side)
_COARSE = 16  # voxels per side that are compared
_MIRRORED = (
    0.05  # of the correlation, by which a mirrored brain must fit better before left and right are exchanged
)
_MARGIN = 0.1  # of the correlation, before another orientation is named


def likely_sides(
    samples: Sequence[np.ndarray], real: np.ndarray, sides: str
) -> tuple[str, float, float] | None:
    """The letters that fit better than `sides`, the correlation with them and as it is; None where none fits better.

    `samples` and `real` are `[D,H,W]` on the bench's grid. A brain and its mirror image hardly differ, so that left and
    right are kept as they are given wherever that fits as well.
    """
    mean = _coarse(np.mean(np.stack(samples), axis=0))
    target = _coarse(real)
    scores = {
        (order, flips): _correlation(_turned(mean, order, flips), target)
        for order in permutations(range(3))
        for flips in product((False, True), repeat=3)
    }
    now = scores[(0, 1, 2), (False, False, False)]
    order, flips = max(scores, key=lambda turn: scores[turn] - (_MIRRORED if turn[1][2] else 0))
    best = scores[order, flips]
    if best < now + _MARGIN:
        return None
    return _renamed(sides, order, flips), best, now


def _turned(volume: np.ndarray, order: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    return np.flip(volume.transpose(order), tuple(axis for axis in range(3) if flips[axis]))


def _coarse(volume: np.ndarray) -> np.ndarray:
    """`[16,16,16]` at most, smooth: the shape of a head, not its folds."""
    factors = [min(1.0, _COARSE / n) for n in volume.shape]
    smooth = gaussian_filter(volume.astype(np.float32), [0.4 / factor for factor in factors])
    coarse: np.ndarray = zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    return coarse


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or a.std() == 0 or b.std() == 0:
        return -1.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _renamed(sides: str, order: tuple[int, ...], flips: tuple[bool, ...]) -> str:
    """Axis k of the turned `[D,H,W]` volume is axis order[k] of the given one: what ran to one side runs to another."""
    letters = []
    for letter in sides:
        axis, positive = divmod(_SIDES.index(letter), 2)
        turned = order.index(2 - axis)  # axis of [D,H,W] that it is in truth
        letters.append(_SIDES[2 * (2 - turned) + (positive ^ flips[turned])])
    return "".join(letters)
