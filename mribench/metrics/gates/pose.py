"""Do the samples as a whole lie turned or displaced, by less than an orientation, against people?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import t as student_t

TOLERATED_TURN = 2.0  # degrees
TOLERATED_SHIFT = 2.0  # percent of the side
_AXES = ("bottom-top", "back-front", "left-right")

DEFINITION = f"mean-pose/1|turn:{TOLERATED_TURN:g}|shift:{TOLERATED_SHIFT:g}"


class Displacement(NamedTuple):
    """The surest turn or shift that is larger than the tolerated one; the p value is corrected for all six."""

    what: str
    p_value: float


def displacement(samples: np.ndarray, people: np.ndarray, shape: Sequence[int]) -> Displacement:
    """From the affine maps `[N,3,4]` and `[M,3,4]` of samples and people, in voxels of the coarse grid `[D,H,W]`."""
    own, others = (_turns_and_shifts(poses, shape) for poses in (samples, people))
    apart = own.mean(axis=0) - others.mean(axis=0)
    error = np.sqrt(own.var(axis=0, ddof=1) / len(own) + others.var(axis=0, ddof=1) / len(others))
    tolerated = np.repeat([TOLERATED_TURN, TOLERATED_SHIFT], 3)
    beyond = (abs(apart) - tolerated) / np.maximum(error, 1e-9)
    worst = int(beyond.argmax())
    freedom = min(len(own), len(others)) - 1  # of Welch's test, at least
    p_value = min(1.0, 2 * len(apart) * float(student_t.sf(beyond[worst], freedom)))
    size, axis = abs(apart[worst]), _AXES[worst % 3]
    turn = f"turned by {size:.1f} degrees about the {axis} axis"
    return Displacement(turn if worst < 3 else f"shifted by {size:.1f} % of the {axis} side", p_value)


def _turns_and_shifts(poses: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`[N,3,4]` -> `[N,6]`: rotation vector in degrees of the nearest rotation, and shift in percent of each side."""
    left, _, right = np.linalg.svd(poses[:, :, :3].astype(np.float64))
    turns = Rotation.from_matrix(left @ right).as_rotvec(degrees=True)
    # Indices (D, H, W) are a left-handed frame of the head or a right-handed one alike: only sizes are reported.
    shifts = 100 * poses[:, :, 3] / np.maximum(np.array(shape, dtype=np.float64), 1)
    return np.concatenate([turns, shifts], axis=1)
