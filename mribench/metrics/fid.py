"""Frechet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6), per view."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mribench.errors import NotApplicable
from mribench.metrics.arrays.distances import checked_features
from mribench.metrics.metric import ArraySource, Gathered, Keep, Metric
from mribench.metrics.score import Better, Display


def frechet_distance(real_features: np.ndarray, fake_features: np.ndarray) -> float:
    """|m1-m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) of `[M,F]` and `[N,F]`, covariances with n - 1, float64.

    The last trace is the nuclear norm of X Y^T / sqrt((M-1)(N-1)) with centred X and Y, so no F x F matrix
    is formed when there are fewer rows than features, and no matrix root ever. Raises MribenchError for
    wrong shapes, fewer than 2 rows, or values that are not finite.
    """
    real, fake = checked_features(real_features, fake_features, "The Frechet distance")
    shift = real.mean(axis=0) - fake.mean(axis=0)
    x, y = _factor(real), _factor(fake)
    return float((shift**2).sum() + (x**2).sum() + (y**2).sum() - 2 * _nuclear_norm(x @ y.T))


def _factor(features: np.ndarray) -> np.ndarray:
    """A matrix A with A^T A = the covariance, of at most F rows (the R of a QR decomposition when N > F)."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values; the roots of A A^T's eigenvalues would lose half of the digits."""
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


class FrechetSubsets:
    """`frechet_distance` of any subsets of `[M,F]` and `[N,F]`, their inner products computed once.

    Rows are centred by one common vector first, because the sums cancel. When both subsets have more rows
    than features, QR factors are cheaper than inner products and take their place.
    """

    def __init__(self, real_features: np.ndarray, fake_features: np.ndarray) -> None:
        real, fake = checked_features(real_features, fake_features, "The Frechet distance")
        centre = (real.mean(axis=0) + fake.mean(axis=0)) / 2
        self.real, self.fake = real - centre, fake - centre
        self.products = self.real @ self.fake.T if self._few(len(real), len(fake)) else None
        self.norms = [(rows**2).sum(axis=1) for rows in (self.real, self.fake)]

    def _few(self, m: int, n: int) -> bool:
        return min(m, n) <= self.real.shape[1]

    def distance(self, real: np.ndarray, fake: np.ndarray) -> float:
        """Of the rows `real` and `fake` (indices, each once)."""
        if self.products is None or not self._few(len(real), len(fake)):
            return frechet_distance(self.real[real], self.fake[fake])
        means = [_mean(rows, chosen) for rows, chosen in ((self.real, real), (self.fake, fake))]
        traces = [
            (norms[chosen].sum() - len(chosen) * (mean @ mean)) / (len(chosen) - 1)
            for norms, chosen, mean in zip(self.norms, (real, fake), means, strict=True)
        ]
        cross = self.products[np.ix_(real, fake)]
        cross = cross - cross.mean(axis=0) - cross.mean(axis=1, keepdims=True) + cross.mean()
        root = _nuclear_norm(cross) / np.sqrt((len(real) - 1) * (len(fake) - 1))
        shift = means[0] - means[1]
        return float(shift @ shift + sum(traces) - 2 * root)


def _mean(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mean of the chosen rows as one product, without a copy of them."""
    weights = np.zeros(len(rows))
    weights[chosen] = 1 / len(chosen)
    mean: np.ndarray = weights @ rows
    return mean


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceMetric(Metric[Gathered]):
    """A comparison of the features of one central slice per volume.

    `in_slab` is "compared" for the axial view, whose slice a slab may hold, and "not applicable" for the others.
    """

    view: str
    family: str = "fid"
    detects: tuple[str, ...] = ("mean_volume", "noise")

    def check_slice(self, arrays: ArraySource) -> None:
        """Raise NotApplicable when the samples are a slab that does not hold the whole central slice."""
        if arrays.slab is None:
            return
        held = f"{arrays.slab[0]} to {arrays.slab[1] - 1}"
        if self.in_slab == "not applicable":
            raise NotApplicable(
                f"{self.title} needs whole {self.view} slices, but the samples hold only axial slices {held}."
            )
        centre = arrays.full_depth // 2
        if not arrays.slab[0] <= centre < arrays.slab[1]:
            raise NotApplicable(
                f"{self.title} needs the central axial slice {centre}, but the samples hold only {held}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceFID(SliceMetric[FrechetSubsets]):
    """Frechet distance of the features of one central slice per volume."""

    ranked: bool = True
    better: Better = "lower"
    display: Display = field(default_factory=lambda: Display(family="FID"))

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {"view": self.view, **arrays.feature_definition(self.view)}

    def gather(self, arrays: ArraySource) -> FrechetSubsets:
        self.check_slice(arrays)
        return FrechetSubsets(arrays.features("reference", self.view), arrays.features("samples", self.view))

    def value(self, gathered: FrechetSubsets, keep: Keep) -> float:
        return gathered.distance(keep["reference"], keep["samples"])


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeFID(Metric[FrechetSubsets]):
    """Frechet distance of 3D features of whole volumes."""

    family: str = "fid"
    better: Better = "lower"

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return arrays.volume_definition()

    def gather(self, arrays: ArraySource) -> FrechetSubsets:
        return FrechetSubsets(arrays.volume_features("reference"), arrays.volume_features("samples"))

    def value(self, gathered: FrechetSubsets, keep: Keep) -> float:
        return gathered.distance(keep["reference"], keep["samples"])


FID_A = SliceFID(
    name="fid_a",
    title="FID-A",
    view="axial",
    in_slab="compared",
    measures=(
        "The distance between two Gaussian distributions, fitted to features of the central axial slices of the "
        "samples and of the reference. It grows with blur, noise and wrong contrast."
    ),
    blind_to=(
        "It does not detect copying and does not look at other slices. With few samples it is biased upwards, so "
        "compare only equal numbers of samples, and it can prefer a collapsed generator."
    ),
)
FID_C, FID_S = (
    SliceFID(
        name=f"fid_{view[0]}",
        title=f"FID-{view[0].upper()}",
        view=view,
        in_slab="not applicable",
        measures=f"The same as FID-A, for the central {view} slice.",
        blind_to="The same as FID-A.",
    )
    for view in ("coronal", "sagittal")
)
FID_3D = VolumeFID(
    name="fid_3d",
    title="FID-3D",
    opt_in=True,
    measures="The same as FID-A, with features of whole volumes instead of one slice.",
    blind_to="It does not detect copying. With few samples it is biased upwards, as FID-A is.",
)
