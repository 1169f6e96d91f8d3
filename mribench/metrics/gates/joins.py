"""Are parts of different volumes joined at the same place of all samples? Profiles of the samples against people's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student_t

from mribench.data.volume_set import VIEWS
from mribench.metrics.features.seams import Place, join_definition, places

_PRIOR = 10  # people that the median variance of all places counts for in the variance of each
_MAD = 1.4826  # median absolute deviation of a normal variable to its standard deviation

DEFINITION = f"{join_definition()}|mean-difference-over-its-irregularity|prior:{_PRIOR}"


class Joins(NamedTuple):
    """The most conspicuous place of a set of samples."""

    place: Place
    outlying: float  # how far it stands out among the places of its kind, in standard deviations
    p_value: float  # corrected for the number of places
    samples: list[int]  # those in which it stands out more than in anybody


def joined(samples: np.ndarray, people: np.ndarray, shape: Sequence[int]) -> Joins:
    """The place where join profiles `[N,P]` depart most from people's `[M,P]`, of volumes `[D,H,W]`.

    The difference of the means is compared with its own irregularity along the axis: flaws of a generator that are
    everywhere, as noise and blur are, make no place stand out. It counts upwards only.
    """
    where = places(shape)
    kinds = [(place.axis, place.width) for place in where]
    outlying = np.empty(len(where))
    for kind in dict.fromkeys(kinds):
        chosen = [i for i, other in enumerate(kinds) if other == kind]
        outlying[chosen] = _outlying(samples[:, chosen], people[:, chosen])
    worst = int(outlying.argmax())
    p_value = min(1.0, len(where) * float(student_t.sf(outlying[worst], len(people) - 1)))
    beyond = np.flatnonzero(samples[:, worst] > people[:, worst].max()).tolist()
    return Joins(where[worst], float(outlying[worst]), p_value, beyond)


def _outlying(samples: np.ndarray, people: np.ndarray) -> np.ndarray:
    n, m = len(samples), len(people)
    variance = people.var(axis=0, ddof=1)
    usual = float(np.median(variance[variance > 0])) if variance.any() else 0.0
    error = (m * variance + _PRIOR * usual) / (m + _PRIOR) * (1 / n + 1 / m)
    departure = samples.mean(axis=0) - people.mean(axis=0)
    departure -= np.median(departure)
    irregularity = _MAD * np.median(np.abs(departure))
    spread = np.sqrt(irregularity**2 + error)
    outlying: np.ndarray = np.divide(departure, spread, out=np.zeros_like(departure), where=spread > 0)
    return outlying


def described(place: Place) -> str:
    """ "axial slice 16", "axial slices 16 to 17", "the border of axial slices 15 and 16"; counted from 0."""
    axis, width, first = place
    view = list(VIEWS)[axis]
    if width == 0:
        return f"the border of {view} slices {first - 1} and {first}"
    return f"{view} slice {first}" if width == 1 else f"{view} slices {first} to {first + width - 1}"
