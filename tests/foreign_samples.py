"""Volumes stored as five published codes store theirs: shapes, axes, affines, intensities, file names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from mribench.data.grid import Grid
from mribench.data.interpolation import interpolate

Store = Callable[[Path, Sequence[np.ndarray], Grid], None]


def on_world_grid(
    volume: np.ndarray, grid: Grid, shape: Sequence[int], spacing: Sequence[float]
) -> np.ndarray:
    """`[X,Y,Z]` in RAS order, centred on the bench's field of view; shape and spacing (mm) as (x, y, z)."""
    affine = np.diag([*spacing, 1.0])
    centre = grid.affine @ [*((np.array(grid.shape[::-1]) - 1) / 2), 1]
    affine[:3, 3] = centre[:3] - np.array(spacing) * (np.array(shape) - 1) / 2
    x, y, z = shape
    return interpolate(volume, grid.affine, affine, (z, y, x), 0.6).T


def identity(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """The bench's own voxels in RAS order under an identity affine."""
    for i, volume in enumerate(volumes):
        nib.save(nib.Nifti1Image(volume.T, np.eye(4)), folder / f"s{i}.nii.gz")


def mni_2mm(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """MNI152 at 2 mm, 91 x 109 x 91, axes LPS with a true affine, float32 from -1 to 1."""
    affine = np.array([[-2.0, 0, 0, 90], [0, -2, 0, 90], [0, 0, 2, -72], [0, 0, 0, 1]])
    upright = affine @ np.array([[-1, 0, 0, 90], [0, -1, 0, 108], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    for i, volume in enumerate(volumes):
        stored = interpolate(volume, grid.affine, upright, (91, 109, 91), 0.6).T[::-1, ::-1]
        nib.save(nib.Nifti1Image((2 * stored - 1).astype(np.float32), affine), folder / f"s{i}.nii.gz")


def hagan_arrays(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """One .npy of `[N,1,S,S,S]` in [-1,1], axes up-down, front-back, left-right, as the generator gives them."""
    np.save(folder / "fake.npy", (2 * np.stack(volumes)[:, None] - 1).astype(np.float32))


def hagan_images(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """NIfTI of (x + 1) / 2 with the axes reversed and an identity affine, as train.py makes them."""
    for i, volume in enumerate(volumes):
        nib.save(nib.Nifti1Image(volume.transpose(2, 1, 0), np.eye(4)), folder / f"fake_{i}.nii.gz")


def med_ddpm(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """image/N_MASK.nii.gz, float32 in [-1,1], shape and affine of a mask (here in MNI152, axes RAS, 1.5 mm)."""
    shape, spacing = (128, 128, 128), (1.5, 1.5, 1.5)
    centre = (grid.affine @ [*((np.array(grid.shape[::-1]) - 1) / 2), 1])[:3]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre - np.array(spacing) * (np.array(shape) - 1) / 2
    for i, volume in enumerate(volumes):
        stored = 2 * on_world_grid(volume, grid, shape, spacing) - 1
        nib.save(nib.Nifti1Image(stored.astype(np.float32), affine), folder / f"{i + 1}_msk_1.nii.gz")


def wdm(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """128^3 of 2 mm in LPS order under an identity affine, float32, a little beyond [0,1] everywhere."""
    rng = np.random.default_rng(0)
    for i, volume in enumerate(volumes):
        stored = on_world_grid(volume, grid, (128, 128, 128), (2, 2, 2))[::-1, ::-1]
        noisy = stored + rng.normal(0, 0.01, stored.shape)
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), np.eye(4)), folder / f"sample_{i}_0.nii.gz")


def brain_ldm(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """160 x 224 x 160 of 1 mm in LAS order, written as MONAI's SaveImage writes `sample[0][0]`."""
    for i, volume in enumerate(volumes):
        sample = on_world_grid(volume, grid, (160, 224, 160), (1, 1, 1))[::-1].astype(np.float32)
        stored = np.moveaxis(sample, 0, -1)[:, :, None]
        image = nib.Nifti1Image(stored, np.eye(4))
        nib.save(image, folder / f"0_sample_{i:06d}_27112026_0.0_0.1_0.2_0.4.nii.gz")


def maisi(folder: Path, volumes: Sequence[np.ndarray], grid: Grid) -> None:
    """256 x 256 x 128 int16 from 0 to about 1000, voxel size in the affine, the first voxel at 0 0 0."""
    spacing = (0.8, 1.0, 1.5)
    for i, volume in enumerate(volumes):
        data = np.int16(1010 * on_world_grid(volume, grid, (256, 256, 128), spacing))
        name = f"unet_3d_seed{i}_size256x256x128_spacing0.80x1.00x1.50_20261127_rank0_modality9.nii.gz"
        nib.save(nib.Nifti1Image(data, np.diag([*spacing, 1.0])), folder / name)


CODES: dict[str, tuple[str, Store]] = {  # what is stored -> (preset, how)
    "hagan arrays": ("hagan", hagan_arrays),
    "hagan images": ("hagan", hagan_images),
    "med-ddpm": ("med-ddpm", med_ddpm),
    "wdm": ("wdm", wdm),
    "brain-ldm": ("brain-ldm", brain_ldm),
    "maisi": ("maisi", maisi),
}
