"""Do the samples have the anatomy of people, but for what a mild fault of the image does to its segmentation?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from mribench.metrics.regions import LEAST_SPREAD, TRAITS

FINE_MM = 3.5  # longest side of a voxel
# Trait -> how far its mean may be from people's, in their standard deviations, before it counts, in fine and in coarse
# volumes. Blur of 0.5 voxel, noise of 0.03, a bias field of 0.05 and a quarter of the way to the mean volume move it by
# less (docs/gates.md).
TOLERATED = {
    "ventricles": (0.3, 0.4),
    "outer CSF": (2.5, 4.0),
    "grey matter": (0.5, 1.5),
    "white matter": (1.0, 2.5),
    "cerebellum": (0.5, 0.5),
    "ventricle asymmetry": (0.3, 0.3),
    "grey asymmetry": (0.3, 0.3),
    "white asymmetry": (0.3, 0.3),
}
TOLERATED_RATIO, OF_VENTRICLES = 0.5, 0.7  # of the standard deviations, either way
ENOUGH = 200  # people; the error of their mean is then small beside what is tolerated

DEFINITION = (
    "means-and-spreads/1|"
    + ",".join(f"{trait}:{fine:g}-{coarse:g}" for trait, (fine, coarse) in TOLERATED.items()).replace(
        " ", "_"
    )
    + f"|fine:{FINE_MM:g}|ratio:{TOLERATED_RATIO:g}-{OF_VENTRICLES:g}|people:{ENOUGH}"
)


class Departure(NamedTuple):
    """How one trait of the samples departs from people's: in words, and a p value corrected for all that are asked."""

    what: str
    p_value: float


def departures(samples: np.ndarray, people: np.ndarray, voxel_mm: float) -> list[Departure]:
    """All that is asked of traits `[N,T]` of samples and `[M,T]` of people, the surest departure first.

    `voxel_mm`: the longest side of a voxel.
    """
    tests = []
    for i, trait in enumerate(TRAITS):
        columns = samples[:, i], people[:, i]
        tests += [
            _mean(trait, *columns, TOLERATED[trait][voxel_mm > FINE_MM]),
            _spread(trait, *columns, OF_VENTRICLES if trait == "ventricles" else TOLERATED_RATIO),
        ]
    corrected = [Departure(what, min(1.0, len(tests) * p)) for what, p in tests]
    return sorted(corrected, key=lambda departure: departure.p_value)


def _mean(trait: str, own: np.ndarray, others: np.ndarray, tolerated: float) -> Departure:
    """Welch's test of a difference that is larger than the tolerated one."""
    unit = max(float(others.std(ddof=1)), LEAST_SPREAD)
    d = float(own.mean() - others.mean()) / unit
    parts = [(float(each.var(ddof=1)) / unit**2 / len(each), len(each) - 1) for each in (own, others)]
    error2 = max(sum(part for part, _ in parts), 1e-12)
    freedom = error2**2 / max(sum(part**2 / free for part, free in parts), 1e-24)
    p_value = 2 * float(student_t.sf((abs(d) - tolerated) / math.sqrt(error2), freedom))
    return Departure(f"{trait} {d:+.1f} SD", min(1.0, p_value))


def _spread(trait: str, own: np.ndarray, others: np.ndarray, tolerated: float) -> Departure:
    """Of the logarithm of the ratio of standard deviations, whose error follows from the fourth moments."""
    ratio = math.log(max(own.std(ddof=1), LEAST_SPREAD) / max(others.std(ddof=1), LEAST_SPREAD))
    error = math.sqrt(sum(_log_variance(each) for each in (own, others)))
    p_value = 2 * float(norm.sf((abs(ratio) + math.log(tolerated)) / error))
    return Departure(f"spread of {trait} x {math.exp(ratio):.2f}", min(1.0, p_value))


def _log_variance(values: np.ndarray) -> float:
    """Variance of the logarithm of a standard deviation; kurtosis below a normal one's is not believed."""
    centred = values - values.mean()
    second = float((centred**2).mean())
    kurtosis = float((centred**4).mean()) / second**2 if second > 0 else 3.0
    return (max(kurtosis, 3.0) - 1) / (4 * len(values))
