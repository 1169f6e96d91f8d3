"""What a metric is, what a score holds, and the jackknife that gives a score its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtrit

from mribench.data.volume_set import Slab, VolumeSet
from mribench.errors import MribenchError

if TYPE_CHECKING:  # reading a score must not import torch
    from mribench.metrics.arrays.pairs import Kernel

Better = Literal["lower", "higher", "match"]
Keep = Mapping[str, NDArray[np.intp]]  # set name -> indices of the volumes that stay

MOST_SINGLE_GROUPS = 100  # beyond this, blocks of volumes are left out instead of single ones
BLOCKS = 50


class ArraySource(Protocol):
    """The dear arrays, each computed once; `mribench.metrics.arrays.cache.Blocks` is the one implementation."""

    sets: Mapping[str, VolumeSet]
    slab: Slab | None
    shape: tuple[int, int, int]  # of one volume as compared, [D,H,W]
    full_depth: int  # axial slices of a whole volume, also when the samples are a slab

    def features(self, set_name: str, view: str) -> np.ndarray: ...
    def distances(self, view: str) -> np.ndarray: ...
    def pairs(self, a: str, b: str, definition: Kernel | None = None) -> np.ndarray: ...
    def nearest(
        self, queries: str, set_name: str, k: int, mirrored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def feature_definition(self, *views: str) -> dict[str, Any]: ...
    def volume_features(self, set_name: str) -> np.ndarray: ...
    def volume_definition(self) -> dict[str, Any]: ...


class Metric(Protocol):
    """A named definition: `gather` collects arrays once, `value` is the number on a subset of volumes.

    `value` and `target` must be cheap: the jackknife calls them once for every volume (or block of
    volumes) left out of the sets named in `deletes` and `target_deletes`.
    """

    name: str
    title: str
    unit: str
    family: str  # of a ranked metric, one of `mribench.metrics.FAMILIES`
    ranked: bool  # False = shown beside the ranking, never part of it
    better: Better
    detects: tuple[str, ...]  # controls that it must separate from real_heldout
    needs: Mapping[str, int]  # set name -> fewest volumes
    resampled: tuple[str, ...]  # sets whose volumes carry the uncertainty of the value
    target_resampled: tuple[str, ...]  # the same for a target that is estimated from data

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        """Every setting that can move the number; flat, JSON-able. Its digest is the score's version."""

    def gather(self, arrays: ArraySource) -> Any:
        """The arrays that `value` needs; raises MribenchError when they cannot be had."""

    def value(self, prepared: Any, keep: Keep) -> float:
        """The number on the volumes in `keep`."""

    def target(self, prepared: Any, keep: Keep) -> float | None:
        """The value that a perfect generator has, for `better="match"`; else None."""


@runtime_checkable
class TwoSample(Protocol):
    """A metric whose kernel can be held against random splits: its scores get a p value."""

    def exchangeable(self, prepared: Any) -> tuple[np.ndarray, int] | None:
        """Kernel values of reference then samples `[M+N,M+N]`, blind to which is which, and M; None: no test."""


@runtime_checkable
class Proportion(Protocol):
    """A metric that counts volumes of one set (None: it does not): the jackknife fails where all count alike."""

    proportion_of: str | None

    def least_interval(self, value: float, n: Mapping[str, int]) -> tuple[float, float]:
        """A 95 % interval that the score's is never narrower than, of a value over sets of `n` volumes."""


class Missing(BaseModel):
    """A metric that could not be computed, and why: shown as an empty cell with its reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    reason: str
    by_design: bool = False  # True: these sets cannot have it; False: something went wrong, try again


class RealBaseline(BaseModel):
    """The score of real volumes of other subjects at the same n: what a perfect generator would get."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float  # of the 95 % interval
    high: float
    n: int  # volumes on the samples' side
    how: str  # which volumes, e.g. "24 held-out volumes"


class Score(BaseModel):
    """One number with everything needed to judge it, as it is written to scores.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str
    title: str
    unit: str
    family: str
    ranked: bool
    value: float
    low: float  # of the 95 % interval
    high: float
    interval: str  # how it was made
    better: Better
    target: float | None
    n: dict[str, int]  # set name -> number of volumes
    version: str  # digest of the definition
    signature: str  # every setting, key:value|key:value
    digests: dict[str, str]  # set name -> digest
    seconds: float
    notes: tuple[str, ...] = ()
    replicates: dict[str, tuple[float, ...]]  # set name -> the value without each block of its volumes
    target_sides: tuple[str, ...] = ()  # sets whose replicates are of the target instead
    least_variance: float = 0.0  # that the samples' side has at least, for a metric that counts samples
    p_value: float | None = None  # of a permutation test: samples and reference are of one law
    real_baseline: RealBaseline | None = None

    @property
    def gap(self) -> float:
        """Signed distance from the target; the value itself when there is no target."""
        return self.value - (self.target or 0.0)

    @property
    def rank_key(self) -> float:
        """The number to rank by, lower is better: |gap| for "match", the value or its negative otherwise."""
        if self.better == "match":
            return abs(self.gap)
        return self.value if self.better == "lower" else -self.value

    @property
    def gap_interval(self) -> tuple[float, float]:
        """95 % interval of `gap`; differs from (low, high) where the target is estimated from data too."""
        if not self.target_sides:
            return self.low - (self.target or 0.0), self.high - (self.target or 0.0)
        half = half_width(*combined(self._parts.values()))
        return self.gap - half, self.gap + half

    def rank_key_replicates(self, side: str) -> np.ndarray:
        """`rank_key` without each block of volumes of `side`, in the order of the blocks.

        That of "match" is the gap with the sign it has with all volumes: folded where it changes its sign, a
        gap near 0 would look certain.
        """
        varied = np.asarray(self.replicates[side])
        if self.better != "match":
            return varied if self.better == "lower" else -varied
        gaps = self.value - varied if side in self.target_sides else varied - (self.target or 0.0)
        return np.asarray(gaps if self.gap >= 0 else -gaps)

    @property
    def _parts(self) -> dict[str, tuple[float, int]]:
        """Side -> what it adds to the variance of `gap`, and from how many blocks that is known."""
        return {
            side: jackknife_part(
                (self.target or 0.0) if side in self.target_sides else self.value, varied, self.n[side]
            )
            for side, varied in self.replicates.items()
        }


def jackknife_groups(n: int) -> list[NDArray[np.intp]]:
    """Blocks of volumes to leave out of n: single volumes up to 100, beyond that 50 runs of neighbours."""
    count = n if n <= MOST_SINGLE_GROUPS else BLOCKS
    return list(np.array_split(np.arange(n), count))


def leave_out(value: Callable[[NDArray[np.intp]], float], n: int) -> tuple[float, ...]:
    """`value(kept indices)` without each block of `deletions(n)`."""
    everything = np.arange(n)
    return tuple(float(value(np.setdiff1d(everything, block))) for block in jackknife_groups(n))


def jackknife(metric: Metric, prepared: Any, everything: Keep) -> dict[str, tuple[float, ...]]:
    """Set name -> the value (or, of `target_deletes`, the target) without each block of its volumes."""
    replicates: dict[str, tuple[float, ...]] = {}
    for sides, function in ((metric.resampled, metric.value), (metric.target_resampled, metric.target)):
        for side in sides:

            def without(kept: np.ndarray, side: str = side, function: Any = function) -> float:
                return float(function(prepared, {**everything, side: everything[side][kept]}))

            replicates[side] = leave_out(without, len(everything[side]))
    return replicates


def squared_error(value: float, replicates: Sequence[float], n: int) -> float:
    """Jackknife variance of `value` over n volumes from its replicates; for single volumes the usual formula."""
    return float((deviations(value, replicates, n) ** 2).sum())


def deviations(value: float, replicates: Sequence[float] | NDArray[np.float64], n: int) -> np.ndarray:
    """`[G]`, one per block: squares sum to the jackknife variance, products of two statistics' to their covariance.

    Blocks may differ in size by one, so this is the delete-m_j form of Busing, Meijer and van der Leeden
    (Statistics and Computing 9, 1999), which is also right for statistics with a bias of order 1/n.
    """
    sizes = np.array([len(block) for block in jackknife_groups(n)], dtype=float)
    theta = np.asarray(replicates, dtype=float)
    inverse_share = n / sizes
    pseudo = inverse_share * value - (inverse_share - 1) * theta
    estimate = len(sizes) * value - ((1 - sizes / n) * theta).sum()
    scaled: np.ndarray = (pseudo - estimate) / np.sqrt(len(sizes) * (inverse_share - 1))
    return scaled


def jackknife_part(value: float, replicates: Sequence[float], n: int) -> tuple[float, int]:
    """`squared_error`, and the number of blocks that it comes from: a part of `combined`."""
    return squared_error(value, replicates, n), len(replicates)


def combined(parts: Iterable[tuple[float, int]]) -> tuple[float, float]:
    """Sum of independent variances, each with the number of blocks it comes from, and its degrees of freedom.

    Those of Satterthwaite (Biometrics Bulletin 2, 1946, equation 17).
    """
    known = list(parts)
    variance = sum(part for part, _ in known)
    spread = sum(part**2 / (arrays - 1) for part, arrays in known)
    return variance, variance**2 / spread if spread else math.inf


def half_width(variance: float, freedom: float) -> float:
    """Of the 95 % interval, by Student's t."""
    return float(stdtrit(freedom, 0.975)) * math.sqrt(variance) if variance else 0.0


def interval(
    metric: Metric, value: float, parts: Iterable[tuple[float, int]], n: Mapping[str, int]
) -> tuple[float, float]:
    """95 % interval of a value from its jackknife parts and the sets' sizes; of a share within [0,1]."""
    half = half_width(*combined(parts))
    low, high = value - half, value + half
    if isinstance(metric, Proportion) and metric.proportion_of:
        least, most = metric.least_interval(value, n)
        return max(0.0, min(low, least)), min(1.0, max(high, most))
    return low, high


def least_variance(metric: Metric, value: float, n: Mapping[str, int]) -> float:
    """Of the samples' side of a metric that counts samples: that of its least interval; else 0."""
    if not (isinstance(metric, Proportion) and metric.proportion_of == "samples"):
        return 0.0
    low, high = metric.least_interval(value, n)
    return ((high - low) / (2 * half_width(1.0, math.inf))) ** 2


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n (Wilson, JASA 22, 1927, p. 212); at 0 and 1 the jackknife's has no width."""
    z = half_width(1.0, math.inf)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    return centre - half, centre + half


def interval_name(metric: Metric, n: Mapping[str, int]) -> str:
    """How the interval of a metric was made, e.g. "jackknife over volumes (samples: 16 x 1), Student t 95 %"."""
    parts = [
        f"{side}: {len(jackknife_groups(n[side]))} x {len(jackknife_groups(n[side])[0])}"
        for side in metric.resampled
    ]
    least = (
        f", at least Wilson's of {n[metric.proportion_of]} {metric.proportion_of}"
        if isinstance(metric, Proportion) and metric.proportion_of
        else ""
    )
    return f"jackknife over volumes ({', '.join(parts)}), Student t 95 %{least}"


class Paired(NamedTuple):
    """`a.rank_key - b.rank_key` (negative = a is better), its jackknife variance and the degrees of freedom of that."""

    delta: float
    variance: float
    freedom: float


def paired(a: Score, b: Score) -> Paired:
    """How two entrants differ in one metric.

    The two scores share every set but the samples, so their replicates over shared volumes are
    differenced block by block; deletions from the two sample sets are independent. Degrees of freedom
    after Welch and Satterthwaite. Raises MribenchError for scores under two definitions.
    """
    if a.version != b.version:
        raise MribenchError(
            f"Scores can be compared only under one definition, not {a.signature} with {b.signature}."
        )
    delta = a.rank_key - b.rank_key
    parts: list[tuple[float, int]] = []  # (variance, blocks)
    for side in a.replicates:
        of_a, of_b = a.rank_key_replicates(side), b.rank_key_replicates(side)
        if side == "samples":
            for one, varied in ((a, of_a), (b, of_b)):
                own = squared_error(one.rank_key, varied.tolist(), one.n[side])
                parts.append((max(own, one.least_variance), len(varied)))
        else:
            parts.append((squared_error(delta, (of_a - of_b).tolist(), a.n[side]), len(of_a)))
    return Paired(delta, *combined(parts))


def difference(a: Score, b: Score) -> tuple[float, float, float]:
    """`a.rank_key - b.rank_key` with its 95 % interval; negative = a is better. As `paired`."""
    delta, variance, freedom = paired(a, b)
    half = half_width(variance, freedom)
    return delta, delta - half, delta + half
