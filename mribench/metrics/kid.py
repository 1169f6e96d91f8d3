"""Kernel Inception distance (Binkowski et al., ICLR 2018, section 4), by view: unbiased where FID is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mribench.metrics.arrays.distances import checked_features, pooled
from mribench.metrics.fid import SliceMetric
from mribench.metrics.metric import ArraySource, Keep
from mribench.metrics.mmd import mmd2_of_gram
from mribench.metrics.score import Better
from mribench.metrics.statistics.permutation import TEST


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased squared MMD of features `[M,F]` and `[N,F]` with the kernel (x.y / F + 1)^3, float64.

    All rows are used once. Published code averages over random subsets instead, which is the same estimator with
    more noise. The expectation is 0 when both sets have one distribution; the value may be negative. Source:
    Binkowski et al., ICLR 2018. Raises MribenchError for wrong shapes, fewer than 2 rows, or values that
    are not finite.

    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(200, 16)), rng.normal(0.5, 1, size=(100, 16))
    >>> round(kid(real, fake), 2)
    1.33
    """
    real, fake = checked_features(real, fake, "KID")
    return mmd2_of_gram(_kernel(np.concatenate([real, fake])), len(real), "unbiased")


def _kernel(rows: np.ndarray) -> np.ndarray:
    gram: np.ndarray = (rows @ rows.T / rows.shape[1] + 1) ** 3
    return gram


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceKID(SliceMetric[tuple[np.ndarray, int]]):
    """KID of the features of slices, the mean over positions."""

    better: Better = "match"

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "kernel": "cubic",
            "estimator": "unbiased",
            "subsets": "none",
            "p": TEST,
            **super().definition(arrays),
        }

    def gather(self, arrays: ArraySource) -> tuple[np.ndarray, int]:
        """Kernel values of reference then samples `[M+N,M+N]`, the mean over positions, and M."""
        reference, samples = (self.features(arrays, name) for name in ("reference", "samples"))
        both = np.concatenate([reference, samples])
        return np.mean([_kernel(both[:, p]) for p in range(both.shape[1])], axis=0), len(reference)

    def value(self, gathered: tuple[np.ndarray, int], keep: Keep) -> float:
        gram, m = gathered
        rows = pooled(keep, m)
        return mmd2_of_gram(gram[np.ix_(rows, rows)], len(keep["reference"]), "unbiased")

    def target(self, gathered: tuple[np.ndarray, int], keep: Keep) -> float:
        return 0.0

    def exchangeable(self, gathered: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
        return gathered


KID_A = SliceKID(
    name="kid_a",
    title="KID-A",
    view="axial",
    measures=(
        "The same features as FID-A, compared with a polynomial kernel and without FID's bias. A perfect generator "
        "has the expected value 0 at any number of samples; small negative values are chance."
    ),
    blind_to="It does not detect copying, nor whether the slices of a volume belong together.",
)
KID_C, KID_S = (
    SliceKID(
        name=f"kid_{view[0]}",
        title=f"KID-{view[0].upper()}",
        view=view,
        in_slab="not applicable",
        measures=f"The same as KID-A, for {view} slices.",
        blind_to="The same as KID-A.",
    )
    for view in ("coronal", "sagittal")
)
