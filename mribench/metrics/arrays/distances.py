"""Squared distances between volumes, by their features and by their voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mribench.data.volume_set import VIEWS
from mribench.errors import MribenchError
from mribench.metrics.metric import ArraySource, Keep

if TYPE_CHECKING:
    from torch import Tensor

    from mribench.metrics.arrays.pairs import State

_EQUAL = 1e-12  # squared distance, relative to the largest from the centre
_CHUNK_VOXELS = 2**16


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


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """`[N,F]` -> `[N,N]`, exactly 0 between equal rows; rows are centred first because the sums cancel."""
    rows = rows - rows.mean(axis=0)
    norms = (rows**2).sum(axis=1)
    distances: np.ndarray = np.maximum(norms[:, None] + norms[None] - 2 * rows @ rows.T, 0)
    # What rounding leaves between equal rows would pass for a bandwidth; float32 features resolve no less.
    distances[distances < _EQUAL * norms.max(initial=0)] = 0
    np.fill_diagonal(distances, 0)
    return distances


def pooled(keep: Keep, m: int) -> np.ndarray:
    """Indices of the volumes in `keep` in an array over reference then samples, of which m are reference."""
    return np.concatenate([keep["reference"], keep["samples"] + m])


def side_by_side(features: np.ndarray) -> np.ndarray:
    """`[N,P,F]` -> `[N,PF]`: the features of all positions of a volume in one row."""
    return features.reshape(len(features), -1)


def join_views(features: Callable[[str, str], np.ndarray], set_name: str) -> np.ndarray:
    """Features of all positions and views of a set side by side, each view over its RMS norm in the reference."""
    scaled = []
    for view in VIEWS:
        rms = float(np.sqrt(_norms(features("reference", view)).mean()))
        scaled.append(side_by_side(features(set_name, view)) / rms)
    return np.concatenate(scaled, axis=1)


def _norms(features: np.ndarray) -> np.ndarray:
    """Squared norms `[N]` of `[N,P,F]`."""
    norms: np.ndarray = (features**2).sum(axis=(1, 2))
    return norms


@dataclass(frozen=True)
class JointDistances:
    """Distances of the features of all positions side by side, each view over its RMS norm in the reference.

    The scales come from the reference volumes that stay, so that leaving one out changes them too.
    """

    distances: tuple[np.ndarray, ...]  # per view, squared, of reference then samples `[M+N,M+N]`
    norms: tuple[np.ndarray, ...]  # per view, squared `[M+N]`
    m: int

    JOINED: ClassVar[str] = "concatenated-rms-reference"

    @classmethod
    def of(cls, arrays: ArraySource) -> JointDistances:
        """Of the reference and the samples."""
        norms = tuple(
            np.concatenate([_norms(arrays.features(name, view)) for name in ("reference", "samples")])
            for view in VIEWS
        )
        distances = tuple(arrays.distances(view) for view in VIEWS)
        return cls(distances, norms, len(arrays.sets["reference"]))

    def squared(self, keep: Keep) -> np.ndarray:
        """Joint squared distances of the volumes in `keep`, reference first."""
        rows = pooled(keep, self.m)
        return self._joint(keep["reference"])[np.ix_(rows, rows)]

    def exchangeable(self) -> np.ndarray:
        """Of all volumes, scaled by all, so that it does not matter which are the reference."""
        return self._joint(np.arange(len(self.norms[0])))

    def _joint(self, scaled_by: np.ndarray) -> np.ndarray:
        joint = np.zeros_like(self.distances[0])
        for squared, norms in zip(self.distances, self.norms, strict=True):
            joint += squared * (1 / norms[scaled_by].mean())
        return joint


@dataclass(frozen=True)
class VoxelDistance:
    """The pair kernel of squared Euclidean distances of two volumes, summed over voxels, in float64."""

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
        for start in range(0, x.shape[1], _CHUNK_VOXELS):
            chunk = slice(start, start + _CHUNK_VOXELS)
            total -= 2 * x[:, chunk].double() @ y[:, chunk].double().T
        return total.clamp_(min=0)
