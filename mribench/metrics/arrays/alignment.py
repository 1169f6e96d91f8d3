"""Volumes on a coarse grid, brought into the frame of a mean volume: place, size and brightness no longer differ.

A volume and its moved, turned, zoomed, brighter or darker copy get nearly the same voxels in the frame. Each volume is
aligned to the mean alone, so the cost grows with the number of volumes and not with the number of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE_SIDE = 32  # most voxels along an axis of the coarse grid
BATCH = 32  # volumes that are aligned together
_ITERATIONS = 6
_BLUR = 1.5  # SD in coarse voxels of what is aligned
_IN_BRAIN = 0.1  # of the blurred mean volume, in [0,1]
_DAMPING = 1e-4  # of the mean diagonal, for slabs, whose slices hardly say how they are tilted

DEFINITION = f"affine-to-mean/1|side:{COARSE_SIDE}|iterations:{_ITERATIONS}|blur:{_BLUR}|mask:{_IN_BRAIN}"


def coarse(volume: Tensor) -> Tensor:
    """`[D,H,W]` -> means of cubes, so that no side is longer than 32."""
    factors = tuple(-(-side // COARSE_SIDE) for side in volume.shape)
    if max(factors) == 1:
        return volume
    return F.avg_pool3d(volume[None], factors, ceil_mode=True, count_include_pad=False)[0]


def blurred(volumes: Tensor, sd: float) -> Tensor:
    """A Gaussian of `sd` voxels over `[N,D,H,W]`; nothing comes in from outside."""
    for axis in (1, 2, 3):
        places = torch.arange(volumes.shape[axis], dtype=torch.float32)
        kernel = torch.exp(-((places[:, None] - places) ** 2) / (2 * sd**2)) / (sd * (2 * torch.pi) ** 0.5)
        volumes = (volumes.transpose(axis, 3) @ kernel).transpose(axis, 3)
    return volumes


@dataclass(frozen=True)
class Frame:
    """What volumes are aligned to: `mean` is the mean `[D,H,W]` of real volumes on the coarse grid."""

    mean: Tensor

    @cached_property
    def mask(self) -> Tensor:
        """The brain, `[D,H,W]` bool with V voxels."""
        return blurred(self.mean[None], 1.0)[0] > _IN_BRAIN

    def poses(self, volumes: Tensor) -> Tensor:
        """The affine maps `[N,3,4]` from the frame to each volume on the coarse grid, in voxels from the centre.

        By Gauss-Newton's method, in the frame's slopes.
        """
        moving = blurred(volumes, _BLUR)
        poses = torch.eye(3, 4).repeat(len(volumes), 1, 1)
        for _ in range(_ITERATIONS):
            apart = (self._warped(moving, poses) - self._target).flatten(1)
            step = apart @ self._slopes @ self._solution
            step = step / (1 + step[:, 12:]).clamp(0.5, 2)  # of the volume's own brightness
            linear = torch.eye(3) - step[:, :9].reshape(-1, 3, 3).clamp(-0.1, 0.1)
            shift = -step[:, 9:12, None].clamp(-1.5, 1.5)
            poses = torch.cat(
                [poses[:, :, :3] @ linear, poses[:, :, :3] @ shift + poses[:, :, 3:]],
                dim=2,
            )
        return poses

    def forms(self, volumes: Tensor, poses: Tensor | None = None) -> Tensor:
        """Volumes `[N,D,H,W]` on the coarse grid -> their voxels in the brain as they lie and aligned, `[N,2,V]`.

        `poses`: theirs, where they are known already.
        """
        aligned = self._warped(volumes, self.poses(volumes) if poses is None else poses)
        return torch.stack([self.matched(volumes), self.matched(aligned)], dim=1)

    def matched(self, volumes: Tensor) -> Tensor:
        """`[N,D,H,W]` -> `[N,V]`: intensities in the brain replaced by those of the same rank in the mean volume."""
        values = volumes[:, self.mask].contiguous()
        order = values.sort(dim=1).values
        ranks = torch.searchsorted(order, values) + torch.searchsorted(order, values, right=True) - 1
        return (self._intensities[ranks // 2] + self._intensities[(ranks + 1) // 2]) / 2

    def filled(self, voxels: Tensor) -> Tensor:
        """Voxels in the brain `[N,V]` as volumes `[N,D,H,W]`, 0 outside."""
        volumes = torch.zeros(len(voxels), *self.mask.shape)
        volumes[:, self.mask] = voxels
        return volumes

    @cached_property
    def _intensities(self) -> Tensor:
        return self.mean[self.mask].sort().values

    @cached_property
    def _target(self) -> Tensor:
        return blurred(self.mean[None], _BLUR)[0]

    @cached_property
    def _places(self) -> Tensor:
        """Indices from the centre, `[3,D,H,W]`."""
        axes = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in self.mean.shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    @cached_property
    def _slopes(self) -> Tensor:
        """How the target's voxels follow the 12 numbers of an affine map, and a factor: `[voxels,13]`."""
        gradient = torch.stack(
            [
                torch.gradient(self._target, dim=axis)[0] if side > 1 else torch.zeros_like(self._target)
                for axis, side in enumerate(self.mean.shape)
            ]
        )
        turns = gradient[:, None] * self._places[None]
        return torch.cat([turns.flatten(0, 1), gradient, self._target[None]]).flatten(1).T.contiguous()

    @cached_property
    def _solution(self) -> Tensor:
        squares = (self._slopes.T @ self._slopes).double()
        scale = squares.diagonal().clamp(min=1e-12).rsqrt()
        unit = scale[:, None] * squares * scale + _DAMPING * torch.eye(13, dtype=torch.float64)
        inverse = scale[:, None] * torch.linalg.inv(unit) * scale
        return inverse.float()

    def _warped(self, volumes: Tensor, poses: Tensor) -> Tensor:
        points = (
            torch.einsum("nij,jdhw->ndhwi", poses[:, :, :3], self._places) + poses[:, None, None, None, :, 3]
        )
        half = torch.tensor([max(side - 1, 1) / 2 for side in self.mean.shape])
        return F.grid_sample(volumes[:, None], (points / half).flip(-1), align_corners=True)[:, 0]
