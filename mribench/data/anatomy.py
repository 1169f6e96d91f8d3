"""The anatomy that every simulated brain starts from: MNI152 tissue maps, lateral ventricles, outer surface.

Source: the MNI ICBM152 2009a nonlinear symmetric template (Fonov et al. 2011), as shipped inside nilearn.
Fields are `[C,D,H,W]`; points are world millimetres `(x, y, z)`, RAS+.
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
_CERTAIN = 0.9  # voxels of at least this probability give a tissue's mean intensity
# MNI millimetres (x, y, z) that hold the lateral ventricles and leave out the basal cisterns.
_VENTRICLE_BOX_MM = ((-30, 30), (-52, 37), (4, 33))
_VENTRICLE_REACH_MM = 14.0  # tissue farther than this from a ventricle hardly follows its wall
_HULL_REACH_MM = 10.0
_MIDLINE_MM = 10.0  # what is done to the left hemisphere alone fades out within this distance of the midline
_DISTANCE_SMOOTHING_MM = 3.0  # at 2 mm a warp that widens the ventricles by 4 mm can fold


@dataclass(frozen=True)
class Lattice:
    """A regular lattice of world points: origin and spacing `(x, y, z)` in mm, shape `(D, H, W)`."""

    origin_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]

    def points(self, affine: np.ndarray | None = None) -> Tensor:
        """World mm of every node, moved by the `[3,4]` affine if one is given: float32 `[D,H,W,3]`."""
        x, y, z = (
            origin + spacing * torch.arange(count, dtype=torch.float32)
            for origin, spacing, count in zip(self.origin_mm, self.spacing_mm, self.shape[::-1], strict=True)
        )
        # Sums of products and not a matrix product, whose rounding may depend on the number of threads.
        return torch.stack(
            [
                float(a) * x + float(b) * y[:, None] + float(c) * z[:, None, None] + float(shift)
                for a, b, c, shift in (np.eye(3, 4) if affine is None else affine)
            ],
            dim=-1,
        )

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

    `tissues` `[3,D,H,W]`: probabilities of CSF, GM and WM (their sum is 1 in the brain, 0 outside).
    `residual` `[1,D,H,W]`: T1 minus the mix of class means; keeps the contrast of the deep grey nuclei.
    `brain` `[1,D,H,W]`: 1 inside, 0 outside. `class_means`: T1 of CSF, GM and WM, with WM = 1.
    """

    lattice: Lattice
    tissues: Tensor
    residual: Tensor
    brain: Tensor
    class_means: tuple[float, float, float]


@functools.cache
def mni_anatomy() -> Anatomy:
    """The MNI152 anatomy at 1 mm; loaded once per process (about 3 s)."""
    t1, gm, wm = load_maps()
    brain = (t1 > 0).astype(np.float32)
    tissues = np.stack([np.clip(1 - gm - wm, 0, 1), gm, wm]) * brain
    tissues /= np.maximum(tissues.sum(axis=0), 1e-6)
    csf_mean, gm_mean, wm_mean = (float(t1[tissue > _CERTAIN].mean()) for tissue in tissues)
    means = np.array([csf_mean, gm_mean, wm_mean], dtype=np.float32) / np.float32(wm_mean)
    residual = (t1 / wm_mean - np.einsum("c,cdhw->dhw", means, tissues)) * brain
    return Anatomy(
        lattice=Lattice(TEMPLATE_ORIGIN_MM, (1.0, 1.0, 1.0), t1.shape),
        tissues=torch.from_numpy(tissues),
        residual=torch.from_numpy(residual.astype(np.float32))[None],
        brain=torch.from_numpy(brain)[None],
        class_means=(csf_mean / wm_mean, gm_mean / wm_mean, 1.0),
    )


def load_maps() -> list[np.ndarray]:
    """T1, grey and white matter maps of MNI152 at 1 mm, float32 `[D,H,W]` on TEMPLATE_ORIGIN_MM."""
    # nilearn takes seconds to import, so only those who simulate pay for it.
    from nilearn import datasets

    images = [
        datasets.load_mni152_template(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
    ]
    return [np.ascontiguousarray(image.get_fdata(dtype=np.float32).T) for image in images]


def _lateral_ventricles(anatomy: Anatomy) -> np.ndarray:
    points = anatomy.lattice.points().numpy()
    box = np.ones(anatomy.lattice.shape, dtype=bool)
    for axis, (low, high) in enumerate(_VENTRICLE_BOX_MM):
        box &= (points[..., axis] >= low) & (points[..., axis] <= high)
    fluid = ndimage.binary_opening((anatomy.tissues[0].numpy() > 0.5) & box)
    labels, _ = ndimage.label(fluid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.isin(labels, np.argsort(sizes)[-2:])


def _distance_and_normals(inside: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Distance `[D,H,W]` in mm to the border of `inside`, negative within, and its gradient `[3,D,H,W]`.

    Smoothed, so that the gradient has no creases; computed every 2 mm, interpolated to `lattice`.
    """
    inside = inside[::2, ::2, ::2]
    distance = ndimage.distance_transform_edt(~inside, 2) - ndimage.distance_transform_edt(inside, 2)
    distance = ndimage.gaussian_filter(distance.astype(np.float32), _DISTANCE_SMOOTHING_MM / 2)
    fields = torch.from_numpy(np.stack([distance, *np.gradient(distance, 2.0)[::-1]]))
    values = Lattice(TEMPLATE_ORIGIN_MM, (2.0, 2.0, 2.0), distance.shape).sample(fields, lattice.points())
    return values[0].numpy(), values[1:].numpy()


def ventricle_field(lattice: Lattice) -> Tensor:
    """Unit vectors towards the lateral ventricles, fading with distance, on `lattice`: `[3,D,H,W]`."""
    distance, outward = _distance_and_normals(_lateral_ventricles(mni_anatomy()), lattice)
    nearness = np.exp(-((np.maximum(distance, 0) / _VENTRICLE_REACH_MM) ** 2))
    return torch.from_numpy(-outward * nearness)


def left_weight(lattice: Lattice) -> Tensor:
    """1 in the left hemisphere, 0 in the right one, rising within 10 mm of the midline: `[D,H,W]`."""
    return (-lattice.points()[..., 0] / _MIDLINE_MM).clamp(0, 1)


def hull_field(lattice: Lattice) -> Tensor:
    """Unit normals of the brain's outer surface, fading away from it, on `lattice`: `[3,D,H,W]`."""
    distance, normals = _distance_and_normals(mni_anatomy().brain[0].numpy() > 0.5, lattice)
    return torch.from_numpy(normals * np.exp(-((distance / _HULL_REACH_MM) ** 2) / 2))
