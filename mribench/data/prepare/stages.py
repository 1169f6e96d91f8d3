"""One raw scan through the recipe's stages: mask, denoise, N4, mask, affine to MNI152, one interpolation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from mribench.data.formats import digest_scan, read_scan
from mribench.data.grid import Grid, quantise
from mribench.data.nifti import NiftiVolume
from mribench.data.prepare.builder import Product
from mribench.data.prepare.layouts import Scan
from mribench.data.prepare.quality import border_contact, brain_dice
from mribench.data.prepare.recipe import BiasCorrection, Denoising, Masking, RawRecipe
from mribench.data.prepare.registration import one_thread, register
from mribench.data.prepare.stripped import remarks, resample
from mribench.data.records import RawRecord
from mribench.errors import MribenchError
from mribench.files import digest_volume

_MARGIN = 6  # voxels around the brain that are kept
_POSSIBLE_CM3 = (200.0, 6000.0)  # beyond this no stage makes sense; the recipe's own limits are narrower
_GRID_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Brain:
    """A scan with its mask, both `[D,H,W]`."""

    scan: NiftiVolume
    mask: np.ndarray


def process_raw(scan: Scan, mask_file: Path | None, grid: Grid, recipe: RawRecipe) -> Product:
    """Take one scan through every stage that is not done yet; the same input gives the same voxels.

    Raises MribenchError with the reason when the scan cannot be used.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        head = read_scan(scan.path)
    masking = recipe.masking.model_copy(update={"by": _masked_by(scan, recipe)})
    with _timed(seconds, "mask"):
        mask = brain_mask(head, masking, mask_file)
    cm3 = _checked_cm3(mask, head, scan)
    border_cm2, border = border_contact(mask, head.affine)
    saturated = float((head.data[mask] == head.data.max()).mean())
    brain = cropped(head, mask)
    with _timed(seconds, "denoise"):
        noise_sd = measured_noise(brain)
        brain = denoised(brain, noise_sd, recipe.denoising)
    with _timed(seconds, "bias"):
        brain, bias_range = unbiased(brain, recipe.bias)
    stages = [f"mask: {masking.by}", "denoise", "N4"]
    with _timed(seconds, "affine"):
        affine = np.eye(4)
        if recipe.registration is not None and "registered" not in scan.done:
            affine = register(brain.scan, recipe.registration)
            stages.append("affine")
    with _timed(seconds, "resample"):
        moved = replace(brain.scan, affine=affine @ brain.scan.affine)
        volume, measures = resample(moved, grid, recipe.volume)
        dice = brain_dice(brain.mask, moved.affine)
    voxels = quantise(volume)
    measures |= {"brain_cm3": cm3, "oblique": head.oblique, "spacing_mm": head.spacing_mm}
    measures["negative_fraction"] = float((head.data < 0).mean())
    measures["problems"] = remarks(head, measures)
    record = RawRecord(
        **scan.labels(),
        sha256=digest_scan(scan.path),
        digest=digest_volume(voxels, grid.affine),
        stages=tuple(stages),
        mask_sha256=digest_scan(mask_file) if mask_file else "",
        saturated_fraction=saturated,
        noise_sd=noise_sd,
        bias_range=bias_range,
        affine=tuple(tuple(float(x) for x in row) for row in affine),
        determinant=float(np.linalg.det(affine[:3, :3])),
        dice=dice,
        border_cm2=border_cm2,
        border=border,
        **measures,
    )
    return Product(voxels, record, seconds)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the stage's seconds; what a library raises becomes a MribenchError that names the stage.

    Raises MemoryError when the stage failed for want of memory.
    """
    start = time.perf_counter()
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, IndexError, np.linalg.LinAlgError) as error:
        if "allocat" in str(error):  # how torch and ITK say it
            raise MemoryError(str(error)) from error
        detail = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise MribenchError(f"the stage {stage!r} must succeed, but: {detail} Look at the scan.") from error
    seconds[stage] = time.perf_counter() - start


def _masked_by(scan: Scan, recipe: RawRecipe) -> str:
    done = "stripped" in scan.done and recipe.masking.by == "deepbet"
    return "values above 0" if done else recipe.masking.by


def brain_mask(head: NiftiVolume, masking: Masking, mask_file: Path | None = None) -> np.ndarray:
    """Boolean `[D,H,W]`: the brain, in one piece and without holes."""
    if masking.by == "given mask":
        assert mask_file is not None
        mask = _given_mask(head, mask_file)
    elif masking.by == "deepbet":
        mask = _deepbet_mask(head.data, masking.threshold)
    else:
        mask = head.data > 0
    if not mask.any():
        raise MribenchError("a scan must hold a brain, but its mask is empty.")
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled: np.ndarray = ndimage.binary_fill_holes(mask)
    return filled


def _given_mask(head: NiftiVolume, mask_file: Path) -> np.ndarray:
    mask = read_scan(mask_file)
    if mask.data.shape != head.data.shape or np.abs(mask.affine - head.affine).max() > _GRID_TOLERANCE:
        raise MribenchError(
            f"a mask must lie on its scan's voxels, but {mask_file.name} is {mask.data.shape} against "
            f"{head.data.shape}, or has another affine. Make it from this very file."
        )
    return mask.data > 0.5


def _deepbet_mask(head: np.ndarray, threshold: float) -> np.ndarray:
    network = _deepbet()
    probability = network.run_model(np.ascontiguousarray(head.T))
    mask: np.ndarray = network.postprocess(probability > threshold)
    return np.ascontiguousarray(mask.T)


@lru_cache(maxsize=1)
def _deepbet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit.load, which deepbet calls
        from deepbet.bet import BrainExtraction

        return BrainExtraction(no_gpu=True)  # on a CPU, so that everybody gets the same voxels


def _checked_cm3(mask: np.ndarray, head: NiftiVolume, scan: Scan) -> float:
    cm3 = float(mask.sum() * abs(np.linalg.det(head.affine[:3, :3])) / 1000)
    if not _POSSIBLE_CM3[0] <= cm3 <= _POSSIBLE_CM3[1]:
        raise MribenchError(
            f"a brain must have about 900 to 2100 cm3, but that of {scan.name} has {cm3:.0f} at "
            f"{' x '.join(f'{s:.3g}' for s in head.spacing_mm)} mm. Check its spacing and its mask."
        )
    return cm3


def cropped(head: NiftiVolume, mask: np.ndarray) -> Brain:
    """The box around the mask, with a margin; negative values become 0."""
    box = tuple(
        slice(max(s.start - _MARGIN, 0), s.stop + _MARGIN) for s in ndimage.find_objects(mask.astype(int))[0]
    )
    shift = np.eye(4)
    shift[:3, 3] = [s.start for s in box[::-1]]
    data = np.maximum(head.data[box], 0)
    return Brain(replace(head, data=np.ascontiguousarray(data), affine=head.affine @ shift), mask[box])


def measured_noise(brain: Brain) -> float:
    """SD of the noise in the brain: median |Haar diagonal detail| / 0.6745 (Donoho & Johnstone 1994)."""
    detail = brain.scan.data.astype(np.float64)
    for axis in range(3):
        detail = np.diff(detail, axis=axis) / np.sqrt(2)
    return float(np.median(np.abs(detail[brain.mask[:-1, :-1, :-1]])) / 0.6745)


def denoised(brain: Brain, noise_sd: float, settings: Denoising) -> Brain:
    """Non-local means inside the mask, 0 outside; a scan without measurable noise stays as it is."""
    data = np.where(brain.mask, brain.scan.data, 0)
    if noise_sd > 0:
        from dipy.denoise.nlmeans import nlmeans

        data = nlmeans(
            brain.scan.data.astype(np.float64),
            sigma=noise_sd,
            mask=brain.mask,
            patch_radius=settings.patch_radius,
            block_radius=settings.block_radius,
            rician=True,
            num_threads=1,
        )
    return replace(brain, scan=replace(brain.scan, data=np.asarray(data, dtype=np.float32)))


@one_thread()
def unbiased(brain: Brain, settings: BiasCorrection) -> tuple[Brain, float]:
    """The scan divided by its N4 bias field, masked; and the field's 99th over its 1st percentile."""
    import SimpleITK as sitk

    image, mask = sitk.GetImageFromArray(brain.scan.data), sitk.GetImageFromArray(brain.mask.astype(np.uint8))
    for grid in (image, mask):
        grid.SetSpacing(brain.scan.spacing_mm)
    shrink = [max(1, round(settings.shrink_mm / s)) for s in brain.scan.spacing_mm]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(list(settings.iterations))
    corrector.Execute(sitk.Shrink(image, shrink), sitk.Shrink(mask, shrink))
    logarithm = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    low, high = np.percentile(logarithm[brain.mask], [1, 99])
    data = np.where(brain.mask, brain.scan.data / np.exp(logarithm), 0).astype(np.float32)
    return replace(brain, scan=replace(brain.scan, data=data)), float(np.exp(high - low))
