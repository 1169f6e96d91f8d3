"""The common voxel grid of a cohort, and the two intensity ranges."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

Sides = tuple[int, int, int]  # voxels along x, y and z: left-right, front-back, up-down
PAPER_FOV_MM = (176.0, 176.0, 128.0)  # Peng 2023: 128 voxels of 1.375 x 1.375 x 1.0 mm
# MNI152 world position of the centre: the top edge (z = +82) clears the crown, the lowest cerebellum is cut.
_FOV_CENTRE_MM = (0.0, -18.0, 18.0)


class Box(BaseModel):
    """How many voxels a volume has: `size` a side of a cube; of any other box the field `SIDES` = (x, y, z) besides.

    `size` is then the longest side, and need not be given. A cube is written without `SIDES`, whichever way it was
    given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    SIDES: ClassVar[str] = "shape"

    size: int

    @property
    def sides(self) -> Sides:
        """Voxels along x, y and z."""
        sides: Sides | None = getattr(self, self.SIDES)
        return sides or (self.size, self.size, self.size)

    @property
    def is_cube(self) -> bool:
        """Whether all sides have as many voxels."""
        return len(set(self.sides)) == 1

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """`(D, H, W)`: `sides` as arrays have them."""
        x, y, z = self.sides
        return z, y, x

    @model_validator(mode="before")
    @classmethod
    def _read_sides(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get(cls.SIDES) is None:
            return values
        sides = tuple(np.atleast_1d(np.asarray(values[cls.SIDES], dtype=object)).tolist())
        if len(sides) != 3 or not all(type(side) is int and side > 0 for side in sides):
            raise ValueError(
                f"{cls.SIDES} must be three whole numbers of voxels, [left-right, front-back, up-down]"
            )
        longest = max(sides)
        if values.get("size", longest) != longest:
            raise ValueError(f"size must be absent beside {cls.SIDES}, or {longest}, its longest side")
        return {**values, "size": longest, cls.SIDES: None if len(set(sides)) == 1 else sides}

    @model_serializer(mode="wrap")
    def _write_sides(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if written.get(self.SIDES) is None:  # so that records and digests of cubes stay what they were
            written.pop(self.SIDES, None)
        return written


class Grid(Box):
    """A voxel grid in world millimetres, RAS+; voxels, spacing and origin as (x, y, z), the last two in mm."""

    SIDES: ClassVar[str] = "voxels"

    voxels: Sides | None = None
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
        return self.array_shape

    def described(self) -> str:
        """Voxels and their millimetres along x, y and z: "144 x 192 x 160 voxels of 1 x 1 x 1 mm"."""
        voxels, spacing = (" x ".join(f"{n:.10g}" for n in of) for of in (self.sides, self.spacing_mm))
        return f"{voxels} voxels of {spacing} mm"

    @property
    def longest_mm(self) -> float:
        """The longest side of the field of view."""
        return max(n * mm for n, mm in zip(self.sides, self.spacing_mm, strict=True))


def paper_grid(voxels: int | Sides) -> Grid:
    """The paper's field of view (176 x 176 x 128 mm) cut into voxels, placed over the MNI152 brain.

    `voxels` along x, y and z, or one number for all three.
    """
    sides = (voxels,) * 3 if isinstance(voxels, int) else voxels
    fov = np.array(PAPER_FOV_MM)
    spacing = fov / np.array(sides)
    origin = np.array(_FOV_CENTRE_MM) - fov / 2 + spacing / 2
    return Grid.model_validate(
        {"voxels": sides, "spacing_mm": spacing.tolist(), "origin_mm": origin.tolist()}
    )


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
