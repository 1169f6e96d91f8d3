"""A named, ordered set of volumes on one grid: the only form in which metrics get data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mribench.files import digest_json

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
            digests=tuple(digest_json(["mirrored", one]) for one in self.digests),
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
