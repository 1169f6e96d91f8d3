"""Are parts of different volumes joined at the same place of all samples? Profiles of the samples against people's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls
from scipy.stats import t as student_t

from mribench.data.volume_set import VIEWS
from mribench.metrics.features.seams import Place, join_definition, places

_PRIOR = 10  # people that the median variance of all places counts for in the variance of each
_MAD = 1.4826  # median absolute deviation of a normal variable to its standard deviation

_ITERATIONS = 20  # of the robust fit; it has settled to the third digit after ten

DEFINITION = f"{join_definition()}|mean-difference-over-its-irregularity|prior:{_PRIOR}|without-blur-and-pull"


class Joins(NamedTuple):
    """The most conspicuous place of a set of samples."""

    place: Place
    outlying: float  # how far it stands out among the places of its kind, in standard deviations
    p_value: float  # corrected for the number of places
    samples: list[int]  # those in which it stands out more than in anybody


def joined(samples: np.ndarray, people: np.ndarray, honest: np.ndarray, shape: Sequence[int]) -> Joins:
    """The place where join profiles `[N,P]` depart most from people's `[M,P]`, of volumes `[D,H,W]`.

    `honest` `[K,P]`: how blur and the like change the mean profile of people; as much of it as fits is taken off the
    difference of the means. The rest is compared with its own irregularity along the axis: flaws of a generator that
    are everywhere make no place stand out. It counts upwards only.
    """
    where = places(shape)
    kinds = _kinds(where)
    departure = _centred(samples.mean(axis=0) - people.mean(axis=0), kinds)
    departure = _centred(_without(departure, np.stack([_centred(each, kinds) for each in honest])), kinds)
    outlying = np.empty(len(where))
    for chosen in kinds:
        outlying[chosen] = _outlying(departure[chosen], people[:, chosen], len(samples))
    worst = int(outlying.argmax())
    p_value = min(1.0, len(where) * float(student_t.sf(outlying[worst], len(people) - 1)))
    beyond = np.flatnonzero(samples[:, worst] > people[:, worst].max()).tolist()
    return Joins(where[worst], float(outlying[worst]), p_value, beyond)


def _kinds(where: Sequence[Place]) -> list[np.ndarray]:
    """The numbers of the places of each kind: borders, or slabs of one width, along one axis."""
    kinds: dict[tuple[int, int], list[int]] = {}
    for i, place in enumerate(where):
        kinds.setdefault((place.axis, place.width), []).append(i)
    return [np.array(chosen) for chosen in kinds.values()]


def _centred(departure: np.ndarray, kinds: Sequence[np.ndarray]) -> np.ndarray:
    """Less the median of each kind."""
    centred = departure.copy()
    for chosen in kinds:
        centred[chosen] -= np.median(departure[chosen])
    return centred


def _without(departure: np.ndarray, honest: np.ndarray) -> np.ndarray:
    """The departure `[P]` less the best sum of the changes `[K,P]`, none negative; places that stand out weigh less."""
    rest = departure
    for _ in range(_ITERATIONS):
        spread = 2 * _MAD * float(np.median(np.abs(rest)))
        root = np.sqrt(spread / np.maximum(np.abs(rest), spread)) if spread > 0 else np.ones(len(rest))
        shares, _ = nnls((honest * root).T, departure * root)
        rest = departure - shares @ honest
    return rest


def _outlying(departure: np.ndarray, people: np.ndarray, n: int) -> np.ndarray:
    m = len(people)
    variance = people.var(axis=0, ddof=1)
    usual = float(np.median(variance[variance > 0])) if variance.any() else 0.0
    error = (m * variance + _PRIOR * usual) / (m + _PRIOR) * (1 / n + 1 / m)
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
