"""Does a volume lie as the mean of real volumes does, or is it upside down, back to front, exchanged or mirrored?"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mribench.metrics.arrays.alignment import blurred
from mribench.metrics.arrays.cache import Arrays

LEAST_FIT = 0.9  # of the median person's: what fits less in every orientation is no turned brain
_BLUR = 1.0  # voxels

DEFINITION = f"flips+axes+halves/2|blur:{_BLUR}|fit:{LEAST_FIT}"

_ENDS = ("bottom and top", "back and front", "left and right")
_AXES = ("D", "H", "W")
_DISTINCT = 4.0  # standard errors of people from perfect symmetry, or left and right cannot be judged


class Orientations(NamedTuple):
    """How much better other orientations fit than the volume's own; arrays `[N]`."""

    excess: np.ndarray  # correlation with the mean volume in the best other orientation, less that as it lies
    fit: np.ndarray  # correlation in the best orientation
    name: list[str]  # of the best other orientation
    handedness: np.ndarray  # correlation of left-right differences with those of the mean; of people above 0


def orientations(arrays: Arrays, set_name: str) -> Orientations:
    """The orientations of all volumes of a set."""
    mean = blurred(arrays.frame.mean[None], _BLUR)[0]
    others = _other_orientations(mean)
    targets = torch.stack([mean, mean.flip(2), *(volume for _, volume in others)])
    volumes = blurred(torch.from_numpy(arrays.coarse(set_name)), _BLUR)
    fits = _correlation(volumes, targets)
    own, rest = fits[:, :2].max(dim=1).values, fits[:, 2:].max(dim=1)
    sides = _correlation(volumes - volumes.flip(3), (mean - mean.flip(2))[None])[:, 0]
    return Orientations(
        (rest.values - own).double().numpy(),
        torch.maximum(own, rest.values).double().numpy(),
        [others[i][0] for i in rest.indices.tolist()],
        sides.double().numpy(),
    )


def _other_orientations(mean: Tensor) -> list[tuple[str, Tensor]]:
    """The mean volume turned, flipped and with halves exchanged; left and right are judged apart."""
    others = []
    for axes in itertools.permutations(range(3)):
        turned = mean.permute(axes)
        if turned.shape != mean.shape:
            continue
        for ends in itertools.product((False, True), repeat=3):
            flips = [axis for axis in range(3) if ends[axis]]
            if axes != (0, 1, 2) or ends[0] or ends[1]:
                others.append((_name(axes, ends), turned.flip(flips)))
    for axis in range(3):
        others.append((f"halves exchanged: {_ENDS[axis]}", mean.roll(mean.shape[axis] // 2, axis)))
    return others


def _name(axes: tuple[int, ...], ends: tuple[bool, ...]) -> str:
    words = [] if axes == (0, 1, 2) else [f"axes in the order {','.join(_AXES[axis] for axis in axes)}"]
    words += [f"{_ENDS[axis]} exchanged" for axis in range(3) if ends[axis]]
    return ", ".join(words)


def _correlation(rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = (each.flatten(1) - each.flatten(1).mean(dim=1, keepdim=True) for each in (rows, columns))
    norms = rows.norm(dim=1)[:, None] * columns.norm(dim=1)
    return rows @ columns.T / norms.clamp(min=1e-12)


class Handedness(NamedTuple):
    """Whether left and right can be told apart on these sets, and whether the samples are mirrored."""

    judged: bool
    mirrored: bool
    distance: float  # SDs between as they are and mirrored, for this number of samples


def handedness(samples: np.ndarray, people: np.ndarray) -> Handedness:
    """From the handedness `[N]` of samples and `[H]` of people that are not in the mean."""
    error = people.std(ddof=1) * np.sqrt(1 / len(samples) + 1 / len(people))
    distance = 2 * people.mean() / max(error, 1e-12)
    judged = bool(distance >= 2 * _DISTINCT)
    mirrored = judged and bool(samples.mean() < -people.mean() / 2)
    return Handedness(judged, mirrored, float(distance))
