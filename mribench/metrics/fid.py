"""Frechet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6), per view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mribench.errors import MribenchError, NotApplicable
from mribench.metrics.metric import ArraySource, Better, Keep


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


def checked_features(real: np.ndarray, fake: np.ndarray, who: str) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; raises MribenchError unless they are finite `[M,F]` and `[N,F]` of at least 2 rows."""
    real, fake = np.asarray(real, dtype=np.float64), np.asarray(fake, dtype=np.float64)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) < 2:
        raise MribenchError(
            f"{who} needs two arrays [N,F] of equal F and at least 2 rows each, "
            f"but got real {list(real.shape)} and fake {list(fake.shape)}."
        )
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise MribenchError(f"{who} needs finite features, but some are NaN or infinite.")
    return real, fake


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
        means = [_mean(rows, kept) for rows, kept in ((self.real, real), (self.fake, fake))]
        traces = [
            (norms[kept].sum() - len(kept) * (mean @ mean)) / (len(kept) - 1)
            for norms, kept, mean in zip(self.norms, (real, fake), means, strict=True)
        ]
        cross = self.products[np.ix_(real, fake)]
        cross = cross - cross.mean(axis=0) - cross.mean(axis=1, keepdims=True) + cross.mean()
        root = _nuclear_norm(cross) / np.sqrt((len(real) - 1) * (len(fake) - 1))
        shift = means[0] - means[1]
        return float(shift @ shift + sum(traces) - 2 * root)


def _mean(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Mean of the kept rows as one product, without a copy of them."""
    weights = np.zeros(len(rows))
    weights[kept] = 1 / len(kept)
    mean: np.ndarray = weights @ rows
    return mean


def check_slice(title: str, view: str, arrays: ArraySource) -> None:
    """Raise NotApplicable when the samples are a slab that does not hold the whole central slice of `view`."""
    if arrays.slab is None:
        return
    held = f"{arrays.slab[0]} to {arrays.slab[1] - 1}"
    if view != "axial":
        raise NotApplicable(
            f"{title} needs whole {view} slices, but the samples hold only axial slices {held}."
        )
    centre = arrays.full_depth // 2
    if not arrays.slab[0] <= centre < arrays.slab[1]:
        raise NotApplicable(
            f"{title} needs the central axial slice {centre}, but the samples hold only {held}."
        )


@dataclass(frozen=True)
class SliceFID:
    """Frechet distance of the features of one central slice per volume."""

    name: str
    title: str
    view: str
    unit: str = ""
    family: str = "fid"
    ranked: bool = True
    better: Better = "lower"
    detects: tuple[str, ...] = ("mean_volume", "noise")
    resampled: tuple[str, ...] = ("samples", "reference")
    target_resampled: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {"view": self.view, **arrays.feature_definition(self.view)}

    def gather(self, arrays: ArraySource) -> FrechetSubsets:
        """Inner products of the features of the reference and of the samples."""
        check_slice(self.title, self.view, arrays)
        return FrechetSubsets(arrays.features("reference", self.view), arrays.features("samples", self.view))

    def value(self, prepared: FrechetSubsets, keep: Keep) -> float:
        return prepared.distance(keep["reference"], keep["samples"])

    def target(self, prepared: Any, keep: Keep) -> None:
        return None


FID_A = SliceFID(name="fid_a", title="FID-A", view="axial")
FID_C = SliceFID(name="fid_c", title="FID-C", view="coronal")
FID_S = SliceFID(name="fid_s", title="FID-S", view="sagittal")


@dataclass(frozen=True)
class VolumeFID:
    """Frechet distance of 3D features of whole volumes."""

    name: str
    title: str
    unit: str = ""
    family: str = "fid"
    ranked: bool = False
    better: Better = "lower"
    detects: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ("samples", "reference")
    target_resampled: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return arrays.volume_definition()

    def gather(self, arrays: ArraySource) -> FrechetSubsets:
        """Inner products of the features of the reference and of the samples."""
        return FrechetSubsets(arrays.volume_features("reference"), arrays.volume_features("samples"))

    def value(self, prepared: FrechetSubsets, keep: Keep) -> float:
        return prepared.distance(keep["reference"], keep["samples"])

    def target(self, prepared: Any, keep: Keep) -> None:
        return None


FID_3D = VolumeFID(name="fid_3d", title="FID-3D")
