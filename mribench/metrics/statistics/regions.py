"""How each trait of the samples differs from the reference's: effect sizes with intervals, and corrected tests."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

from mribench.errors import MribenchError
from mribench.metrics.regions import LEAST_SPREAD, TRAITS, RegionRow, traits
from mribench.metrics.statistics.comparison import holm
from mribench.metrics.statistics.jackknife import combined, half_width, jackknife_part, leave_out

_Statistic = Callable[[np.ndarray, np.ndarray], float]


def compare_regions(reference_ml: np.ndarray, samples_ml: np.ndarray) -> list[RegionRow]:
    """One row per trait, from volumes `[M,8]` and `[N,8]` in ml of `REGIONS`.

    Raises MribenchError for other arrays or fewer than 3 volumes on a side.
    """
    reference, samples = traits(reference_ml), traits(samples_ml)
    if min(len(reference), len(samples)) < 3:
        raise MribenchError(
            f"A comparison of regions needs 3 volumes on each side, but got {len(reference)} and {len(samples)}."
        )
    columns = list(zip(reference.T, samples.T, strict=True))
    p = holm([_p(test, *pair) for pair in columns for test in (_welch, _brown_forsythe)])
    return [
        _row(trait, *pair, p[2 * i], p[2 * i + 1])
        for i, (trait, pair) in enumerate(zip(TRAITS, columns, strict=True))
    ]


def _row(trait: str, reference: np.ndarray, samples: np.ndarray, p_mean: float, p_spread: float) -> RegionRow:
    d, d_half = _estimate(_cohen, reference, samples)
    log_ratio, half = _estimate(_log_ratio, reference, samples)
    return RegionRow(
        trait=trait,
        change=100 * math.expm1(samples.mean() - reference.mean()),
        d=d,
        d_low=d - d_half,
        d_high=d + d_half,
        spread=math.exp(log_ratio),
        spread_low=math.exp(log_ratio - half),
        spread_high=math.exp(log_ratio + half),
        p_mean=p_mean,
        p_spread=p_spread,
    )


def _estimate(statistic: _Statistic, reference: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """The statistic and half of its 95 % jackknife interval over both sides."""
    value = statistic(reference, samples)
    parts = [
        (leave_out(lambda rest: statistic(reference[rest], samples), len(reference)), len(reference)),
        (leave_out(lambda rest: statistic(reference, samples[rest]), len(samples)), len(samples)),
    ]
    return value, half_width(*combined(jackknife_part(value, varied, n) for varied, n in parts))


def _cohen(reference: np.ndarray, samples: np.ndarray) -> float:
    squares = sum(((side - side.mean()) ** 2).sum() for side in (reference, samples))
    pooled = math.sqrt(squares / (len(reference) + len(samples) - 2))
    return float(samples.mean() - reference.mean()) / max(pooled, LEAST_SPREAD)


def _log_ratio(reference: np.ndarray, samples: np.ndarray) -> float:
    return math.log(_deviation(samples) / _deviation(reference))


def _deviation(side: np.ndarray) -> float:
    return max(float(side.std(ddof=1)), LEAST_SPREAD)


def _welch(reference: np.ndarray, samples: np.ndarray) -> float:
    return float(stats.ttest_ind(reference, samples, equal_var=False).pvalue)


def _brown_forsythe(reference: np.ndarray, samples: np.ndarray) -> float:
    return float(stats.levene(reference, samples, center="median").pvalue)


def _p(test: _Statistic, reference: np.ndarray, samples: np.ndarray) -> float:
    """1 where neither side varies and nothing can be tested."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        p = test(reference, samples)
    return 1.0 if math.isnan(p) else p
