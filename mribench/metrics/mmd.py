"""Maximum mean discrepancy (Gretton et al. 2012), squared, on features and on voxels.

MMD^2 = E k(x,x') + E k(y,y') - 2 E k(x,y). The unbiased estimator (their equation 3) leaves the diagonals
out and may be negative; it is never clamped and never square-rooted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from torch import Tensor

from mribench.errors import MribenchError
from mribench.metrics.arrays.pairs import State
from mribench.metrics.fid import checked_features
from mribench.metrics.metric import ArraySource, Better, Keep
from mribench.metrics.statistics.permutation import TEST

Estimator = Literal["unbiased", "biased"]
BANDWIDTHS = (0.5, 1.0, 2.0)  # times the median distance between reference volumes
VIEWS = ("axial", "coronal", "sagittal")
EQUAL = 1e-12  # squared distance, relative to the largest from the centre
JOINED = "concatenated-rms-reference"
PAIR = ("reference", "samples")
CHUNK_VOXELS = 2**16


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


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """`[N,F]` -> `[N,N]`, exactly 0 between equal rows; rows are centred first because the sums cancel."""
    rows = rows - rows.mean(axis=0)
    norms = (rows**2).sum(axis=1)
    distances: np.ndarray = np.maximum(norms[:, None] + norms[None] - 2 * rows @ rows.T, 0)
    # What rounding leaves between equal rows would pass for a bandwidth; float32 features resolve no less.
    distances[distances < EQUAL * norms.max(initial=0)] = 0
    np.fill_diagonal(distances, 0)
    return distances


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
    kernel: np.ndarray = np.mean([_gaussian(squared, factor * median) for factor in BANDWIDTHS], axis=0)
    return kernel


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


@dataclass(frozen=True)
class VoxelDistance:
    """Squared Euclidean distance of two volumes, summed over voxels, in float64."""

    name: str = "voxel-squared-distance"
    tile: ClassVar[int] = 64  # columns; narrower ones would turn every row into float64 again and again

    def check(self, shape: tuple[int, int, int]) -> None:
        """Any shape will do."""

    def prepare(self, volumes: Tensor) -> State:
        """`[N,voxels]` float32 and the sums of their squares `[N]` float64."""
        flat = volumes.reshape(len(volumes), -1)
        return flat, flat.double().square().sum(1)

    def compare(self, rows: State, columns: State) -> Tensor:
        """`[R,C]` float64; differences of sums, hence never float32."""
        (x, x_squares), (y, y_squares) = rows, columns
        total = x_squares[:, None] + y_squares[None]
        for start in range(0, x.shape[1], CHUNK_VOXELS):
            chunk = slice(start, start + CHUNK_VOXELS)
            total -= 2 * x[:, chunk].double() @ y[:, chunk].double().T
        return total.clamp_(min=0)


@dataclass(frozen=True)
class JointDistances:
    """Distances of the features of three views side by side, each over its RMS norm in the reference.

    The scales are those of the reference volumes that are kept, so that leaving one out changes them too.
    """

    distances: tuple[np.ndarray, ...]  # per view, squared, of reference then samples `[M+N,M+N]`
    norms: tuple[np.ndarray, ...]  # per view, squared `[M+N]`
    m: int

    @classmethod
    def of(cls, arrays: ArraySource) -> JointDistances:
        """Of the reference and the samples."""
        norms = tuple(
            np.concatenate([(arrays.features(name, view) ** 2).sum(axis=1) for name in PAIR])
            for view in VIEWS
        )
        distances = tuple(arrays.distances(view) for view in VIEWS)
        return cls(distances, norms, len(arrays.sets["reference"]))

    def squared(self, keep: Keep) -> np.ndarray:
        """Joint squared distances of the kept volumes, reference first."""
        kept = pooled(keep, self.m)
        return self._joint(keep["reference"])[np.ix_(kept, kept)]

    def exchangeable(self) -> np.ndarray:
        """Of all volumes, scaled by all, so that it does not matter which are the reference."""
        return self._joint(np.arange(len(self.norms[0])))

    def _joint(self, scaled_by: np.ndarray) -> np.ndarray:
        joint = np.zeros_like(self.distances[0])
        for squared, norms in zip(self.distances, self.norms, strict=True):
            joint += squared * (1 / norms[scaled_by].mean())
        return joint


@dataclass(frozen=True)
class FeatureMMD:
    """Unbiased MMD^2 on the features of three central slices, each over its RMS norm in the reference."""

    name: str = "mmd"
    title: str = "MMD"
    unit: str = ""
    family: str = "mmd"
    ranked: bool = True
    better: Better = "match"
    detects: tuple[str, ...] = ("mean_volume", "noise")
    resampled: tuple[str, ...] = ("samples", "reference")
    target_resampled: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "kernel": "gaussian-bank-0.5-1-2-median-reference",
            "estimator": "unbiased",
            "views": JOINED,
            "p": f"{TEST}-pooled-bandwidth-of-unequal",
            **arrays.feature_definition(*VIEWS),
        }

    def gather(self, arrays: ArraySource) -> JointDistances:
        return JointDistances.of(arrays)

    def value(self, prepared: JointDistances, keep: Keep) -> float:
        m, squared = len(keep["reference"]), prepared.squared(keep)
        return mmd2_of_gram(_bank(squared, median_distance(squared[:m, :m])), m, "unbiased")

    def target(self, prepared: Any, keep: Keep) -> float:
        return 0.0

    def exchangeable(self, prepared: JointDistances) -> tuple[np.ndarray, int]:
        """Scales and bandwidth come from all volumes here: those of the reference would favour one split.

        Equal volumes do not count for the bandwidth, which a collapsed generator would pull to 0.
        """
        squared = prepared.exchangeable()
        return _bank(squared, float(np.median(np.sqrt(squared[squared > 0])))), prepared.m


@dataclass(frozen=True)
class VoxelMMD:
    """MMD^2 with the linear kernel on voxels: compares the two mean images and nothing else."""

    name: str
    title: str
    unit: str
    estimator: Estimator
    per_voxel: bool
    better: Better
    detects: tuple[str, ...]
    family: str = "mmd"
    ranked: bool = False
    resampled: tuple[str, ...] = ("samples", "reference")
    target_resampled: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

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

    def value(self, prepared: tuple[np.ndarray, int], keep: Keep) -> float:
        distances, m = prepared
        kept = pooled(keep, m)
        return mmd2_of_gram(-distances[np.ix_(kept, kept)] / 2, len(keep["reference"]), self.estimator)

    def target(self, prepared: Any, keep: Keep) -> float | None:
        return 0.0 if self.better == "match" else None

    def exchangeable(self, prepared: tuple[np.ndarray, int]) -> tuple[np.ndarray, int] | None:
        distances, m = prepared
        return (-distances / 2, m) if self.estimator == "unbiased" else None


def pooled(keep: Keep, m: int) -> np.ndarray:
    """Kept rows of an array over reference then samples, of which m are reference."""
    return np.concatenate([keep["reference"], keep["samples"] + m])


def join_views(features: Callable[[str, str], np.ndarray], set_name: str) -> np.ndarray:
    """Features of the three views of a set side by side `[N,3F]`, each over its RMS norm in the reference."""
    scaled = []
    for view in VIEWS:
        rms = float(np.sqrt((features("reference", view) ** 2).sum(axis=1).mean()))
        scaled.append(features(set_name, view) / rms)
    return np.concatenate(scaled, axis=1)


MMD = FeatureMMD()
MMD_VOXEL = VoxelMMD(
    name="mmd_voxel",
    title="MMD (voxels)",
    unit="per voxel",
    estimator="unbiased",
    per_voxel=True,
    better="match",
    detects=("noise",),
)
MMD_LEGACY = VoxelMMD(
    name="mmd_legacy",
    title="MMD (legacy, biased)",
    unit="voxel sum",
    estimator="biased",
    per_voxel=False,
    better="lower",
    detects=("noise",),
)
