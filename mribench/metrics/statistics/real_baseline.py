"""The real baseline of a metric: what real volumes of other subjects score in the samples' place, at the same n."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mribench.data.volume_set import VolumeSet
from mribench.errors import NotApplicable
from mribench.files import digest_json
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.metric import Keep, Metric
from mribench.metrics.score import RealBaseline
from mribench.metrics.statistics.intervals import interval, jackknife
from mribench.metrics.statistics.jackknife import jackknife_part

_SPLITS = 4  # random orders of the reference that an extrapolation averages
SEED = 0
_OCTAVES = 3  # subsets of 1, 1/2 and 1/4 of the reference
_METHOD = f"t-wilson-{_SPLITS}-splits-seed-{SEED}-{_OCTAVES}-octaves"

_Estimate = tuple[float, float, float]  # value, low, high
_Estimator = Callable[[Metric[Any], Any], _Estimate]


def has_real_baseline(metric: Metric[Any]) -> bool:
    """Whether real volumes can take the samples' place: for every comparison of samples with the reference."""
    return set(metric.needs) == {"samples", "reference"}


class RealBaselines:
    """The real baselines of one entrant's metrics. Where the volumes come from is the same for all metrics.

    They are held-out volumes outside the reference, else training volumes outside the reference; where neither are
    as many as the samples, the reference is split in two in the ratio of the sets' sizes.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.n, self.m = len(arrays.sets["samples"]), len(arrays.sets["reference"])
        self.others = _others(arrays, self.n)

    def of(self, metric: Metric[Any]) -> RealBaseline:
        """The real baseline of one metric; raises MribenchError when there are too few real volumes."""
        estimate, n, how = self._estimator(metric)
        arrays = self.arrays.with_samples(self.others or self.arrays.sets["reference"])
        sets = [arrays.sets[name].digest for name in ("samples", "reference")]
        definition = metric.definition(arrays)
        key = digest_json(["real_baseline", metric.name, definition, _METHOD, how, self.n, sets])

        def compute(_: Path | None) -> np.ndarray:
            return np.array(estimate(metric, metric.gather(arrays)))

        value, low, high = arrays.store.get(f"real-baseline-{key[:24]}", compute, rows=3)
        itself = self.others and self.others.digests == self.arrays.sets["samples"].digests
        how += ": these samples themselves" if itself else ""
        return RealBaseline(value=float(value), low=float(low), high=float(high), n=n, how=how)

    def _estimator(self, metric: Metric[Any]) -> tuple[_Estimator, int, str]:
        """How to get the real baseline from what the metric gathered, at which n, and that in words."""
        if self.others:
            holdout = self.others.name == "holdout"
            kind = "held-out volumes" if holdout else "training volumes outside the reference"
            everything = {"samples": np.arange(self.n), "reference": np.arange(self.m)}
            return partial(_measured, keep=everything), self.n, f"{self.n} {kind}"
        split = Split(self.n, self.m)
        split.check(metric)
        sizes = "{} against {}".format(*split.sizes(self.m))
        if metric.better == "lower":
            return split.extrapolated, self.n, f"parts of the reference, extrapolated from {sizes}"
        return split.measured, split.sizes(self.m)[0], f"parts of the reference, {sizes}, not extrapolated"


def _others(arrays: Arrays, n: int) -> VolumeSet | None:
    """The first n held-out or training volumes that the reference does not hold too."""
    reference = set(arrays.sets["reference"].digests)
    for name in ("holdout", "train"):
        if name not in arrays.sets:
            continue
        volumes = arrays.sets[name]
        outside = [i for i, digest in enumerate(volumes.digests) if digest not in reference][:n]
        if len(outside) == n:
            return volumes.subset(outside, name)
    return None


def _measured(metric: Metric[Any], gathered: Any, keep: Keep) -> _Estimate:
    """Value and 95 % interval on the volumes of `keep`, in the metric's own unit."""
    value = metric.value(gathered, keep)
    parts = _parts(metric, gathered, keep, value)[: len(metric.resampled)]
    return value, *interval(metric, value, parts, _sizes(keep))


def _sizes(keep: Keep) -> dict[str, int]:
    return {side: len(indices) for side, indices in keep.items()}


def _parts(metric: Metric[Any], gathered: Any, keep: Keep, value: float) -> list[tuple[float, int]]:
    """Variances and the numbers of their groups: of the value's sides, then of the target's."""
    centres = dict.fromkeys(metric.target_resampled, metric.target(gathered, keep) or 0.0)
    return [
        jackknife_part(centres.get(side, value), varied, len(keep[side]))
        for side, varied in jackknife(metric, gathered, keep).items()
    ]


@dataclass(frozen=True)
class Split:
    """Two disjoint parts of one set of real volumes, in the ratio n : m of samples and reference."""

    n: int
    m: int

    def sizes(self, volumes: int) -> tuple[int, int]:
        first = round(volumes * self.n / (self.n + self.m))
        return first, volumes - first

    def check(self, metric: Metric[Any]) -> None:
        """Raise NotApplicable when the smallest parts would be too small for the metric."""
        extrapolates = metric.better == "lower"
        used = self.m // 2 ** (_OCTAVES - 1) if extrapolates else self.m
        for side, size in zip(("samples", "reference"), self.sizes(used), strict=True):
            fewest = 2 if extrapolates else metric.needs[side]
            if size < fewest:
                raise NotApplicable(
                    f"no real baseline: {metric.title} needs {fewest} real volumes in place of the {side}, but "
                    f"there are too few outside the reference, and a split of its {self.m} leaves {size}"
                )

    def measured(self, metric: Metric[Any], gathered: Any) -> _Estimate:
        """Of one split, for a metric whose expectation does not depend on n.

        A target that is estimated from the reference is here that of the second part, since the first must not
        be compared with itself; the value is moved to lie as far from the whole reference's target.
        """
        keep = self._apart(np.random.default_rng(SEED).permutation(self.m))
        everything = dict.fromkeys(keep, np.arange(self.m))
        value = metric.value(gathered, keep)
        low, high = interval(metric, value, _parts(metric, gathered, keep, value), _sizes(keep))
        whole, part = metric.target(gathered, everything), metric.target(gathered, keep)
        move = (whole or 0.0) - (part or 0.0)
        return value + move, low + move, high + move

    def _apart(self, volumes: np.ndarray) -> Keep:
        first, _ = self.sizes(len(volumes))
        return {"samples": np.sort(volumes[:first]), "reference": np.sort(volumes[first:])}

    def extrapolated(self, metric: Metric[Any], gathered: Any) -> _Estimate:
        """For a metric that is mostly bias: its size at (n, m) from the sizes at 1, 1/2 and 1/4 of the volumes.

        The bias is no power of n when there are fewer volumes than features, but on logarithmic axes it is
        nearly a parabola. The interval adds what the parabola and the straight line through the two larger
        sizes differ by.
        """
        rng = np.random.default_rng(SEED)
        orders = [rng.permutation(self.m) for _ in range(_SPLITS)]
        sizes = [self._mean(metric, gathered, orders, 2**octave) for octave in range(_OCTAVES)]
        if min(sizes) <= 0:
            return (sizes[0],) * 3
        steps = math.log2((self.n + self.m) / self.m)  # octaves from all of the reference to (n, m)
        curved, straight = (continued(sizes[:count], steps) for count in (3, 2))
        value, _, high = _measured(metric, gathered, self._apart(orders[0]))
        half = (high - value) * curved / sizes[0] + abs(curved - straight)
        return curved, curved - half, curved + half

    def _mean(self, metric: Metric[Any], gathered: Any, orders: list[np.ndarray], parts: int) -> float:
        pieces = [piece for order in orders for piece in np.array_split(order, parts)]
        return float(np.mean([metric.value(gathered, self._apart(piece)) for piece in pieces]))


def continued(sizes: list[float], steps: float) -> float:
    """The value `steps` doublings beyond sizes[0], where sizes[1] is one doubling before it, sizes[2] two.

    A polynomial on logarithmic axes through all of them; never above sizes[0], never falling faster than 1/n.
    """
    logarithms = np.log2(sizes)
    slope = logarithms[0] - logarithms[1]
    if len(sizes) > 2:
        change = slope - (logarithms[1] - logarithms[2])
        slope += change * (1 + steps) / 2
    return float(2 ** (logarithms[0] + steps * min(0.0, max(-1.0, slope))))
