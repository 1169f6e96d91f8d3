"""What a score holds: one number with everything needed to judge and to show it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mribench.metrics.statistics.jackknife import combined, half_width, jackknife_part

Better = Literal["lower", "higher", "match"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Display(_Record):
    """How a table shows a metric. It stands in every score, for a reader who has not installed the metric."""

    heading: str = ""  # of its column; "": a ranked metric has its title there, another has no column
    gap: str = ""  # heading of a second column, the distance from the target; "": no such column
    family: str = ""  # what sentences call its ranking family; "": the metric's title
    aim: str = ""  # the good direction in words; "": `better`
    scale: float = 1.0  # number in the table = scale x value
    digits: int | None = Field(default=None, ge=0, le=20)  # decimals; None = three significant digits
    bounds: tuple[float | None, float | None] = (None, None)  # of the quantity itself, in the table's unit


class Missing(_Record):
    """A metric that could not be computed, and why: shown as an empty cell with its reason."""

    metric: str
    reason: str
    by_design: bool = (
        False  # True: it cannot be had with these sets or packages; False: something failed, try again
    )
    package: str = ""  # as in `Score`


class RealBaseline(_Record):
    """The score of real volumes of other subjects at the same n: what a perfect generator would get."""

    value: float
    low: float  # of the 95 % interval
    high: float
    n: int  # volumes on the samples' side
    how: str  # which volumes, e.g. "24 held-out volumes"


class Score(_Record):
    """One number with everything needed to judge it, as it is written to scores.json."""

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
    package: str = ""  # "NAME VERSION" of the plug-in that the metric comes from; "": mribench itself
    digests: dict[str, str]  # set name -> digest
    seconds: float
    notes: tuple[str, ...] = ()
    replicates: dict[str, tuple[float, ...]]  # set name -> the value without each group of its volumes
    target_sides: tuple[str, ...] = ()  # sets whose replicates are of the target instead
    least_variance: float = 0.0  # that the samples' side has at least, for a metric that counts samples
    second_order: float = 0.0  # variance that the jackknife of the samples' side counts a second time
    p_value: float | None = None  # of a permutation test that samples and reference have one distribution
    real_baseline: RealBaseline | None = None
    display: Display = Display()

    @property
    def gap(self) -> float:
        """Signed distance from the target; the value itself when there is no target."""
        return self.value - (self.target or 0.0)

    @property
    def rank_key(self) -> float:
        """The number to rank by, lower is better: |gap| for "match", the value or its negative otherwise.

        An unbiased square has the gap with its sign: its expectation is never below the target.
        """
        if self.better == "match":
            return self.gap if self.unbiased_square else abs(self.gap)
        return self.value if self.better == "lower" else -self.value

    @property
    def unbiased_square(self) -> bool:
        """Whether it estimates a squared kernel distance without bias: these are the scores with a permutation test."""
        return self.better == "match" and self.p_value is not None

    @property
    def gap_interval(self) -> tuple[float, float]:
        """95 % interval of `gap`; differs from (low, high) where the target is estimated from data too."""
        if not self.target_sides:
            return self.low - (self.target or 0.0), self.high - (self.target or 0.0)
        half = half_width(*combined(self._parts.values()))
        return self.gap - half, self.gap + half

    def rank_key_replicates(self, side: str) -> np.ndarray:
        """`rank_key` without each group of volumes of `side`, in the order of the groups.

        That of "match" is the gap with the sign it has with all volumes: folded where it changes its sign, a
        gap near 0 would look certain.
        """
        varied = np.asarray(self.replicates[side])
        if self.better != "match":
            return varied if self.better == "lower" else -varied
        gaps = self.value - varied if side in self.target_sides else varied - (self.target or 0.0)
        return np.asarray(gaps if self.gap >= 0 or self.unbiased_square else -gaps)

    @property
    def _parts(self) -> dict[str, tuple[float, int]]:
        """Side -> what it adds to the variance of `gap`, and from how many groups that is known."""
        return {
            side: jackknife_part(
                (self.target or 0.0) if side in self.target_sides else self.value, varied, self.n[side]
            )
            for side, varied in self.replicates.items()
        }
