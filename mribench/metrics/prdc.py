"""Precision, recall (Kynkaanniemi et al., NeurIPS 2019), density, coverage (Naeem et al., ICML 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from mribench.errors import MribenchError
from mribench.metrics.fid import checked_features
from mribench.metrics.metric import ArraySource, Better, Keep, wilson
from mribench.metrics.mmd import JOINED, VIEWS, JointDistances, squared_distances

NEIGHBOURS = 5


class PRDC(NamedTuple):
    """Shares in [0,1], but for density, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> PRDC:
    """How two samples of features `[M,F]` and `[N,F]` cover each other by balls to the k-th nearest neighbour.

    precision: share of fakes inside some real ball; recall: the converse; density: mean number of real balls
    that hold a fake, over k; coverage: share of real balls that hold a fake. Inside is a strict "<", as in
    Naeem's reference code. Raises MribenchError for wrong shapes, values that are not finite, or fewer than
    k + 1 rows.

    >>> rng = np.random.default_rng(0)
    >>> found = prdc(rng.normal(size=(200, 4)), rng.normal(size=(100, 4)))
    >>> 0.9 < found.precision <= 1 and 0.5 < found.coverage < 1
    True
    """
    real, fake = checked_features(real, fake, "PRDC")
    if k < 1 or min(len(real), len(fake)) < k + 1:
        raise MribenchError(
            f"PRDC with the {k}-th neighbour needs k of at least 1 and k + 1 rows in both arrays, "
            f"but got real {list(real.shape)} and fake {list(fake.shape)}."
        )
    return _prdc(squared_distances(np.concatenate([real, fake])), len(real), k)


def _prdc(squared: np.ndarray, m: int, k: int) -> PRDC:
    """From squared distances of the pooled rows `[M+N,M+N]`, real first; a row is its own 0-th neighbour."""
    across = squared[:m, m:]
    real_radii = np.partition(squared[:m, :m], k, axis=1)[:, k]
    fake_radii = np.partition(squared[m:, m:], k, axis=1)[:, k]
    in_real = across < real_radii[:, None]
    return PRDC(
        precision=float(in_real.any(axis=0).mean()),
        recall=float((across < fake_radii[None]).any(axis=1).mean()),
        density=float(in_real.sum(axis=0).mean() / k),
        coverage=float(in_real.any(axis=1).mean()),
    )


@dataclass(frozen=True)
class NeighbourShare:
    """One of the four, on the joined features of the three views (those of the headline MMD)."""

    name: Literal["precision", "recall", "density", "coverage"]
    title: str
    detects: tuple[str, ...]
    proportion_of: str | None
    unit: str = "proportion"
    family: str = "prdc"
    ranked: bool = False
    better: Better = "higher"
    resampled: tuple[str, ...] = ("samples", "reference")
    target_resampled: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        """One volume may be left out, and each of the others then has a k-th neighbour."""
        return {"samples": NEIGHBOURS + 2, "reference": NEIGHBOURS + 2}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "neighbours": NEIGHBOURS,
            "inside": "strict",
            "views": JOINED,
            **arrays.feature_definition(*VIEWS),
        }

    def gather(self, arrays: ArraySource) -> JointDistances:
        return JointDistances.of(arrays)

    def value(self, prepared: JointDistances, keep: Keep) -> float:
        found: float = getattr(_prdc(prepared.squared(keep), len(keep["reference"]), NEIGHBOURS), self.name)
        return found

    def target(self, prepared: Any, keep: Keep) -> None:
        return None

    def least_interval(self, value: float, n: Mapping[str, int]) -> tuple[float, float]:
        """Wilson's."""
        assert self.proportion_of
        return wilson(value, n[self.proportion_of])


PRECISION = NeighbourShare(name="precision", title="Precision", detects=("noise",), proportion_of="samples")
RECALL = NeighbourShare(name="recall", title="Recall", detects=("mean_volume",), proportion_of="reference")
DENSITY = NeighbourShare(name="density", title="Density", detects=("noise",), proportion_of=None, unit="")
COVERAGE = NeighbourShare(
    name="coverage", title="Coverage", detects=("mean_volume", "noise"), proportion_of="reference"
)
