"""The interval of a metric's value, and the difference of two scores under one definition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from mribench.errors import MribenchError
from mribench.metrics.metric import Keep, Metric
from mribench.metrics.score import Score
from mribench.metrics.statistics.jackknife import (
    combined,
    half_width,
    jackknife_groups,
    leave_out,
    squared_error,
)

Gathered = TypeVar("Gathered")
_PAIRS = 32  # of groups that are left out together
_COUNTED_TWICE = 0.85  # of `second_order`, an estimate: with all of it FID's family-wise error is above 5 %


def jackknife(metric: Metric[Gathered], gathered: Gathered, everything: Keep) -> dict[str, tuple[float, ...]]:
    """Set name -> the value (or, of `target_resampled`, the target) without each group of its volumes."""
    replicates: dict[str, tuple[float, ...]] = {}
    for sides, function in ((metric.resampled, metric.value), (metric.target_resampled, metric.target)):
        for side in sides:

            def without(rest: np.ndarray, side: str = side, function: object = function) -> float:
                number = function(gathered, {**everything, side: everything[side][rest]})  # type: ignore[operator]
                return float(number)

            replicates[side] = leave_out(without, len(everything[side]))
    return replicates


def second_order(
    metric: Metric[Gathered], gathered: Gathered, everything: Keep, replicates: Mapping[str, Sequence[float]]
) -> float:
    """Variance that the jackknife counts twice: of the value's terms of two samples, or of a sample and a volume
    of another set.

    It matters where such terms are all there is, as in MMD and FID of samples that are like the reference. It is the
    mean square of what two groups change together and not one by one (Efron and Stein, Annals of Statistics 9, 1981).
    0 where no two groups can be left out.
    """
    if "samples" not in metric.resampled or metric.proportion_of:
        return 0.0
    groups = {side: jackknife_groups(len(everything[side])) for side in metric.resampled}
    if len(everything["samples"]) - len(groups["samples"][0]) < metric.needs["samples"]:
        return 0.0

    def without(left_out: Mapping[str, list[np.ndarray]]) -> float:
        rest = {side: np.delete(everything[side], np.concatenate(of)) for side, of in left_out.items()}
        return float(metric.value(gathered, {**everything, **rest}))

    whole, own, n = without({}), replicates["samples"], len(replicates["samples"])
    total = 0.0
    for side, other in ((side, replicates[side]) for side in metric.resampled):
        m, squares, same = len(other), [], side == "samples"
        for pair in range(_PAIRS):
            i = pair % n
            k = (i + pair // n + same) % m
            left_out = {"samples": [groups["samples"][i]]}
            left_out[side] = [*left_out.get(side, []), groups[side][k]]
            both = without(left_out)
            if same:
                squares.append((n * whole - (n - 1) * (own[i] + own[k]) + (n - 2) * both) ** 2)
            else:
                squares.append((whole - own[i] - other[k] + both) ** 2)
        total += float(np.mean(squares)) * ((n - 1) / (2 * n) if same else (n - 1) * (m - 1))
    return total


def interval(
    metric: Metric[Gathered], value: float, parts: Iterable[tuple[float, int]], n: Mapping[str, int]
) -> tuple[float, float]:
    """95 % interval of a value from its jackknife parts and the sets' sizes; of a proportion within [0,1]."""
    half = half_width(*combined(parts))
    low, high = value - half, value + half
    if metric.proportion_of:
        least, most = metric.least_interval(value, n)
        return max(0.0, min(low, least)), min(1.0, max(high, most))
    return low, high


def least_variance(metric: Metric[Gathered], value: float, n: Mapping[str, int]) -> float:
    """Of the samples' side of a metric that counts samples: that of its least interval; else 0."""
    if metric.proportion_of != "samples":
        return 0.0
    low, high = metric.least_interval(value, n)
    return ((high - low) / (2 * half_width(1.0, math.inf))) ** 2


def interval_name(metric: Metric[Gathered], n: Mapping[str, int]) -> str:
    """How the interval of a metric was made, e.g. "jackknife over volumes (samples: 16 x 1), Student t 95 %"."""
    groups = {side: jackknife_groups(n[side]) for side in metric.resampled}
    sizes = ", ".join(f"{side}: {len(of)} x {len(of[0])}" for side, of in groups.items())
    counted = metric.proportion_of
    least = f", at least Wilson's of {n[counted]} {counted}" if counted else ""
    return f"jackknife over volumes ({sizes}), Student t 95 %{least}"


class _Paired(NamedTuple):
    """`a.rank_key - b.rank_key` (negative = a is better), its jackknife variance and the degrees of freedom of that."""

    delta: float
    variance: float
    freedom: float


def paired(a: Score, b: Score) -> _Paired:
    """How two entrants differ in one metric.

    The two scores share every set but the samples, so their replicates over shared volumes are subtracted
    group by group; groups left out of the two sets of samples are independent. Degrees of freedom after
    Welch and Satterthwaite. Raises MribenchError for scores under two definitions.
    """
    if a.version != b.version:
        raise MribenchError(
            f"Scores can be compared only under one definition, not {a.signature} with {b.signature}."
        )
    delta = a.rank_key - b.rank_key
    parts: list[tuple[float, int]] = []  # (variance, groups)
    for side in a.replicates:
        of_a, of_b = a.rank_key_replicates(side), b.rank_key_replicates(side)
        if side == "samples":
            for score, varied in ((a, of_a), (b, of_b)):
                own = squared_error(score.rank_key, varied.tolist(), score.n[side])
                own -= _COUNTED_TWICE * score.second_order
                parts.append((max(own, score.least_variance), len(varied)))
        else:
            parts.append((squared_error(delta, (of_a - of_b).tolist(), a.n[side]), len(of_a)))
    return _Paired(delta, *combined(parts))


def difference(a: Score, b: Score) -> tuple[float, float, float]:
    """`a.rank_key - b.rank_key` with its 95 % interval; negative = a is better. As `paired`."""
    delta, variance, freedom = paired(a, b)
    half = half_width(variance, freedom)
    return delta, delta - half, delta + half
