"""Do samples have the anatomy of the reference? The energy distance of the joint distributions of region volumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mribench.errors import NotApplicable
from mribench.metrics.arrays.distances import squared_distances
from mribench.metrics.metric import ArraySource, Keep, Metric
from mribench.metrics.mmd import mmd2_of_gram
from mribench.metrics.regions import LEAST_SPREAD, TRAITS, traits
from mribench.metrics.score import Better, Display
from mribench.metrics.statistics.permutation import TEST

SHRINKAGE = 0.5  # share of the identity in the correlations
POWER = 0.5  # of the distances: smaller is more sensitive to spread, larger to shift
JOINT_WEIGHT = 4.0  # of the joint distribution; each trait alone has weight 1


def _energy_kernel(rows: np.ndarray, law: np.ndarray) -> np.ndarray:
    """Negative distances `[K,K]` of traits in units of `law`: of all traits together and of each alone, averaged.

    Together: whitened by the standard deviations and shrunk correlations of `law`. Alone, because the spread of one
    trait hardly changes a distance in eight dimensions. The squared MMD of a negative power below 2 of a distance is
    an energy distance (Sejdinovic et al., Annals of Statistics 41, 2013). It grows with the shift without limit, where
    Gaussian kernels end at a constant, so poor generators stay in order.
    """
    deviations = np.maximum(law.std(axis=0, ddof=1), LEAST_SPREAD)
    correlations = np.cov(law.T) / np.outer(deviations, deviations)
    shrunk = (1 - SHRINKAGE) * correlations + SHRINKAGE * np.eye(len(deviations))
    values, vectors = np.linalg.eigh(shrunk)
    scaled = rows / deviations
    together = squared_distances(scaled @ vectors / np.sqrt(values)) ** (POWER / 2)
    alone = sum(abs(trait[:, None] - trait) ** POWER for trait in scaled.T)
    kernel: np.ndarray = -(JOINT_WEIGHT * together + alone) / (JOINT_WEIGHT + len(deviations))
    return kernel


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionDistance(Metric[tuple[np.ndarray, np.ndarray]]):
    """Unbiased energy distance (Szekely and Rizzo 2013) of the traits, in units of the reference."""

    family: str = "anatomy"
    better: Better = "match"
    needs: dict[str, int] = field(default_factory=lambda: {"samples": 3, "reference": len(TRAITS) + 1})

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            **arrays.region_definition(),
            "traits": "-".join(TRAITS).replace(" ", "_"),
            "whitened": f"reference-shrunk-{SHRINKAGE:g}",
            "kernel": f"energy-power-{POWER:g}-joint-{JOINT_WEIGHT:g}",
            "estimator": "unbiased",
            "p": f"{TEST}-pooled-whitening",
        }

    def gather(self, arrays: ArraySource) -> tuple[np.ndarray, np.ndarray]:
        """Traits of the reference `[M,8]` and of the samples `[N,8]`."""
        if arrays.slab is not None:
            start, stop = arrays.slab
            raise NotApplicable(
                f"{self.title} needs whole volumes, but the samples hold only axial slices {start} to {stop - 1}."
            )
        return traits(arrays.region_volumes("reference")), traits(arrays.region_volumes("samples"))

    def value(self, gathered: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        reference, samples = gathered[0][keep["reference"]], gathered[1][keep["samples"]]
        gram = _energy_kernel(np.concatenate([reference, samples]), reference)
        return mmd2_of_gram(gram, len(reference), "unbiased")

    def target(self, gathered: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        return 0.0

    def exchangeable(self, gathered: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, int]:
        """All volumes whiten here, so that it does not matter which are the reference."""
        rows = np.concatenate(gathered)
        return _energy_kernel(rows, rows), len(gathered[0])


ANATOMY = RegionDistance(
    name="anatomy",
    title="Anatomy",
    ranked=True,
    in_slab="not applicable",
    detects=("mean_volume", "noise"),
    measures=(
        "Whether ventricles, outer CSF, grey matter, white matter, cerebellum and the left-right asymmetries of grey "
        "and white matter have the same joint distribution of volumes in the samples as in the reference. The expected "
        "value of a perfect generator is near 0, and small negative values are chance."
    ),
    blind_to=(
        "It does not detect copying, and it does not measure shape, contrast or texture. It needs volumes in MNI152 "
        "space."
    ),
    display=Display(aim="near 0", family="anatomy"),
)
