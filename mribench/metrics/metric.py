"""What a metric is, what a score holds, and the jackknife that gives a score its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mribench.data.volume_set import Slab, VolumeSet
from mribench.errors import MribenchError

if TYPE_CHECKING:  # reading a score must not import torch
    from mribench.metrics.pairs import Kernel

Better = Literal["lower", "higher", "match"]
Keep = Mapping[str, NDArray[np.intp]]  # set name -> indices of the volumes that stay

Z95 = 1.959963984540054
MOST_SINGLE_DELETIONS = 100  # beyond this, blocks of volumes are left out instead of single ones
BLOCKS = 50


class BlockSource(Protocol):
    """The dear arrays, each computed once; `mribench.metrics.blocks.Blocks` is the one implementation."""

    sets: Mapping[str, VolumeSet]
    slab: Slab | None
    shape: tuple[int, int, int]  # of one volume as compared, [D,H,W]
    full_depth: int  # axial slices of a whole volume, also when the samples are a slab

    def features(self, set_name: str, view: str) -> np.ndarray: ...
    def pairs(self, a: str, b: str, definition: Kernel | None = None) -> np.ndarray: ...
    def nearest(
        self, queries: str, set_name: str, k: int, mirrored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def feature_definition(self, *views: str) -> dict[str, Any]: ...
    def volume_features(self, set_name: str) -> np.ndarray: ...
    def volume_definition(self) -> dict[str, Any]: ...


class Metric(Protocol):
    """A named definition: `prepare` gathers arrays once, `value` is the number on a subset of volumes.

    `value` and `target` must be cheap: the jackknife calls them once for every volume (or block of
    volumes) left out of the sets named in `deletes` and `target_deletes`.
    """

    name: str
    title: str
    unit: str
    family: str  # ranking family, one of `mribench.metrics.FAMILIES`
    ranked: bool  # False = shown beside the ranking, never part of it
    better: Better
    sees: tuple[str, ...]  # controls that it must separate from real_heldout
    needs: Mapping[str, int]  # set name -> fewest volumes
    deletes: tuple[str, ...]  # sets whose volumes carry the uncertainty of the value
    target_deletes: tuple[str, ...]  # the same for a target that is estimated from data

    def definition(self, blocks: BlockSource) -> dict[str, Any]:
        """Every setting that can move the number; flat, JSON-able. Its digest is the score's version."""

    def prepare(self, blocks: BlockSource) -> Any:
        """The arrays that `value` needs; raises MribenchError when they cannot be had."""

    def value(self, prepared: Any, keep: Keep) -> float:
        """The number on the volumes in `keep`."""

    def target(self, prepared: Any, keep: Keep) -> float | None:
        """The value that a perfect generator has, for `better="match"`; else None."""


class Missing(BaseModel):
    """A metric that could not be computed, and why: shown as an empty cell with its reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    reason: str
    by_design: bool = False  # True: these sets cannot have it; False: something went wrong, try again


class Floor(BaseModel):
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
    p_value: float | None = None  # of a permutation test: samples and reference are of one law
    floor: Floor | None = None

    @property
    def gap(self) -> float:
        """Signed distance from the target; the value itself when there is no target."""
        return self.value - (self.target or 0.0)

    @property
    def loss(self) -> float:
        """The number to rank by, lower is better: |gap| for "match", the value or its negative otherwise."""
        return _loss(self.better, self.value, self.target)

    @property
    def standard_error(self) -> float:
        """Of the value (not of the gap)."""
        return (self.high - self.value) / Z95

    @property
    def gap_interval(self) -> tuple[float, float]:
        """95 % interval of `gap`; differs from (low, high) where the target is estimated from data too."""
        variance = sum(self._variance(side) for side in self.replicates)
        half = Z95 * math.sqrt(variance)
        return self.gap - half, self.gap + half

    def loss_replicates(self, side: str) -> np.ndarray:
        """`loss` without each block of volumes of `side`, in the order of the blocks."""
        varied = np.asarray(self.replicates[side])
        if side in self.target_sides:
            return np.asarray([_loss(self.better, self.value, target) for target in varied])
        return np.asarray([_loss(self.better, value, self.target) for value in varied])

    def _variance(self, side: str) -> float:
        centre = (self.target or 0.0) if side in self.target_sides else self.value
        return squared_error(centre, self.replicates[side], self.n[side])


def _loss(better: Better, value: float, target: float | None) -> float:
    if better == "match":
        return abs(value - (target or 0.0))
    return value if better == "lower" else -value


def deletions(n: int) -> list[NDArray[np.intp]]:
    """Blocks of volumes to leave out of n: single volumes up to 100, beyond that 50 runs of neighbours."""
    count = n if n <= MOST_SINGLE_DELETIONS else BLOCKS
    return list(np.array_split(np.arange(n), count))


def leave_out(value: Callable[[NDArray[np.intp]], float], n: int) -> tuple[float, ...]:
    """`value(kept indices)` without each block of `deletions(n)`."""
    everything = np.arange(n)
    return tuple(float(value(np.setdiff1d(everything, block))) for block in deletions(n))


def squared_error(value: float, replicates: Sequence[float], n: int) -> float:
    """Jackknife variance of `value` over n volumes from its replicates; for single volumes the usual formula."""
    return float((deviations(value, replicates, n) ** 2).sum())


def deviations(value: float, replicates: Sequence[float] | NDArray[np.float64], n: int) -> np.ndarray:
    """`[G]`, one per block: squares sum to the jackknife variance, products of two statistics' to their covariance.

    Blocks may differ in size by one, so this is the delete-m_j form of Busing, Meijer and van der Leeden
    (Statistics and Computing 9, 1999), which is also right for statistics with a bias of order 1/n.
    """
    sizes = np.array([len(block) for block in deletions(n)], dtype=float)
    theta = np.asarray(replicates, dtype=float)
    inverse_share = n / sizes
    pseudo = inverse_share * value - (inverse_share - 1) * theta
    estimate = len(sizes) * value - ((1 - sizes / n) * theta).sum()
    scaled: np.ndarray = (pseudo - estimate) / np.sqrt(len(sizes) * (inverse_share - 1))
    return scaled


def interval_name(n: Mapping[str, int], sides: Sequence[str]) -> str:
    """How an interval over `sides` was made, e.g. "jackknife over volumes (samples: 16 x 1), normal 95 %"."""
    parts = [f"{side}: {len(deletions(n[side]))} x {len(deletions(n[side])[0])}" for side in sides]
    return f"jackknife over volumes ({', '.join(parts)}), normal 95 %"


class Paired(NamedTuple):
    """`a.loss - b.loss` (negative = a is better), its jackknife variance and the degrees of freedom of that."""

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
    delta = a.loss - b.loss
    parts: list[tuple[float, int]] = []  # (variance, blocks)
    for side in a.replicates:
        of_a, of_b = a.loss_replicates(side), b.loss_replicates(side)
        if side == "samples":
            parts.append((squared_error(a.loss, of_a.tolist(), a.n[side]), len(of_a)))
            parts.append((squared_error(b.loss, of_b.tolist(), b.n[side]), len(of_b)))
        else:
            parts.append((squared_error(delta, (of_a - of_b).tolist(), a.n[side]), len(of_a)))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / (blocks - 1) for part, blocks in parts)
    return Paired(delta, variance, variance**2 / spread if spread else math.inf)


def difference(a: Score, b: Score) -> tuple[float, float, float]:
    """`a.loss - b.loss` with its 95 % interval; negative = a is better. As `paired`."""
    delta, variance, _ = paired(a, b)
    half = Z95 * math.sqrt(variance)
    return delta, delta - half, delta + half
