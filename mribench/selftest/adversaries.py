"""Adversarial entrants, made from a cohort's own volumes: what a ranking must hold back, and what it must not.

Volume i of an entrant is made from the real volumes and a random generator of its own. Fresh volumes stand for what a
perfect generator makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mribench.runtime import derive
from mribench.selftest.alterations import (
    Alteration,
    displaced,
    dosed,
    flipped,
    gamma,
    hemispheres_exchanged,
    inverted,
    rotated,
    scaled,
    shifted,
    towards_ventricles,
    warped,
    without_sphere,
)
from mribench.selftest.degradations import COPY_NOISE, bias_field, blur, noise_in_brain
from mribench.selftest.real_volumes import RealVolumes, Role

DISTINCT = 5  # subjects of the entrant that repeats itself

Kind = Literal["perfect", "honest", "cheat", "defect", "minority"]
Make = Callable[[RealVolumes, int, np.random.Generator], np.ndarray]
Mask = Callable[[tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Adversary:
    """An entrant whose merit is known: `wrong` says in one sentence what is wrong with it, `dose` how strongly."""

    name: str
    title: str
    kind: Kind
    dose: str
    wrong: str
    make: Make

    def volumes(self, real: RealVolumes, seed: int) -> np.ndarray:
        """As many volumes as there are fresh ones, float32 `[N,D,H,W]` in [0,1]."""
        made = [
            self.make(real, i, np.random.default_rng(derive(seed, "adversary", self.name, i)))
            for i in range(len(real.fresh))
        ]
        return np.clip(np.stack(made), 0, 1).astype(np.float32)


def _real(role: Role) -> Make:
    return lambda real, i, rng: real.of(role, i)


def _altered(role: Role, alteration: Alteration, share: float = 1.0) -> Make:
    """The first `share` of the volumes, at least one, are altered ones of a role; the others are fresh."""

    def make(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        is_altered = i < max(1, round(share * len(real.fresh)))
        return alteration(real.of(role, i), rng) if is_altered else real.of("fresh", i)

    return make


def _mosaic(role: Role, mask: Mask, alter_rest: Alteration | None = None) -> Make:
    """The voxels in `mask` are of one subject, the rest of another."""

    def make(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        volume, rest = real.of(role, i), real.other(role, i)
        return np.where(mask(volume.shape), volume, alter_rest(rest, rng) if alter_rest else rest)

    return make


def _left_half(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.arange(shape[2]) < shape[2] // 2, shape)


def _central_planes(shape: tuple[int, ...]) -> np.ndarray:
    """The three planes whose features the metrics compare."""
    planes = np.zeros(shape, dtype=bool)
    planes[shape[0] // 2] = planes[:, shape[1] // 2] = planes[:, :, shape[2] // 2] = True
    return planes


def _mixed_slices(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    subjects = len(real.fresh)
    return np.stack([real.of("fresh", (i + z) % subjects)[z] for z in range(real.grid.shape[0])])


def _average(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    return (real.of("train", i) + real.other("train", i)) / 2


def _repeats(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    return real.of("fresh", i % DISTINCT)


def _towards_mean(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    return 0.75 * real.of("fresh", i) + 0.25 * real.train_mean


def _wide_ventricles(millimetres: float, left_only: bool = False) -> Make:
    """The walls of the lateral ventricles are moved outwards by a warp, as in `simulate`."""

    def make(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        return displaced(real.of("fresh", i), millimetres * towards_ventricles(real.grid, left_only))

    return make


_noisy_copy = dosed(noise_in_brain, COPY_NOISE)

_ENTRANTS = (
    Adversary("fresh", "Fresh subjects", "perfect", "–", "Nothing is wrong.", _real("fresh")),
    Adversary(
        "blur",
        "Blur",
        "honest",
        "SD 0.5 voxel",
        "Fresh volumes are slightly blurred.",
        _altered("fresh", dosed(blur, 0.5)),
    ),
    Adversary(
        "noise",
        "Noise",
        "honest",
        "SD 0.03",
        "Fresh volumes have white noise in the brain.",
        _altered("fresh", dosed(noise_in_brain, 0.03)),
    ),
    Adversary(
        "towards_mean",
        "Towards the mean",
        "honest",
        "a quarter of the way",
        "Fresh volumes are mixed with the mean training volume.",
        _towards_mean,
    ),
    Adversary(
        "bias_field",
        "Bias field",
        "honest",
        "RMS of log 0.05",
        "Fresh volumes are multiplied by a smooth random factor.",
        _altered("fresh", dosed(bias_field, 0.05)),
    ),
    Adversary(
        "noisy_copies",
        "Training copies, noisy",
        "cheat",
        "SD 0.01",
        "Every volume is a training volume with a little noise.",
        _altered("train", _noisy_copy),
    ),
    Adversary(
        "darker_copies",
        "Training copies, darker",
        "cheat",
        "x 0.9",
        "Every volume is a training volume with less brightness.",
        _altered("train", scaled(0.9)),
    ),
    Adversary(
        "half_copies",
        "Half copies, half fresh",
        "cheat",
        "50 %, noise 0.01",
        "Half of the volumes are training volumes with a little noise.",
        _altered("train", _noisy_copy, 0.5),
    ),
    Adversary(
        "rotated_copies",
        "Training copies, rotated",
        "cheat",
        "2 degrees",
        "Every volume is a training volume turned in the axial plane.",
        _altered("train", rotated(2)),
    ),
    Adversary(
        "gamma_copies",
        "Training copies, other gamma",
        "cheat",
        "gamma 0.8",
        "Every volume is a training volume with another contrast.",
        _altered("train", gamma(0.8)),
    ),
    Adversary(
        "mirrored_copies",
        "Training copies, mirrored",
        "cheat",
        "left-right",
        "Every volume is a training volume with left and right exchanged.",
        _altered("train", flipped(2)),
    ),
    Adversary(
        "shifted_copies",
        "Training copies, shifted",
        "cheat",
        "1 voxel on each axis",
        "Every volume is a training volume at another place.",
        _altered("train", shifted),
    ),
    Adversary(
        "warped_copies_half",
        "Training copies, warped",
        "cheat",
        "RMS 0.5 voxel",
        "Every volume is a training volume, smoothly deformed.",
        _altered("train", warped(0.5)),
    ),
    Adversary(
        "warped_copies_two",
        "Training copies, warped",
        "cheat",
        "RMS 2 voxels",
        "Every volume is a training volume, smoothly deformed.",
        _altered("train", warped(2)),
    ),
    Adversary(
        "averaged_copies",
        "Average of two training volumes",
        "cheat",
        "50 % each",
        "Every volume is a mixture of two training volumes.",
        _average,
    ),
    Adversary(
        "reference_copies",
        "Reference copies",
        "cheat",
        "exact",
        "Every volume is one of the volumes that it is compared with.",
        _real("reference"),
    ),
    Adversary(
        "holdout_copies",
        "Held-out copies",
        "cheat",
        "exact",
        "Every volume is a held-out volume.",
        _real("holdout"),
    ),
    Adversary(
        "half_brains",
        "Half brains",
        "cheat",
        "left and right",
        "The left half is of one training volume, the right half of another.",
        _mosaic("train", _left_half),
    ),
    Adversary(
        "real_planes",
        "Real central planes, rest another subject",
        "cheat",
        "3 planes",
        "Only the three planes that are compared belong to one subject.",
        _mosaic("fresh", _central_planes),
    ),
    Adversary(
        "real_planes_inverted",
        "Real central planes, rest upside down",
        "cheat",
        "3 planes",
        "All but the three planes that are compared is another subject, upside down.",
        _mosaic("fresh", _central_planes, flipped(0)),
    ),
    Adversary(
        "training_planes",
        "Training planes, rest another training volume",
        "cheat",
        "3 planes",
        "The three planes that are compared are of one training volume, the rest of another.",
        _mosaic("train", _central_planes),
    ),
    Adversary(
        "mixed_slices",
        "Every slice from another subject",
        "cheat",
        "all axial slices",
        "Neighbouring axial slices belong to different subjects.",
        _mixed_slices,
    ),
    Adversary(
        "upside_down",
        "Upside down",
        "cheat",
        "top-bottom",
        "Fresh volumes lie in another orientation.",
        _altered("fresh", flipped(0)),
    ),
    Adversary(
        "front_back",
        "Front and back exchanged",
        "cheat",
        "front-back",
        "Fresh volumes lie in another orientation.",
        _altered("fresh", flipped(1)),
    ),
    Adversary(
        "hemispheres_exchanged",
        "Hemispheres exchanged",
        "cheat",
        "left and right",
        "Each half of a fresh volume lies at the place of the other half.",
        _altered("fresh", hemispheres_exchanged),
    ),
    Adversary(
        "repeats",
        "Five subjects repeated",
        "cheat",
        "5 subjects",
        "All volumes show the same five fresh subjects.",
        _repeats,
    ),
    Adversary(
        "contrast_inverted",
        "Contrast inverted",
        "defect",
        "1 - intensity",
        "Dark tissue of fresh volumes is bright and bright tissue dark.",
        _altered("fresh", inverted),
    ),
    Adversary(
        "sphere",
        "A sphere zeroed",
        "defect",
        "radius 1/8 of the side",
        "Fresh volumes have a hole in the left hemisphere.",
        _altered("fresh", without_sphere),
    ),
    Adversary(
        "rotated",
        "Rotated",
        "defect",
        "5 degrees",
        "Fresh volumes are all turned in the axial plane by the same angle.",
        _altered("fresh", rotated(5)),
    ),
    Adversary(
        "wide_ventricles",
        "Wide ventricles",
        "defect",
        "3 mm",
        "The walls of the lateral ventricles of fresh volumes are moved outwards.",
        _wide_ventricles(3),
    ),
    Adversary(
        "asymmetry",
        "Asymmetry",
        "defect",
        "5 mm, left only",
        "The left lateral ventricle of fresh volumes is wide, the right one is as it was.",
        _wide_ventricles(5, left_only=True),
    ),
    Adversary(
        "minority_10",
        "A minority of copies",
        "minority",
        "10 %, noise 0.01",
        "One volume in ten is a training volume with a little noise, the others are fresh.",
        _altered("train", _noisy_copy, 0.1),
    ),
    Adversary(
        "minority_25",
        "A minority of copies",
        "minority",
        "25 %, noise 0.01",
        "One volume in four is a training volume with a little noise, the others are fresh.",
        _altered("train", _noisy_copy, 0.25),
    ),
    Adversary(
        "minority_shifted",
        "A minority of shifted copies",
        "minority",
        "10 %, 1 voxel on each axis",
        "One volume in ten is a training volume at another place, the others are fresh.",
        _altered("train", shifted, 0.1),
    ),
)
ADVERSARIES: dict[str, Adversary] = {
    entrant.name: entrant for entrant in _ENTRANTS if entrant.kind != "honest"
}
HONEST: dict[str, Adversary] = {entrant.name: entrant for entrant in _ENTRANTS if entrant.kind == "honest"}
