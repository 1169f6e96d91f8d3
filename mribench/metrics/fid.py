"""Frechet distance of two Gaussians fitted to features (Heusel et al. 2017, equation 6), per view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mribench.errors import MribenchError, NotApplicable
from mribench.metrics.metric import Better, BlockSource, Keep


def frechet_distance(real_features: np.ndarray, fake_features: np.ndarray) -> float:
    """|m1-m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) of `[M,F]` and `[N,F]`, covariances with n - 1, float64.

    The last trace is the nuclear norm of X Y^T / sqrt((M-1)(N-1)) with centred X and Y, so no F x F matrix
    is formed when there are fewer rows than features, and no matrix root ever. Raises MribenchError for
    wrong shapes, fewer than 2 rows, or values that are not finite.
    """
    real, fake = np.asarray(real_features, dtype=np.float64), np.asarray(fake_features, dtype=np.float64)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) < 2:
        raise MribenchError(
            "The Frechet distance needs two arrays [N,F] of equal F and at least 2 rows each, "
            f"but got real {list(real.shape)} and fake {list(fake.shape)}."
        )
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise MribenchError("The Frechet distance needs finite features, but some are NaN or infinite.")
    shift = real.mean(axis=0) - fake.mean(axis=0)
    x, y = _factor(real), _factor(fake)
    trace_root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float((shift**2).sum() + (x**2).sum() + (y**2).sum() - 2 * trace_root)


def _factor(features: np.ndarray) -> np.ndarray:
    """A matrix A with A^T A = the covariance, of at most F rows (the R of a QR decomposition when N > F)."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


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
    sees: tuple[str, ...] = ("mean_volume", "noise")
    deletes: tuple[str, ...] = ("samples", "reference")
    target_deletes: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

    def definition(self, blocks: BlockSource) -> dict[str, Any]:
        return {"view": self.view, **blocks.feature_definition(self.view)}

    def prepare(self, blocks: BlockSource) -> tuple[np.ndarray, np.ndarray]:
        """Features of the reference `[M,F]` and of the samples `[N,F]`."""
        self._check_slab(blocks)
        return blocks.features("reference", self.view), blocks.features("samples", self.view)

    def _check_slab(self, blocks: BlockSource) -> None:
        if blocks.slab is None:
            return
        held = f"{blocks.slab[0]} to {blocks.slab[1] - 1}"
        if self.view != "axial":
            raise NotApplicable(
                f"{self.title} needs whole {self.view} slices, but the samples hold only axial slices {held}."
            )
        centre = blocks.full_depth // 2
        if not blocks.slab[0] <= centre < blocks.slab[1]:
            raise NotApplicable(
                f"{self.title} needs the central axial slice {centre}, but the samples hold only {held}."
            )

    def value(self, prepared: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        real, fake = prepared
        return frechet_distance(real[keep["reference"]], fake[keep["samples"]])

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
    sees: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ("samples", "reference")
    target_deletes: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

    def definition(self, blocks: BlockSource) -> dict[str, Any]:
        return blocks.volume_definition()

    def prepare(self, blocks: BlockSource) -> tuple[np.ndarray, np.ndarray]:
        """Features of the reference `[M,F]` and of the samples `[N,F]`."""
        return blocks.volume_features("reference"), blocks.volume_features("samples")

    def value(self, prepared: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        real, fake = prepared
        return frechet_distance(real[keep["reference"]], fake[keep["samples"]])

    def target(self, prepared: Any, keep: Keep) -> None:
        return None


FID_3D = VolumeFID(name="fid_3d", title="FID-3D")
