"""A named, ordered set of volumes on one grid: the only form in which metrics get data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mribench.errors import MribenchError
from mribench.files import digest_json

DARK = 0.05  # the largest value of a set that cannot be brains in [0,1]
VIEWS = {"axial": 0, "coronal": 1, "sagittal": 2}  # axis of [D,H,W] that a view looks along
Slab = tuple[int, int]  # axial slices [start, stop)
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class VolumeSet:
    """Volumes of one shape, read on demand.

    `set[i]` is float32 `[D,H,W]` in [0,1]; `digests[i]` identifies its voxels; `slab` names the axial
    slices of the full volume that are present (None = all of them).
    """

    name: str
    names: tuple[str, ...]
    digests: tuple[str, ...]
    shape: tuple[int, int, int]
    load: Callable[[int], np.ndarray]
    slab: Slab | None = None
    affine: tuple[tuple[float, ...], ...] | None = None  # to world mm, of volumes that were read from NIfTI

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has volumes 0 to {len(self) - 1}, not {index}")
        return self.load(index)

    @property
    def digest(self) -> str:
        """Identity of the ordered set: its volumes' digests and its slab."""
        return digest_json([list(self.digests), self.slab])

    def stack(self) -> np.ndarray:
        """All volumes as float32 `[N,D,H,W]`."""
        return np.stack([self.load(i) for i in range(len(self))])

    def subset(self, indices: Sequence[int], name: str | None = None) -> VolumeSet:
        """The volumes at `indices`, in that order."""
        chosen = tuple(int(i) for i in indices)
        return replace(
            self,
            name=name or self.name,
            names=tuple(self.names[i] for i in chosen),
            digests=tuple(self.digests[i] for i in chosen),
            load=lambda i: self.load(chosen[i]),
        )

    def mirrored(self) -> VolumeSet:
        """Every volume with left and right exchanged (axis W), under digests of its own."""
        return replace(
            self,
            digests=tuple(digest_json(["mirrored", digest]) for digest in self.digests),
            load=lambda i: np.ascontiguousarray(self.load(i)[:, :, ::-1]),
        )

    def crop(self, slab: Slab | None) -> VolumeSet:
        """The axial slices `slab` of every volume; the set itself when `slab` is None or already its own.

        Raises ValueError when this set is itself a slab other than the one asked for.
        """
        if slab is None or slab == self.slab:
            return self
        if self.slab is not None:
            raise ValueError(f"a set of slab {self.slab} cannot be cropped to {slab}")
        start, stop = slab
        shape = (stop - start, *self.shape[1:])
        return replace(self, shape=shape, slab=slab, load=lambda i: self.load(i)[start:stop])


def volume_set(array: np.ndarray, name: str) -> VolumeSet:
    """Volumes `[N,D,H,W]` or `[N,1,D,H,W]` in [0,1] (background 0) as a set; raises MribenchError for another shape."""
    volumes = np.asarray(array)
    if volumes.ndim == 5 and volumes.shape[1] == 1:
        volumes = volumes[:, 0]
    if volumes.ndim != 4 or len(volumes) == 0:
        raise MribenchError(
            f"{name} must be volumes [N,D,H,W] or [N,1,D,H,W], but has the shape {list(np.shape(array))}."
        )
    volumes = volumes.astype(np.float32, copy=False)
    return VolumeSet(
        name=name,
        names=tuple(f"{i:06d}" for i in range(len(volumes))),
        digests=tuple(hashlib.sha256(np.ascontiguousarray(v).tobytes()).hexdigest() for v in volumes),
        shape=tuple(volumes.shape[1:]),
        load=lambda i: volumes[i],
    )


def check_brightness(volumes: VolumeSet) -> None:
    """Raise MribenchError for a set that is dark throughout, as when it was rescaled by another set's range."""
    brightest = max(float(volumes[i].max()) for i in range(len(volumes)))
    if brightest < DARK:
        raise MribenchError(
            f"The volumes of {volumes.name} must use the range [0,1], but the largest value of all is "
            f"{brightest:.3g}. Give the range that all volumes share with --rescale LOW HIGH; if folders "
            "differ in it, bring them to one first."
        )
