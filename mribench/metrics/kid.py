"""Kernel Inception distance (Binkowski et al., ICLR 2018, section 4), per view: unbiased where FID is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mribench.metrics.fid import check_slice, checked_features
from mribench.metrics.metric import ArraySource, Better, Keep
from mribench.metrics.mmd import mmd2_of_gram, pooled
from mribench.metrics.statistics.permutation import TEST


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased squared MMD of features `[M,F]` and `[N,F]` with the kernel (x.y / F + 1)^3, float64; 0 = one law.

    All rows are used once. Published code averages over random subsets instead, which is the same estimator
    with more noise. May be negative. Source: Binkowski et al., ICLR 2018. Raises MribenchError for wrong
    shapes, fewer than 2 rows, or values that are not finite.

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


@dataclass(frozen=True)
class SliceKID:
    """KID of the features of one central slice per volume."""

    name: str
    title: str
    view: str
    unit: str = ""
    family: str = "fid"
    ranked: bool = False
    better: Better = "match"
    detects: tuple[str, ...] = ("mean_volume", "noise")
    resampled: tuple[str, ...] = ("samples", "reference")
    target_resampled: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "view": self.view,
            "kernel": "cubic",
            "estimator": "unbiased",
            "subsets": "none",
            "p": TEST,
            **arrays.feature_definition(self.view),
        }

    def gather(self, arrays: ArraySource) -> tuple[np.ndarray, int]:
        """Kernel values of reference then samples `[M+N,M+N]`, and M."""
        check_slice(self.title, self.view, arrays)
        reference, samples = (arrays.features(name, self.view) for name in ("reference", "samples"))
        return _kernel(np.concatenate([reference, samples])), len(reference)

    def value(self, prepared: tuple[np.ndarray, int], keep: Keep) -> float:
        gram, m = prepared
        kept = pooled(keep, m)
        return mmd2_of_gram(gram[np.ix_(kept, kept)], len(keep["reference"]), "unbiased")

    def target(self, prepared: Any, keep: Keep) -> float:
        return 0.0

    def exchangeable(self, prepared: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
        return prepared


KID_A = SliceKID(name="kid_a", title="KID-A", view="axial")
KID_C = SliceKID(name="kid_c", title="KID-C", view="coronal")
KID_S = SliceKID(name="kid_s", title="KID-S", view="sagittal")
