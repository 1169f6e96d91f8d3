"""The cohort: how many volumes play which role, and the volumes of a finished one, read from disk."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mribench.data.grid import Box, Grid, Sides, dequantise, paper_grid
from mribench.data.records import CohortRecord, VolumeEntry
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError
from mribench.files import check_seal, digest_volume

ROLES = ("train", "reference", "holdout")


_LEAST_SIDE = 16  # voxels


class CohortSpec(Box):
    """How many volumes play each role. A prepared cohort gives `train` all subjects that remain."""

    source: Literal["simulated", "prepared"]
    size: int = Field(ge=_LEAST_SIDE, le=512)  # voxels a side of a cube
    shape: Sides | None = None  # of volumes that are no cubes
    train: int = Field(ge=2)
    reference: int = Field(ge=2)
    holdout: int = Field(ge=0)
    reference_from_train: bool = False  # the paper's way: reference volumes are drawn from train
    grid: Grid | None = None  # None = the paper's field of view in so many voxels

    @model_validator(mode="before")
    @classmethod
    def _give_grid_its_voxels(cls, values: Any) -> Any:
        """A grid may be told by spacing and origin alone."""
        grid = values.get("grid") if isinstance(values, dict) else None
        if not isinstance(grid, dict) or {"size", "voxels"} & grid.keys():
            return values
        sides = {"voxels": values["shape"]} if values.get("shape") else {"size": values.get("size")}
        return {**values, "grid": {**grid, **sides}}

    @model_validator(mode="after")
    def _fill_grid(self) -> CohortSpec:
        if min(self.sides) < _LEAST_SIDE:
            raise ValueError(
                f"shape must have sides of at least {_LEAST_SIDE} voxels, not {list(self.sides)}"
            )
        grid = self.grid or paper_grid(self.sides)
        if grid.sides != self.sides:
            raise ValueError(
                f"grid must have the cohort's {list(self.sides)} voxels along x, y and z, not {list(grid.sides)}"
            )
        if self.reference_from_train and self.reference > self.train:
            raise ValueError("reference must not exceed train when it is drawn from train")
        object.__setattr__(self, "grid", grid)
        return self

    @property
    def voxels(self) -> Grid:
        """The resolved grid."""
        assert self.grid is not None
        return self.grid


@dataclass(frozen=True)
class CohortPlan:
    """What a protocol asks of its cohort."""

    spec: CohortSpec
    seed: int
    protocol_digest: str


@dataclass(frozen=True)
class Cohort:
    """A finished cohort. One object remembers whose voxels it has verified: open a cohort once per command."""

    folder: Path
    record: CohortRecord
    _verified: builtins.set[str] = field(default_factory=builtins.set, repr=False, compare=False)

    @property
    def digest(self) -> str:
        return self.record.digest

    @property
    def source(self) -> str:
        """ "simulated" or "prepared"."""
        return self.record.source

    @property
    def grid(self) -> Grid:
        return self.record.grid

    def set(self, role: str) -> VolumeSet:
        """The volumes of one role, in cohort order. Cheap: voxels are read, and verified once, when asked for."""
        chosen = [volume for volume in self.record.volumes if role in volume.roles]
        return VolumeSet(
            name=role,
            names=tuple(volume.name for volume in chosen),
            digests=tuple(volume.digest for volume in chosen),
            shape=self.grid.shape,
            load=lambda i: dequantise(self._verified_voxels(chosen[i])),
            affine=tuple(map(tuple, self.grid.affine.tolist())),
        )

    @cached_property
    def train_mean(self) -> np.ndarray:
        """Voxel-wise mean `[D,H,W]` of the training volumes, in float64 sums; the first use reads all of them."""
        volumes = self.set("train")
        total = np.zeros(volumes.shape)
        for i in range(len(volumes)):
            total += volumes[i]
        return (total / len(volumes)).astype(np.float32)

    def altered(self) -> list[str]:
        """Names of volumes whose voxels no longer have the recorded digest (or cannot be read); reads all of them."""
        volumes = self.record.volumes
        return [v.name for v in volumes if not is_intact(self.folder, v.name, v.digest, self.grid)]

    def _verified_voxels(self, volume: VolumeEntry) -> np.ndarray:
        voxels = read_voxels(self.folder, volume.name)
        if volume.name not in self._verified:
            if digest_volume(voxels, self.grid.affine) != volume.digest:
                raise MribenchError(
                    f"{volume_path(self.folder, volume.name)} must be the volume that volumes.json records, but its "
                    "voxels differ. Restore it, or make the cohort again in a new bench."
                )
            self._verified.add(volume.name)
        return voxels


def open_cohort(folder: Path) -> Cohort:
    """The finished cohort in that folder; raises MribenchError when there is none or its record is damaged."""
    path = folder / "volumes.json"
    if not path.exists():
        raise MribenchError(
            f"{folder} must hold a cohort, but has no volumes.json. Run: mribench prepare SRC"
        )
    return Cohort(folder, CohortRecord.read(path))


def volume_path(folder: Path, name: str) -> Path:
    """Where a cohort in `folder` keeps the uint16 voxels `[D,H,W]` of a volume."""
    return folder / "volumes" / f"{name}.npy"


def read_voxels(folder: Path, name: str) -> np.ndarray:
    """The uint16 voxels `[D,H,W]` of a volume, mapped into memory; raises MribenchError when they cannot be read."""
    path = volume_path(folder, name)
    try:
        voxels: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MribenchError(f"{path} must be a readable volume of the cohort, but: {error}") from error
    if voxels.dtype != np.uint16:
        raise MribenchError(f"{path} must hold uint16 voxels, but holds {voxels.dtype}.")
    return voxels


def is_intact(folder: Path, name: str, digest: str, grid: Grid) -> bool:
    """Whether the voxels on disk have the digest, and the file's seal, if it has one, is whole."""
    try:
        check_seal(volume_path(folder, name))
        return digest_volume(read_voxels(folder, name), grid.affine) == digest
    except (MribenchError, OSError):
        return False
