"""Do the slices of a volume belong together? Steps between neighbouring slices, against the reference's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mribench.errors import MribenchError
from mribench.metrics.arrays.distances import squared_distances
from mribench.metrics.metric import ArraySource, Keep, Metric
from mribench.metrics.mmd import exchangeable_kernel
from mribench.metrics.score import Better, Display
from mribench.metrics.statistics.permutation import TEST

_PRIOR = 10  # volumes that the median variance of all positions counts for in the variance of each
_LARGEST = 4  # a foreign slice makes about as many positions stand out


def conspicuousness(profiles: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The mean of the four largest |z| of each seam profile `[N,P]`, by means and SDs of `reference` `[M,P]`: `[N]`.

    Raises MribenchError when the reference volumes do not differ.
    """
    return _largest(profiles - reference.mean(axis=0), reference.var(axis=0, ddof=1), len(reference))


def own_conspicuousness(reference: np.ndarray) -> np.ndarray:
    """`conspicuousness` of every row of `[M,P]` against the others: `[M]`."""
    m = len(reference)
    centred = reference - reference.mean(axis=0)
    apart = centred * m / (m - 1)  # from the mean of the others
    squares = (centred**2).sum(axis=0) - centred**2 * m / (m - 1)
    return _largest(apart, np.maximum(squares, 0) / (m - 2), m - 1)


def _largest(deviations: np.ndarray, variance: np.ndarray, m: int) -> np.ndarray:
    """The variance of each position is that of m volumes, drawn towards what is usual among the positions."""
    if not variance.any(axis=-1).all():
        raise MribenchError("Slice consistency needs reference volumes that differ, but they are identical.")
    usual = np.nanmedian(np.where(variance > 0, variance, np.nan), axis=-1, keepdims=True)
    z = np.abs(deviations) / np.sqrt((m * variance + _PRIOR * usual) / (m + _PRIOR))
    largest: np.ndarray = np.sort(z, axis=-1)[..., -_LARGEST:].mean(axis=-1)
    return largest


def _needs() -> dict[str, int]:
    """One reference volume may be left out, another compared with the others, and two have a variance."""
    return {"samples": 3, "reference": 4}


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceConsistency(Metric[tuple[np.ndarray, np.ndarray]]):
    """How far the seams of the samples stand out, less the same of the reference volumes, in SDs of the reference."""

    family: str = "consistency"
    better: Better = "match"
    needs: Mapping[str, int] = field(default_factory=_needs)

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            **arrays.seam_definition(),
            "scale": f"reference-sd-prior-{_PRIOR}",
            "summary": f"mean-of-{_LARGEST}-largest-minus-reference",
            "p": f"{TEST}-gaussian-bank-of-profiles",
        }

    def gather(self, arrays: ArraySource) -> tuple[np.ndarray, np.ndarray]:
        """Seam profiles of reference and samples."""
        return arrays.seams("reference"), arrays.seams("samples")

    def value(self, gathered: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        reference, samples = gathered[0][keep["reference"]], gathered[1][keep["samples"]]
        return float(conspicuousness(samples, reference).mean() - own_conspicuousness(reference).mean())

    def target(self, gathered: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        return 0.0

    def exchangeable(self, gathered: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, int]:
        """Gaussians of the profiles: a scale by position from one of the sets would favour one split."""
        return exchangeable_kernel(squared_distances(np.concatenate(gathered))), len(gathered[0])


SLICE_CONSISTENCY = SliceConsistency(
    name="slice_consistency",
    title="Slice consistency",
    unit="SD of the reference",
    detects=("mean_volume", "noise"),
    measures=(
        "Whether neighbouring slices belong together, along all three axes: how far the steps between slices that "
        "stand out most do so, less the same for reference volumes. It detects seams, slices of another subject and "
        "volumes that lie in another orientation. A perfect generator has the expected value 0."
    ),
    blind_to=(
        "It does not measure what the slices show, and does not detect copying, blur or the border between halves of "
        "two people."
    ),
    display=Display(heading="Seams", aim="near 0"),
)
