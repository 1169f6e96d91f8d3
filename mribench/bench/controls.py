"""Entrants whose quality is known by construction: what a perfect model and what a cheat would score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from mribench.data.cohort import Cohort
from mribench.runtime import derive


@dataclass(frozen=True)
class Control:
    """`make(cohort, i, rng)` -> `[D,H,W]` in [0,1]; `draws_on` is the role whose size limits how many there are."""

    name: str
    title: str
    what: str
    draws_on: str | None
    make: Callable[[Cohort, int, np.random.Generator], np.ndarray]
    made_of_people: bool = True  # its volumes show real brains, where the cohort is not simulated


def _real_heldout(cohort: Cohort, i: int, rng: np.random.Generator) -> np.ndarray:
    return cohort.set("holdout")[i]


def _train_copy(cohort: Cohort, i: int, rng: np.random.Generator) -> np.ndarray:
    volume = cohort.set("train")[i]
    return np.clip(volume + rng.normal(0, 0.01, volume.shape), 0, 1).astype(np.float32)


def _mean_volume(cohort: Cohort, i: int, rng: np.random.Generator) -> np.ndarray:
    return cohort.train_mean


def _blurred_real(cohort: Cohort, i: int, rng: np.random.Generator) -> np.ndarray:
    volume = cohort.set("holdout")[i]
    return gaussian_filter(volume, 1.5 * len(volume) / 128)


def _noise(cohort: Cohort, i: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random(cohort.grid.shape, dtype=np.float32)


CONTROLS = {
    control.name: control
    for control in (
        Control(
            "real_heldout",
            "Held-out real volumes",
            "Real volumes that no model saw: the ceiling.",
            "holdout",
            _real_heldout,
        ),
        Control(
            "train_copy",
            "Copies of training volumes",
            "Training volumes plus noise of SD 0.01: the perfect memoriser.",
            "train",
            _train_copy,
        ),
        Control(
            "mean_volume",
            "Mean training volume",
            "The mean of all training volumes, again and again: full collapse.",
            None,
            _mean_volume,
        ),
        Control(
            "blurred_real",
            "Blurred real volumes",
            "Held-out volumes blurred by a Gaussian of 1.5 n/128 voxels.",
            "holdout",
            _blurred_real,
        ),
        Control(
            "noise",
            "Uniform noise",
            "Independent uniform values in [0,1]: the worst.",
            None,
            _noise,
            made_of_people=False,
        ),
    )
}


def available(cohort: Cohort, control: Control, wanted: int) -> int:
    """How many volumes of a control this cohort allows (0 = absent)."""
    return wanted if control.draws_on is None else min(wanted, len(cohort.set(control.draws_on)))


def make_volumes(cohort: Cohort, control: Control, seed: int) -> Callable[[Sequence[int]], np.ndarray]:
    """A function that makes the control's volumes of the given numbers, each from its own generator."""

    def make(numbers: Sequence[int]) -> np.ndarray:
        rng = [np.random.default_rng(derive(seed, "control", control.name, i)) for i in numbers]
        return np.stack([control.make(cohort, i, r) for i, r in zip(numbers, rng, strict=True)])

    return make


def possible_controls(cohort: Cohort, wanted: int) -> list[tuple[Control, int]]:
    """The controls that this cohort has volumes for, and how many of each."""
    counts = [(control, available(cohort, control, wanted)) for control in CONTROLS.values()]
    return [(control, count) for control, count in counts if count >= 2]
