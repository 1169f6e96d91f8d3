"""The common voxel grid of a cohort, and the two intensity ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

PAPER_FOV_MM = (176.0, 176.0, 128.0)  # Peng 2023: 128 voxels of 1.375 x 1.375 x 1.0 mm
# MNI152 world position of the centre: the top edge (z = +82) clears the crown, the lowest cerebellum is cut.
_FOV_CENTRE_MM = (0.0, -18.0, 18.0)


class Grid(BaseModel):
    """A cubic voxel grid in world millimetres, RAS+; sizes in voxels, spacing and origin as (x, y, z) in mm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]  # world position of the centre of voxel (0, 0, 0)

    @property
    def affine(self) -> np.ndarray:
        """The 4 x 4 matrix from (i, j, k) = (W, H, D) indices to world millimetres."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = self.origin_mm
        return affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(D, H, W)`."""
        return (self.size,) * 3


def paper_grid(size: int) -> Grid:
    """The paper's field of view (176 x 176 x 128 mm) cut into `size`^3 voxels, placed over the MNI152 brain."""
    fov = np.array(PAPER_FOV_MM)
    spacing = fov / size
    origin = np.array(_FOV_CENTRE_MM) - fov / 2 + spacing / 2
    return Grid.model_validate({"size": size, "spacing_mm": spacing.tolist(), "origin_mm": origin.tolist()})


def index_map(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix `[3,3]` and offset `[3]` from [D,H,W] indices of the `target` affine to those of the `source` affine."""
    to_source = np.linalg.inv(source) @ target
    return to_source[:3, :3][::-1, ::-1], to_source[:3, 3][::-1]


def to_model_range(volume: Any) -> Any:
    """[0,1] -> [-1,1]; background 0 becomes -1."""
    return volume * 2 - 1


def from_model_range(batch: Any) -> Any:
    """[-1,1] -> [0,1]; values outside are clipped."""
    return ((batch + 1) / 2).clip(0, 1)


def quantise(volume: np.ndarray) -> np.ndarray:
    """[0,1] float -> uint16 with value = x / 65535 (the form on disk)."""
    return np.round(np.clip(volume, 0, 1) * 65535).astype(np.uint16)


def dequantise(voxels: np.ndarray) -> np.ndarray:
    """uint16 -> float32 in [0,1]."""
    return voxels.astype(np.float32) / np.float32(65535)
