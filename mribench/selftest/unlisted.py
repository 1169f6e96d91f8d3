"""Adversaries of the same classes as the listed ones, but other cases: only to test, never to set a threshold."""

from __future__ import annotations

import numpy as np

from mribench.data.simulate import Planted
from mribench.selftest.alterations import (
    Alteration,
    axes_exchanged,
    dosed,
    flipped,
    gamma,
    in_turn,
    rotated,
    scaled,
    shifted,
    warped,
)
from mribench.selftest.degradations import bias_field, blur, noise_in_brain
from mribench.selftest.entrants import (
    Adversary,
    Kind,
    Make,
    altered,
    averaged,
    by_name,
    changed_anatomy,
    half,
    mixed_slices,
    mosaic,
    of_role,
    repeated,
    with_fresh,
)
from mribench.selftest.real_volumes import RealVolumes

_BLOCKS = 4  # of a mosaic, along each axis


def _noise(sd: float) -> Alteration:
    return dosed(noise_in_brain, sd)


def _blocks(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    """Every block of a mosaic is of a training volume drawn for it."""
    shape = real.grid.shape
    places = [np.arange(side) * _BLOCKS // side for side in shape]
    sources = rng.integers(len(real.train), size=(_BLOCKS,) * 3)[np.ix_(*places)]
    volume = np.empty(shape, dtype=np.float32)
    for source in np.unique(sources):
        volume[sources == source] = real.train[source][sources == source]
    return volume


def _every_fourth_plane(shape: tuple[int, ...]) -> np.ndarray:
    """Every fourth plane of each view, the central ones included."""
    indices = [(axis - side // 2) % 4 == 0 for axis, side in zip(np.indices(shape), shape, strict=True)]
    return np.any(indices, axis=0)


def _every_other_slice(shape: tuple[int, ...]) -> np.ndarray:
    return np.indices(shape, sparse=True)[0] % 2 == 0


def _core(shape: tuple[int, ...]) -> np.ndarray:
    """The middle half of each axis."""
    inside = [abs(axis - side / 2) < side / 4 for axis, side in zip(np.indices(shape), shape, strict=True)]
    return np.all(inside, axis=0)


def _copied_core(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(_core(real.grid.shape), real.of("train", i), real.of("fresh", i))


def _mean_with_noise(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    return noise_in_brain(real.train_mean, 0.02, rng)


_disguise = in_turn(gamma(0.85), shifted, _noise(0.03))

# name, title, kind, dose, what is wrong, how it is made
_ROWS: tuple[tuple[str, str, Kind, str, str, Make], ...] = (
    ("strong_noise_copies", "Training copies, noisier", "cheat", "SD 0.05",
     "Every volume is a training volume with noise.", altered("train", _noise(0.05))),
    ("blurred_copies", "Training copies, blurred", "cheat", "SD 0.7 voxel",
     "Every volume is a blurred training volume.", altered("train", dosed(blur, 0.7))),
    ("biased_copies", "Training copies with a bias field", "cheat", "RMS of log 0.1",
     "Every volume is a training volume times a smooth random factor.", altered("train", dosed(bias_field, 0.1))),
    ("brighter_copies", "Training copies, brighter", "cheat", "x 1.1",
     "Every volume is a training volume with more brightness.", altered("train", scaled(1.1))),
    ("disguised_copies", "Training copies, disguised", "cheat", "gamma 0.85, 1 voxel, noise 0.03",
     "Every volume is a training volume with several changes.", altered("train", _disguise)),
    ("mirrored_rotated_copies", "Training copies, mirrored and rotated", "cheat", "3 degrees",
     "Every volume is a mirrored and turned training volume.", altered("train", in_turn(flipped(2), rotated(3)))),
    ("warped_copies_one", "Training copies, warped", "cheat", "RMS 1 voxel",
     "Every volume is a training volume, smoothly deformed.", altered("train", warped(1))),
    ("blends", "Blend of two training volumes", "cheat", "70 % and 30 %",
     "Every volume is a mixture of two training volumes.", averaged(0.7)),
    ("top_and_bottom", "Top and bottom halves", "cheat", "two halves",
     "The lower half is of one training volume, the upper half of another.", mosaic("train", half(0))),
    ("front_and_back", "Front and back halves", "cheat", "two halves",
     "The back half is of one training volume, the front half of another.", mosaic("train", half(1))),
    ("blocks", "Blocks of training volumes", "cheat", "4 x 4 x 4 blocks",
     "Every block is of a training volume drawn for it.", _blocks),
    ("copied_core", "Copied core", "cheat", "middle half of each axis",
     "The middle of every volume is of a training volume, the rest is fresh.", _copied_core),
    ("interleaved", "Interleaved slices", "cheat", "every other axial slice",
     "Axial slices are by turns of one training volume and of another.", mosaic("train", _every_other_slice)),
    ("sagittal_slices", "Every sagittal slice from another subject", "cheat", "all sagittal slices",
     "Neighbouring sagittal slices belong to different subjects.", mixed_slices(2)),
    ("many_planes", "Many real planes, rest upside down", "cheat", "every fourth plane of each view",
     "Between planes of one subject is another subject, upside down.",
     mosaic("fresh", _every_fourth_plane, flipped(0))),
    ("noisy_holdout_copies", "Held-out copies, noisy", "cheat", "SD 0.02",
     "Every volume is a held-out volume with noise.", altered("holdout", _noise(0.02))),
    ("shifted_holdout_copies", "Held-out copies, shifted", "cheat", "1 voxel on each axis",
     "Every volume is a held-out volume at another place.", altered("holdout", shifted)),
    ("mirrored_reference", "Reference copies, mirrored", "cheat", "left-right",
     "Every volume is a reference volume with left and right exchanged.", altered("reference", flipped(2))),
    ("disguised_reference", "Reference copies, disguised", "cheat", "gamma 0.85, 1 voxel, noise 0.03",
     "Every volume is a reference volume with several changes.", altered("reference", _disguise)),
    ("noisy_repeats", "Eight subjects repeated with noise", "cheat", "8 subjects, SD 0.02",
     "All volumes show the same eight fresh subjects, each time with other noise.", repeated(8, _noise(0.02))),
    ("mean_with_noise", "Mean volume with noise", "cheat", "SD 0.02",
     "Every volume is the mean training volume with other noise.", _mean_with_noise),
    ("half_turn", "Half a turn", "cheat", "180 degrees",
     "Fresh volumes are turned in the axial plane.", altered("fresh", in_turn(flipped(1), flipped(2)))),
    ("axes_exchanged", "Axes exchanged", "cheat", "front-back and left-right",
     "The two axes of every axial slice of fresh volumes are exchanged.", altered("fresh", axes_exchanged)),
    ("gamma", "Other gamma", "defect", "gamma 0.6",
     "Fresh volumes have another contrast.", altered("fresh", gamma(0.6))),
    ("narrow_ventricles", "Narrow ventricles", "defect", "-3 mm",
     "The walls of the lateral ventricles of fresh volumes are moved inwards.",
     changed_anatomy(Planted(ventricle_mm=-3))),
    ("minority_disguised", "A minority of disguised copies", "minority", "15 %",
     "Some volumes are training volumes with several changes, the others are fresh.",
     altered("train", _disguise, 0.15)),
    ("minority_half_brains", "A minority of half brains", "minority", "15 %",
     "Some volumes are joined from two training volumes, the others are fresh.",
     with_fresh(mosaic("train", half(2)), 0.15)),
    ("minority_holdout", "A minority of held-out copies", "minority", "15 %",
     "Some volumes are held-out volumes, the others are fresh.",
     with_fresh(of_role("holdout"), 0.15)),
)  # fmt: skip
UNLISTED = by_name(Adversary(*row) for row in _ROWS)
