"""Maximum mean discrepancy (Gretton et al. 2012), squared, on features and on voxels.

MMD^2 = E k(x,x') + E k(y,y') - 2 E k(x,y). The unbiased estimator (their equation 3) leaves the diagonals
out and may be negative; it is never clamped and never square-rooted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from mribench.data.volume_set import VIEWS
from mribench.errors import MribenchError
from mribench.metrics.arrays.distances import (
    JointDistances,
    VoxelDistance,
    checked_features,
    pooled,
    squared_distances,
)
from mribench.metrics.metric import ArraySource, Keep, Metric
from mribench.metrics.score import Better, Display
from mribench.metrics.statistics.permutation import TEST

Estimator = Literal["unbiased", "biased"]
_BANDWIDTHS = (0.5, 1.0, 2.0)  # times the median distance between reference volumes


def mmd2(
    real: np.ndarray,
    fake: np.ndarray,
    kernel: Literal["linear", "gaussian", "gaussian-bank"] = "linear",
    estimator: Estimator = "unbiased",
) -> float:
    """Squared MMD of `real` `[M,F]` and `fake` `[N,F]`, float64, in plain sum form (divided by nothing).

    "gaussian": bandwidth = median distance over all pooled pairs; "gaussian-bank": mean of three Gaussians
    at 1/2, 1 and 2 times the median distance between real rows. Raises MribenchError for wrong
    shapes, values that are not finite, or an unknown kernel or estimator.
    """
    if estimator not in get_args(Estimator):
        raise MribenchError(f"The estimator must be unbiased or biased, not {estimator!r}.")
    real, fake = checked_features(real, fake, "MMD")
    distances = squared_distances(np.concatenate([real, fake]))
    m = len(real)
    if kernel == "linear":
        return mmd2_of_gram(-distances / 2, m, estimator)
    if kernel == "gaussian":
        return mmd2_of_gram(_gaussian(distances, median_distance(distances)), m, estimator)
    if kernel == "gaussian-bank":
        return mmd2_of_gram(_bank(distances, median_distance(distances[:m, :m])), m, estimator)
    raise MribenchError(f"The kernel must be linear, gaussian or gaussian-bank, not {kernel!r}.")


def median_distance(squared: np.ndarray) -> float:
    """Median of the distances above the diagonal; raises MribenchError when it is 0."""
    median = float(np.median(np.sqrt(squared[np.triu_indices(len(squared), 1)])))
    if median == 0:
        raise MribenchError(
            "A Gaussian kernel needs volumes that differ, but most of those that give its bandwidth (the "
            "reference's) are identical."
        )
    return median


def _gaussian(squared: np.ndarray, bandwidth: float) -> np.ndarray:
    kernel: np.ndarray = np.exp(-squared / (2 * bandwidth**2))
    return kernel


def _bank(squared: np.ndarray, median: float) -> np.ndarray:
    """Mean of the Gaussians whose bandwidths are 1/2, 1 and 2 times `median`."""
    kernel: np.ndarray = np.mean([_gaussian(squared, factor * median) for factor in _BANDWIDTHS], axis=0)
    return kernel


def exchangeable_kernel(squared: np.ndarray) -> np.ndarray:
    """The three Gaussians of squared distances `[N,N]`, with a bandwidth that is the same for every split of the rows.

    Equal rows do not count for the bandwidth, which a collapsed generator would pull to 0.
    """
    return _bank(squared, float(np.median(np.sqrt(squared[squared > 0]))))


def mmd2_of_gram(gram: np.ndarray, m: int, estimator: Estimator) -> float:
    """MMD^2 from kernel values of the pooled rows `[M+N,M+N]`, real first.

    A linear kernel may be given as -|x-y|^2 / 2: both estimators are the same for it as for <x,y>.
    """
    real, fake, cross = gram[:m, :m], gram[m:, m:], gram[:m, m:]
    return _mean_within(real, estimator) + _mean_within(fake, estimator) - 2 * float(cross.mean())


def _mean_within(gram: np.ndarray, estimator: Estimator) -> float:
    n = len(gram)
    if estimator == "biased":
        return float(gram.mean())
    return float((gram.sum() - np.trace(gram)) / (n * (n - 1)))


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMMD(Metric[JointDistances]):
    """Unbiased MMD^2 on joined features of the three views, each over its RMS norm in the reference."""

    family: str = "mmd"
    better: Better = "match"

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "kernel": "gaussian-bank-0.5-1-2-median-reference",
            "estimator": "unbiased",
            "views": JointDistances.JOINED,
            "p": f"{TEST}-pooled-bandwidth-of-unequal",
            **arrays.feature_definition(*VIEWS),
        }

    def gather(self, arrays: ArraySource) -> JointDistances:
        return JointDistances.of(arrays)

    def value(self, gathered: JointDistances, keep: Keep) -> float:
        m, squared = len(keep["reference"]), gathered.squared(keep)
        return mmd2_of_gram(_bank(squared, median_distance(squared[:m, :m])), m, "unbiased")

    def target(self, gathered: JointDistances, keep: Keep) -> float:
        return 0.0

    def exchangeable(self, gathered: JointDistances) -> tuple[np.ndarray, int]:
        """Scales and bandwidth come from all volumes here: those of the reference would favour one split."""
        return exchangeable_kernel(gathered.exchangeable()), gathered.m


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelMMD(Metric[tuple[np.ndarray, int]]):
    """MMD^2 with the linear kernel on voxels: compares the two mean images and nothing else."""

    estimator: Estimator
    per_voxel: bool
    family: str = "mmd"
    detects: tuple[str, ...] = ("noise",)

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "kernel": "linear",
            "estimator": self.estimator,
            "space": "voxels",
            "scale": "mean" if self.per_voxel else "sum",
            "batch": "all",
            **({"p": TEST} if self.estimator == "unbiased" else {}),
        }

    def gather(self, arrays: ArraySource) -> tuple[np.ndarray, int]:
        """Squared distances of reference then samples `[M+N,M+N]`, divided as defined, and M."""
        kernel = VoxelDistance()
        real = arrays.pairs("reference", "reference", kernel)
        fake = arrays.pairs("samples", "samples", kernel)
        cross = arrays.pairs("samples", "reference", kernel).T
        voxels = float(np.prod(arrays.shape)) if self.per_voxel else 1.0
        return np.block([[real, cross], [cross.T, fake]]) / voxels, len(real)

    def value(self, gathered: tuple[np.ndarray, int], keep: Keep) -> float:
        distances, m = gathered
        rows = pooled(keep, m)
        return mmd2_of_gram(-distances[np.ix_(rows, rows)] / 2, len(keep["reference"]), self.estimator)

    def target(self, gathered: tuple[np.ndarray, int], keep: Keep) -> float | None:
        return 0.0 if self.better == "match" else None

    def exchangeable(self, gathered: tuple[np.ndarray, int]) -> tuple[np.ndarray, int] | None:
        distances, m = gathered
        return (-distances / 2, m) if self.estimator == "unbiased" else None


MMD = FeatureMMD(
    name="mmd",
    title="MMD",
    ranked=True,
    detects=("mean_volume", "noise"),
    measures=(
        "Whether the features of several slices of the three views, taken together, have the same distribution in the "
        "samples as in the reference. The estimate is unbiased: the expected value of a perfect generator is 0, and "
        "small negative values are chance."
    ),
    blind_to="It does not detect copying, and hardly whether the slices of a volume belong together.",
    display=Display(heading="MMD (x10³)", aim="near 0", scale=1000),
)
MMD_VOXEL = VoxelMMD(
    name="mmd_voxel",
    title="MMD (voxels)",
    unit="per voxel",
    estimator="unbiased",
    per_voxel=True,
    better="match",
    measures="The difference between the two mean images. It grows with wrong intensity, bias field and registration.",
    blind_to=(
        "It does not measure anything else: a generator that always repeats the mean image scores as well as a "
        "perfect generator."
    ),
)
MMD_LEGACY = VoxelMMD(
    name="mmd_legacy",
    title="MMD (legacy, biased)",
    unit="voxel sum",
    estimator="biased",
    per_voxel=False,
    better="lower",
    measures="The biased MMD with a linear kernel, as older tables print it. It serves only for comparison with them.",
    blind_to="It does not measure variety: low variance lowers it, so a collapsed generator scores better than a "
    "perfect generator.",
)
