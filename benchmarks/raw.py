"""Does `prepare --raw` give back a brain that is known, and in what time?

    OMP_NUM_THREADS=1 python benchmarks/raw.py [--subjects 6]

Simulated subjects are drawn whole (the cohort's own lie cut in the field of view) at 1 mm, get a skull, a scalp,
a neck and a face of random soft tissue, a bias field, Rician noise and a random rigid pose that the file does not
state, and go through the recipe as anybody's scan, with deepbet's mask and with the true mask.

The truth is the clean brain (true mask, no bias, no noise) on the protocol's grid. Affine registration to MNI152 has
no true answer, so it is placed in two ways:
- "end to end": by its own registration in its own pose. What a user gets: whatever the scanner and the pose did, the
  same person must come out the same.
- "same place": by the recovered registration, through the known pose: what mask, N4, denoising and interpolation do.
Then Colin27 (Debian's mricron-data), a real head, if it is installed, and registration of turned heads.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from provenance import machine, peak_gib
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter

from mribench.data import simulate as sim
from mribench.data.anatomy import Lattice
from mribench.data.grid import dequantise, paper_grid
from mribench.data.nifti import NiftiVolume
from mribench.data.prepare.layouts import Scan
from mribench.data.prepare.quality import failures
from mribench.data.prepare.recipe import Masking, RawRecipe, Registration, backend_versions
from mribench.data.prepare.registration import register
from mribench.data.prepare.stages import process_raw
from mribench.data.prepare.stripped import resample
from mribench.files import write_json

SEED, SIZE = 61, 128
LATTICE = Lattice((-100.0, -145.0, -130.0), (1.0, 1.0, 1.0), (235, 255, 200))
COLIN = Path("/usr/share/mricron/templates/ch2.nii.gz")
NOISE, BIAS_RMS, BIAS_MM = 0.03, 0.15, 70.0  # SD relative to the brightest brain; of the logarithm
TURN_DEGREES, SHIFT_MM = 12.0, 12.0  # largest, about and along each axis
BRAIN = 0.05  # voxels above this are brain


def clean_brain(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free brain in [0,1] and its mask, `[D,H,W]` on LATTICE, in the pose of the simulator."""
    traits = sim._draw_traits(sim._generator(SEED, index, "traits"))
    warp = sim._draw_warp(sim._generator(SEED, index, "warp"), traits.ventricle_mm)
    brain = sim._warped_brain(LATTICE, traits, warp, sim._generator(SEED, index, "folds"))
    tissues = sum(m * t for m, t in zip(traits.class_means, brain.tissues, strict=True))
    image = sim._normalised(tissues + sim.RESIDUAL_WEIGHT * brain.residual, brain.inside)
    return image.numpy(), brain.inside.numpy()


def head(brain: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The brain in a head: 2 mm of CSF, two tables of skull with marrow between, scalp, neck and face."""
    x, y, z = LATTICE.points().numpy().transpose(3, 0, 1, 2)
    depth = distance_transform_edt(~mask)
    lowest = z[mask].min()
    neck = (np.hypot(x, y + 35) < 52) & (z < lowest + 30)
    face = (x / 62) ** 2 + ((y - 30) / 62) ** 2 + ((z - lowest + 15) / 75) ** 2 < 1
    tissue = gaussian_filter(random.standard_normal(mask.shape), 4)
    soft = 0.45 + 0.12 * tissue / tissue.std()
    picture = np.where(neck | face, soft, 0.0)
    shells = ((14.0, 0.8), (9.5, 0.08), (7.0, 0.4), (5.0, 0.08), (2.5, 0.18))
    for reach, level in shells:
        picture[depth <= reach] = level
    return np.where(mask, brain, np.clip(picture, 0, 1)).astype(np.float32)


def rigid(random: np.random.Generator) -> np.ndarray:
    """A random pose `[4,4]`: from the scanner's world to the head's."""
    pose = np.eye(4)
    angles = np.deg2rad(random.uniform(-TURN_DEGREES, TURN_DEGREES, 3))
    pose[:3, :3] = sim._rotation(angles)
    pose[:3, 3] = random.uniform(-SHIFT_MM, SHIFT_MM, 3)
    return pose


def lattice_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = LATTICE.origin_mm
    return affine


def posed(image: np.ndarray, pose: np.ndarray, order: int) -> np.ndarray:
    """`image` on the voxels of LATTICE, as of a scanner in which the head is turned by `pose`."""
    affine = lattice_affine()
    matrix = np.linalg.inv(affine) @ pose @ affine
    return affine_transform(image, matrix[:3, :3][::-1, ::-1], matrix[:3, 3][::-1], order=order)


def scanned(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """With a bias field and Rician noise, in scanner units."""
    field = gaussian_filter(random.standard_normal(picture.shape), BIAS_MM / 2.355, mode="wrap")
    signal = picture * np.exp(BIAS_RMS * field / field.std())
    real, imaginary = NOISE * random.standard_normal((2, *picture.shape))
    return (700 * np.hypot(signal + real, imaginary)).astype(np.float32)


def save(array: np.ndarray, path: Path) -> None:
    """`[D,H,W]` as NIfTI, stored from right to left as many scanners do."""
    affine = lattice_affine() @ np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[0, 3] = LATTICE.origin_mm[0] + array.shape[2] - 1
    nib.save(nib.Nifti1Image(array.T[::-1], affine), path)


def placed(brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The clean brain on the grid, its world taken to MNI152 by `affine`."""
    source = NiftiVolume(brain, affine @ lattice_affine(), (1.0, 1.0, 1.0), oblique=False)
    return resample(source, paper_grid(SIZE), RawRecipe().volume)[0]


def agreement(volume: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Brain Dice, and Pearson correlation inside the true brain."""
    a, b = volume > BRAIN, truth > BRAIN
    return {
        "dice": float(2 * (a & b).sum() / (a.sum() + b.sum())),
        "correlation": float(np.corrcoef(volume[b], truth[b])[0, 1]),
    }


def one(index: int, folder: Path) -> dict[str, Any]:
    """One subject, with deepbet's mask and with the true one."""
    random = np.random.default_rng([SEED, index])
    brain, mask = clean_brain(index)
    pose = rigid(random)
    save(scanned(np.clip(posed(head(brain, mask, random), pose, 1), 0, 1), random), folder / "head.nii.gz")
    save((posed(mask.astype(np.float32), pose, 1) > 0.5).astype(np.uint8), folder / "mask.nii.gz")
    clean = NiftiVolume(brain, lattice_affine(), (1.0, 1.0, 1.0), oblique=False)
    own = register(clean, Registration())
    truth = placed(brain, own)
    inside = LATTICE.points().numpy()[mask][::997]
    found: dict[str, Any] = {"index": index}
    for name, recipe, mask_file in (
        ("deepbet", RawRecipe(), None),
        ("true mask", RawRecipe(masking=Masking(by="given mask")), folder / "mask.nii.gz"),
    ):
        cpu, wall = time.process_time(), time.perf_counter()
        product = process_raw(Scan(folder / "head.nii.gz", "head", "s"), mask_file, paper_grid(SIZE), recipe)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        volume = dequantise(product.voxels)
        to_mni = np.array(product.record.affine) @ np.linalg.inv(pose)
        apart = inside @ (to_mni - own)[:3, :3].T + (to_mni - own)[:3, 3]
        found[name] = {
            "end_to_end": agreement(volume, truth),
            "same_place": agreement(volume, placed(brain, to_mni)),
            "registrations_apart_mm": float(np.linalg.norm(apart, axis=1).mean()),
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "stage_seconds": product.seconds,
            "quality": quality(product.record),
        }
    return found


def quality(record: Any) -> dict[str, Any]:
    """The measures of quality control, and what they would refuse."""
    names = ("dice", "template_correlation", "brain_cm3", "determinant", "border_cm2", "bias_range")
    return {name: getattr(record, name) for name in names} | {
        "failures": failures(record, RawRecipe().quality)
    }


def colin() -> dict[str, Any] | str:
    """Colin27 through the recipe."""
    if not COLIN.exists():
        return "not installed (Debian's mricron-data)"
    cpu, wall = time.process_time(), time.perf_counter()
    product = process_raw(Scan(COLIN, "ch2", "colin"), None, paper_grid(SIZE), RawRecipe())
    return {
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "stage_seconds": product.seconds,
        "quality": quality(product.record),
    }


def turned() -> list[dict[str, Any]]:
    """A clean brain in poses that the file does not state: how far its registration ends from the upright one's."""
    brain, mask = clean_brain(0)
    inside = LATTICE.points().numpy()[mask][::997]
    upright, result = None, []
    for degrees in ((0, 0, 0), (20, 10, -15), (35, 0, 0), (-35, 0, 0), (0, 0, 45), (60, 0, 0)):
        pose = np.eye(4)
        pose[:3, :3] = sim._rotation(np.deg2rad(degrees))
        pose[:3, 3] = (20, -30, 15)
        moved = NiftiVolume(brain, pose @ lattice_affine(), (1.0, 1.0, 1.0), oblique=True)
        affine = register(moved, Registration()) @ pose
        upright = affine if upright is None else upright
        apart = inside @ (affine - upright)[:3, :3].T + (affine - upright)[:3, 3]
        result.append({"degrees": degrees, "apart_mm": float(np.linalg.norm(apart, axis=1).mean())})
    return result


def summary(subjects: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst subject of every figure, and median seconds."""
    result: dict[str, Any] = {}
    for name in ("deepbet", "true mask"):
        runs = [subject[name] for subject in subjects]
        result[name] = {
            f"{way}_{measure}_min": min(run[way][measure] for run in runs)
            for way in ("end_to_end", "same_place")
            for measure in ("dice", "correlation")
        }
        result[name]["registrations_apart_mm_max"] = max(run["registrations_apart_mm"] for run in runs)
        for seconds in ("wall_seconds", "cpu_seconds"):
            result[name][f"{seconds}_median"] = float(np.median([run[seconds] for run in runs]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    subjects = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(arguments.subjects):
            subjects.append(one(index, Path(folder)))
            print(json.dumps(subjects[-1]), flush=True)
    result = {
        "command": "OMP_NUM_THREADS=1 python " + " ".join(sys.argv),
        "threads": 1,
        "n": len(subjects),
        "summary": summary(subjects),
        "colin27": colin(),
        "turned": turned(),
        "peak_gib_with_the_making_of_heads": peak_gib(),
        "subjects": subjects,
        "machine": machine(),
        "backends": backend_versions(),
        "recipe": RawRecipe().digest,
    }
    write_json(Path(__file__).resolve().parent / "results" / "raw.json", result)
    print(json.dumps({k: v for k, v in result.items() if k != "subjects"}, indent=1))


if __name__ == "__main__":
    main()
