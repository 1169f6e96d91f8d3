"""P values far beyond the largest of a few null values, and Holm's correction."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

_LOG_SCALES = np.linspace(np.log(0.1), np.log(6), 600)  # of the Gumbel scale over the SD of the null values


def gumbel_p(null: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The probability that one more null value is at least as large as each of `values`, `[N]`.

    The null values `[H]` are largest of many, hence of a Gumbel distribution; its location and scale are integrated out
    under the prior 1/scale. As for every family of location and scale, such predictive probabilities have exactly their
    nominal level whatever H is (Barndorff-Nielsen and Cox 1996). With w = exp(location/scale) the location's integral
    is a gamma function's, and 1 - (A / (A + exp(-x/scale)))^H is left, A = sum of exp(-null/scale).
    """
    count, centre, spread = len(null), float(np.mean(null)), float(np.std(null, ddof=1))
    if spread == 0:
        return np.where(values > centre, 0.0, 1.0)
    known, new = (null - centre) / spread, (values - centre) / spread
    scales = np.exp(_LOG_SCALES)
    log_sums = logsumexp(-known[None] / scales[:, None], axis=1)
    log_weights = (1 - count) * _LOG_SCALES - known.sum() / scales - count * log_sums
    weights = np.exp(log_weights - logsumexp(log_weights))
    ratios = np.exp(np.minimum(-new[:, None] / scales - log_sums, 700))
    beyond = -np.expm1(-count * np.log1p(ratios))
    return np.clip((beyond * weights).sum(axis=1), 0, 1)


def of_more(p_values: np.ndarray, times: float) -> np.ndarray:
    """P values of the largest of `times` as many, where the null's largest were of fewer."""
    return -np.expm1(max(times, 1.0) * np.log1p(-np.minimum(p_values, 1 - 1e-12)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values corrected for their number; a value of at most the level has a family-wise error of that level."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1)
    return corrected
