"""Affine registration of a stripped brain to the MNI152 template, seeded and on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from mribench.data.nifti import NiftiVolume
from mribench.data.prepare.quality import template
from mribench.data.prepare.recipe import Registration


@contextmanager
def one_thread() -> Iterator[None]:
    """All of ITK on one thread: sums over threads end in other last bits from run to run."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@one_thread()
def register(brain: NiftiVolume, settings: Registration) -> np.ndarray:
    """The `[4,4]` affine that takes world mm of `brain` (0 outside it) to MNI152 world mm.

    Raises RuntimeError, from ITK, when the optimiser leaves the brain.
    """
    import SimpleITK as sitk

    fixed, around = _template_images(settings.around_brain_mm)
    turn, turned = _upright(brain)
    moving = _image(turned)
    affine = sitk.AffineTransform(
        sitk.CenteredTransformInitializer(
            fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
    )
    method = _method(around, settings)
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, moving)
    # The optimum leads to the image's own world, which lacks the shear that ITK cannot hold; `turn` restores it.
    return np.asarray(np.linalg.inv(_matrix(affine)) @ turn)


def _method(around: Any, settings: Registration) -> Any:
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(settings.bins)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel(list(settings.sampled), settings.seed)
    method.SetMetricFixedMask(around)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(list(settings.shrink))
    method.SetSmoothingSigmasPerLevel(list(settings.smoothing_mm))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetOptimizerAsRegularStepGradientDescent(
        settings.first_step_mm,
        settings.last_step_mm,
        settings.iterations,
        relaxationFactor=settings.relaxation,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    return method


def _upright(brain: NiftiVolume) -> tuple[np.ndarray, NiftiVolume]:
    """`brain` with the nearest affine that has right angles, and the `[4,4]` from its world to that one's."""
    sides = np.linalg.norm(brain.affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(brain.affine[:3, :3] / sides)
    affine = brain.affine.copy()
    affine[:3, :3] = (u @ v) * sides
    return affine @ np.linalg.inv(brain.affine), replace(brain, affine=affine)


def _image(volume: NiftiVolume) -> Any:
    """`[D,H,W]` as an ITK image. Both images are given in RAS mm, so no axis has to be turned to ITK's LPS."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(volume.data)
    sides = np.linalg.norm(volume.affine[:3, :3], axis=0)
    image.SetSpacing(sides.tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    image.SetDirection((volume.affine[:3, :3] / sides).ravel().tolist())
    return image


@lru_cache(maxsize=2)
def _template_images(around_brain_mm: int) -> tuple[Any, Any]:
    """The template and the voxels within so many mm of its brain."""
    import SimpleITK as sitk

    mni = template()
    near = distance_transform_edt(mni.data == 0) <= around_brain_mm
    around = _image(NiftiVolume(near.astype(np.float32), mni.affine, mni.spacing_mm, oblique=False))
    return _image(mni), sitk.Cast(around, sitk.sitkUInt8)


def _matrix(transform: Any) -> np.ndarray:
    """`[4,4]` of an ITK affine: y = A (x - c) + c + t."""
    linear, centre = np.array(transform.GetMatrix()).reshape(3, 3), np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - linear @ centre
    return matrix
