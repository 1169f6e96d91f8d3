"""Do the samples have the anatomy of people? Means and spreads of the traits that image quality hardly moves."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from mribench.metrics.regions import LEAST_SPREAD, TRAITS

# Trait -> how far its mean may be from people's, in their standard deviations, before it counts. Blur of 0.5 voxel,
# noise of 0.03, a bias field of 0.05 and a quarter of the way to the mean volume move it by less (docs/gates.md). They
# move outer CSF and white matter by up to 2, which are therefore not asked.
TOLERATED = {
    "ventricles": 0.3,
    "grey matter": 0.5,
    "cerebellum": 0.5,
    "ventricle asymmetry": 0.3,
    "grey asymmetry": 0.3,
    "white asymmetry": 0.3,
}
# Blur of half a voxel moves these by more in coarse volumes, where they are not asked: grey matter by 1.1 at 5.5 mm.
FINE_ONLY, FINE_MM = ("grey matter", "cerebellum"), 3.5
ENOUGH = 200  # people; the error of their mean is then small beside what is tolerated
TOLERATED_RATIO = 0.7  # of the standard deviations of ventricles, either way

DEFINITION = (
    "means-and-spread-of-ventricles/1|"
    + ",".join(f"{trait}:{tolerated:g}" for trait, tolerated in TOLERATED.items()).replace(" ", "_")
    + f"|fine:{FINE_MM:g}|ratio:{TOLERATED_RATIO:g}|people:{ENOUGH}"
)


class Departure(NamedTuple):
    """How one trait of the samples departs from people's: in words, and a p value corrected for all that are asked."""

    what: str
    p_value: float


def departures(samples: np.ndarray, people: np.ndarray, voxel_mm: float) -> list[Departure]:
    """All that is asked of traits `[N,T]` of samples and `[M,T]` of people, the surest departure first.

    `voxel_mm`: the longest side of a voxel.
    """
    asked = [trait for trait in TOLERATED if trait not in FINE_ONLY or voxel_mm <= FINE_MM]
    tests = [*(_mean(trait, samples, people) for trait in asked), _spread(samples, people)]
    corrected = [Departure(what, min(1.0, len(tests) * p)) for what, p in tests]
    return sorted(corrected, key=lambda departure: departure.p_value)


def _mean(trait: str, samples: np.ndarray, people: np.ndarray) -> Departure:
    """Welch's test of a difference that is larger than the tolerated one."""
    own, others = (each[:, TRAITS.index(trait)] for each in (samples, people))
    unit = max(float(others.std(ddof=1)), LEAST_SPREAD)
    d = float(own.mean() - others.mean()) / unit
    parts = [(float(each.var(ddof=1)) / unit**2 / len(each), len(each) - 1) for each in (own, others)]
    error2 = max(sum(part for part, _ in parts), 1e-12)
    freedom = error2**2 / max(sum(part**2 / free for part, free in parts), 1e-24)
    p_value = 2 * float(student_t.sf((abs(d) - TOLERATED[trait]) / math.sqrt(error2), freedom))
    return Departure(f"{trait} {d:+.1f} SD", min(1.0, p_value))


def _spread(samples: np.ndarray, people: np.ndarray) -> Departure:
    """Of the logarithm of the ratio of standard deviations, whose error follows from the fourth moments."""
    own, others = (each[:, TRAITS.index("ventricles")] for each in (samples, people))
    ratio = math.log(max(own.std(ddof=1), LEAST_SPREAD) / max(others.std(ddof=1), LEAST_SPREAD))
    error = math.sqrt(sum(_log_variance(each) for each in (own, others)))
    p_value = 2 * float(norm.sf((abs(ratio) + math.log(TOLERATED_RATIO)) / error))
    return Departure(f"spread of ventricles x {math.exp(ratio):.2f}", min(1.0, p_value))


def _log_variance(values: np.ndarray) -> float:
    """Variance of the logarithm of a standard deviation; kurtosis below a normal one's is not believed."""
    centred = values - values.mean()
    second = float((centred**2).mean())
    kurtosis = float((centred**4).mean()) / second**2 if second > 0 else 3.0
    return (max(kurtosis, 3.0) - 1) / (4 * len(values))
