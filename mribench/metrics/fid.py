"""Frechet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6), per view and position."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mribench.data.volume_set import VIEWS
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
    """A comparison of the features of slices of one view, position by position; the value is the mean over positions.

    `central` takes the central slice alone. Of a slab, only the axial view is compared: at the positions inside it.
    """

    view: str
    central: bool = False
    family: str = "fid"
    detects: tuple[str, ...] = ("mean_volume", "noise")

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        """The view, its slices and what else can move their features."""
        features = arrays.feature_definition(self.view)
        if self.central:
            return {"view": self.view, **features, "slice": str(self._centre(arrays))}
        return {"view": self.view, "positions": "mean", **features}

    def features(self, arrays: ArraySource, set_name: str) -> np.ndarray:
        """Features `[N,P,F]` of the positions compared; NotApplicable when the samples are a slab without them."""
        if arrays.slab and self.in_slab == "not applicable":
            raise NotApplicable(f"{self.title} needs whole {self.view} slices, but {_held(arrays)}.")
        positions, centre = arrays.positions(self.view), self._centre(arrays)
        if not self.central:
            return arrays.features(set_name, self.view)
        if centre not in positions:
            raise NotApplicable(f"{self.title} needs the central axial slice {centre}, but {_held(arrays)}.")
        return arrays.features(set_name, self.view)[:, [positions.index(centre)]]

    def _centre(self, arrays: ArraySource) -> int:
        depth = arrays.full_depth if self.view == "axial" else arrays.shape[VIEWS[self.view]]
        return depth // 2


def _held(arrays: ArraySource) -> str:
    assert arrays.slab
    return f"the samples hold only axial slices {arrays.slab[0]} to {arrays.slab[1] - 1}"


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceFID(SliceMetric[tuple[FrechetSubsets, ...]]):
    """Frechet distance of the features of slices, the mean over positions."""

    better: Better = "lower"
    display: Display = field(default_factory=lambda: Display(family="FID"))

    def gather(self, arrays: ArraySource) -> tuple[FrechetSubsets, ...]:
        real, fake = (self.features(arrays, name) for name in ("reference", "samples"))
        return tuple(FrechetSubsets(real[:, p], fake[:, p]) for p in range(real.shape[1]))

    def value(self, gathered: tuple[FrechetSubsets, ...], keep: Keep) -> float:
        return float(np.mean([part.distance(keep["reference"], keep["samples"]) for part in gathered]))


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
    ranked=True,
    measures=(
        "The distance between two Gaussian distributions, fitted to features of axial slices of the samples and of the "
        "reference: the mean over several positions. It grows with blur, noise, wrong contrast and wrong position."
    ),
    blind_to=(
        "It does not detect copying, nor whether the slices of a volume belong together. With few samples it is biased "
        "upwards, so compare only equal numbers of samples, and it can prefer a collapsed generator."
    ),
)
FID_C, FID_S = (
    SliceFID(
        name=f"fid_{view[0]}",
        title=f"FID-{view[0].upper()}",
        view=view,
        ranked=True,
        in_slab="not applicable",
        measures=f"The same as FID-A, for {view} slices.",
        blind_to="The same as FID-A.",
    )
    for view in ("coronal", "sagittal")
)
FID_A_CENTRAL, FID_C_CENTRAL, FID_S_CENTRAL = (
    SliceFID(
        name=f"fid_{view[0]}_central",
        title=f"FID-{view[0].upper()} (central slice)",
        view=view,
        central=True,
        in_slab="compared" if view == "axial" else "not applicable",
        measures=f"The same as FID-{view[0].upper()}, for the central {view} slice alone, as older tables give it.",
        blind_to="It does not look at any other slice, and has the limits of FID-A.",
        display=Display(heading=f"FID-{view[0].upper()} (central)"),
    )
    for view in ("axial", "coronal", "sagittal")
)
FID_3D = VolumeFID(
    name="fid_3d",
    title="FID-3D",
    opt_in=True,
    measures="The same as FID-A, with features of whole volumes instead of slices.",
    blind_to="It does not detect copying. With few samples it is biased upwards, as FID-A is.",
)
