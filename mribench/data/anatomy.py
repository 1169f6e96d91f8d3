"""The anatomy that every simulated brain starts from: MNI152 tissue maps and the lateral ventricles.

Source: the MNI ICBM152 2009a nonlinear symmetric template (Fonov et al. 2011), as shipped inside nilearn.
All arrays are `[D,H,W]`, the RAS+ array transposed; all points are world millimetres `(x, y, z)`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from scipy import ndimage
from torch import Tensor

TEMPLATE_ORIGIN_MM = (-98.0, -134.0, -72.0)
# MNI millimetres (x, y, z) that hold the lateral ventricles and no cistern: a seed without this box
# leaks into the basal cisterns.
VENTRICLE_BOX_MM = ((-30, 30), (-52, 37), (4, 33))
VENTRICLE_REACH_MM = 14.0  # tissue farther than this from a ventricle hardly follows its wall
HULL_REACH_MM = 10.0
DISTANCE_SMOOTHING_MM = 3.0  # at 2 mm a warp that widens the ventricles by 4 mm can fold


@dataclass(frozen=True)
class Lattice:
    """A regular lattice of world points: origin `(x, y, z)` and spacing `(x, y, z)` in mm, shape `(D, H, W)`."""

    origin_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]

    def points(self) -> Tensor:
        """World millimetres of every node, float32 `[D,H,W,3]`."""
        axes = [
            origin + spacing * torch.arange(count, dtype=torch.float32)
            for origin, spacing, count in zip(self.origin_mm, self.spacing_mm, self.shape[::-1], strict=True)
        ]
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        return torch.stack([x, y, z], dim=-1)

    def sample(self, fields: Tensor, points: Tensor, outside: str = "border") -> Tensor:
        """Fields `[C,D,H,W]` on this lattice, trilinearly at world points `[...,3]`: `[C,...]`.

        Beyond the lattice: the nearest node ("border") or nothing ("zeros").
        """
        extent = torch.tensor(self.spacing_mm) * (torch.tensor(self.shape[::-1]) - 1)
        unit = (points.reshape(-1, 3) - torch.tensor(self.origin_mm)) * (2 / extent) - 1
        values = functional.grid_sample(
            fields[None], unit[None, None, None], padding_mode=outside, align_corners=True
        )
        return values.reshape(len(fields), *points.shape[:-1])


@dataclass(frozen=True)
class Anatomy:
    """The template, ready to be warped.

    `maps` is `[5,D,H,W]`: probabilities of CSF, GM and WM (they sum to 1 in the brain, 0 outside), the T1
    residual (T1 minus the mix of class means; keeps the contrast of the deep grey nuclei) and the brain mask.
    `class_means` are the T1 intensities of CSF, GM and WM, with WM = 1.
    """

    lattice: Lattice
    maps: Tensor
    class_means: tuple[float, float, float]


@functools.cache
def mni_anatomy() -> Anatomy:
    """The MNI152 anatomy at 1 mm; loaded once per process (about 3 s)."""
    t1, gm, wm = _load_maps()
    mask = (t1 > 0).astype(np.float32)
    tissues = np.stack([np.clip(1 - gm - wm, 0, 1), gm, wm]) * mask
    tissues /= np.maximum(tissues.sum(axis=0), 1e-6)
    means = np.array([t1[tissue > 0.9].mean() for tissue in tissues])
    means, t1 = means / means[2], t1 / means[2]
    residual = (t1 - np.tensordot(means, tissues, axes=1)) * mask
    maps = torch.from_numpy(np.concatenate([tissues, [residual, mask]]).astype(np.float32))
    lattice = Lattice(TEMPLATE_ORIGIN_MM, (1.0, 1.0, 1.0), tuple(t1.shape))
    return Anatomy(lattice, maps, tuple(float(mean) for mean in means))


def _load_maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # nilearn takes seconds to import, so only those who simulate pay for it.
    from nilearn import datasets

    images = [
        datasets.load_mni152_template(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
    ]
    t1, gm, wm = (image.get_fdata(dtype=np.float32).T for image in images)
    return t1, gm, wm


def _signed_distance(inside: np.ndarray) -> np.ndarray:
    """Distance to the border of `inside` in mm, negative inside, smoothed so that its gradient has no creases."""
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    return ndimage.gaussian_filter(distance.astype(np.float32), DISTANCE_SMOOTHING_MM)


def _lateral_ventricles(anatomy: Anatomy) -> np.ndarray:
    points = anatomy.lattice.points().numpy()
    box = np.ones(anatomy.lattice.shape, dtype=bool)
    for axis, (low, high) in enumerate(VENTRICLE_BOX_MM):
        box &= (points[..., axis] >= low) & (points[..., axis] <= high)
    fluid = ndimage.binary_opening((anatomy.maps[0].numpy() > 0.5) & box)
    labels, _ = ndimage.label(fluid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.isin(labels, np.argsort(sizes)[-2:])


def ventricle_field(lattice: Lattice) -> Tensor:
    """Unit vectors towards the lateral ventricles, fading with distance, on `lattice`: `[3,D,H,W]`."""
    anatomy = mni_anatomy()
    distance = _signed_distance(_lateral_ventricles(anatomy))
    inward = -np.stack(np.gradient(distance)[::-1])
    inward *= np.exp(-((np.maximum(distance, 0) / VENTRICLE_REACH_MM) ** 2))
    return anatomy.lattice.sample(torch.from_numpy(inward), lattice.points())


def hull_field(lattice: Lattice) -> Tensor:
    """Unit normals of the brain's outer surface, fading away from it, on `lattice`: `[3,D,H,W]`."""
    anatomy = mni_anatomy()
    distance = _signed_distance(anatomy.maps[4].numpy() > 0.5)
    normals = np.stack(np.gradient(distance)[::-1]) * np.exp(-((distance / HULL_REACH_MM) ** 2) / 2)
    return anatomy.lattice.sample(torch.from_numpy(normals), lattice.points())
