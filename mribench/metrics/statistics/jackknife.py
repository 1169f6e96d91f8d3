"""The jackknife over volumes, Student's t and Wilson's interval: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

_MOST_SINGLE_GROUPS = 100  # beyond this, groups of volumes are left out instead of single ones
_GROUPS = 50


def jackknife_groups(n: int) -> list[NDArray[np.intp]]:
    """Groups of volumes to leave out of n: single volumes up to 100, beyond that 50 runs of neighbours."""
    count = n if n <= _MOST_SINGLE_GROUPS else _GROUPS
    return list(np.array_split(np.arange(n), count))


def leave_out(value: Callable[[NDArray[np.intp]], float], n: int) -> tuple[float, ...]:
    """`value(indices that stay)` without each group of `jackknife_groups(n)`."""
    everything = np.arange(n)
    return tuple(float(value(np.delete(everything, group))) for group in jackknife_groups(n))


def squared_error(value: float, replicates: Sequence[float], n: int) -> float:
    """Jackknife variance of `value` over n volumes from its replicates; for single volumes the usual formula."""
    return float((deviations(value, replicates, n) ** 2).sum())


def deviations(value: float, replicates: Sequence[float] | NDArray[np.float64], n: int) -> np.ndarray:
    """`[G]`, one per group: squares sum to the jackknife variance, products of two statistics' to their covariance.

    Groups may differ in size by one, so this is the delete-m_j form of Busing, Meijer and van der Leeden
    (Statistics and Computing 9, 1999), which is also right for statistics with a bias of order 1/n.
    """
    sizes = np.array([len(group) for group in jackknife_groups(n)], dtype=float)
    theta = np.asarray(replicates, dtype=float)
    inverse_share = n / sizes
    pseudo = inverse_share * value - (inverse_share - 1) * theta
    estimate = len(sizes) * value - ((1 - sizes / n) * theta).sum()
    scaled: np.ndarray = (pseudo - estimate) / np.sqrt(len(sizes) * (inverse_share - 1))
    return scaled


def jackknife_part(value: float, replicates: Sequence[float], n: int) -> tuple[float, int]:
    """`squared_error`, and the number of groups that it comes from: a part of `combined`."""
    return squared_error(value, replicates, n), len(replicates)


def combined(parts: Iterable[tuple[float, int]]) -> tuple[float, float]:
    """Sum of independent variances, each with the number of groups it comes from, and its degrees of freedom.

    Those of Satterthwaite (Biometrics Bulletin 2, 1946, equation 17).
    """
    parts = list(parts)
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / (groups - 1) for part, groups in parts)
    return variance, variance**2 / spread if spread else math.inf


def half_width(variance: float, freedom: float) -> float:
    """Of the 95 % interval, by Student's t."""
    return float(stdtrit(freedom, 0.975)) * math.sqrt(variance) if variance else 0.0


def wilson(proportion: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion of n (Wilson, JASA 22, 1927, p. 212); the jackknife's has no width at 0 and 1."""
    z = half_width(1.0, math.inf)
    centre = (proportion + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(proportion * (1 - proportion) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    return centre - half, centre + half
