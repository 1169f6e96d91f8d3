"""Precision, recall (Kynkaanniemi et al., NeurIPS 2019), density, coverage (Naeem et al., ICML 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mribench.data.volume_set import VIEWS
from mribench.errors import MribenchError
from mribench.metrics.arrays.distances import JointDistances, checked_features, squared_distances
from mribench.metrics.metric import ArraySource, Keep, Metric
from mribench.metrics.score import Better

_NEIGHBOURS = 5


class PRDC(NamedTuple):
    """Proportions in [0,1]; only density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: np.ndarray, fake: np.ndarray, k: int = _NEIGHBOURS) -> PRDC:
    """How two samples of features `[M,F]` and `[N,F]` cover each other by balls to the k-th nearest neighbour.

    precision: proportion of fakes inside some real ball; recall: the converse; density: mean number of real balls
    that hold a fake, over k; coverage: proportion of real balls that hold a fake. Inside is a strict "<", as in
    Naeem's reference code. Raises MribenchError for wrong shapes, values that are not finite, or fewer than
    k + 1 rows.

    >>> rng = np.random.default_rng(0)
    >>> result = prdc(rng.normal(size=(200, 4)), rng.normal(size=(100, 4)))
    >>> 0.9 < result.precision <= 1 and 0.5 < result.coverage < 1
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


def _needs() -> dict[str, int]:
    """One volume may be left out, and each of the others then has a k-th neighbour."""
    return {"samples": _NEIGHBOURS + 2, "reference": _NEIGHBOURS + 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class NeighbourMetric(Metric[JointDistances]):
    """The field of `PRDC` called `name`, on the joined features of the headline MMD."""

    family: str = "prdc"
    better: Better = "higher"
    needs: Mapping[str, int] = field(default_factory=_needs)

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "neighbours": _NEIGHBOURS,
            "inside": "strict",
            "views": JointDistances.JOINED,
            **arrays.feature_definition(*VIEWS),
        }

    def gather(self, arrays: ArraySource) -> JointDistances:
        return JointDistances.of(arrays)

    def value(self, gathered: JointDistances, keep: Keep) -> float:
        result = _prdc(gathered.squared(keep), len(keep["reference"]), _NEIGHBOURS)
        return float(getattr(result, self.name))


PRECISION = NeighbourMetric(
    name="precision",
    title="Precision",
    unit="proportion",
    proportion_of="samples",
    detects=("noise",),
    measures="Whether samples look real: the proportion of samples that lie among the reference volumes in feature "
    "space.",
    blind_to="It does not measure variety: one good sample, repeated, has the precision 1.",
)
RECALL = NeighbourMetric(
    name="recall",
    title="Recall",
    unit="proportion",
    proportion_of="reference",
    detects=("mean_volume",),
    measures="Whether the samples cover the reference: the proportion of reference volumes that lie among the samples "
    "in feature space.",
    blind_to="It does not measure whether samples look real: a few outliers that lie far apart can cover everything.",
)
DENSITY = NeighbourMetric(
    name="density",
    title="Density",
    detects=("noise",),
    measures="The same question as precision, but it counts how many reference volumes are near a sample. Outliers "
    "change it less.",
    blind_to="It does not measure variety, as precision does not.",
)
COVERAGE = NeighbourMetric(
    name="coverage",
    title="Coverage",
    unit="proportion",
    proportion_of="reference",
    detects=("mean_volume", "noise"),
    measures="The proportion of reference volumes that have a sample among their nearest neighbours.",
    blind_to="It does not notice samples that resemble no reference volume, because it counts reference volumes only.",
)
