"""What an entrant of the gauntlet is, and how its volumes are made from a cohort's own.

Volume i of an entrant is made from the real volumes and a random generator of its own. Fresh volumes stand for what a
perfect generator makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mribench.data.simulate import Planted
from mribench.runtime import derive
from mribench.selftest.alterations import Alteration, displaced, towards_ventricles
from mribench.selftest.real_volumes import RealVolumes, Role

Kind = Literal["perfect", "honest", "cheat", "defect", "minority"]
Make = Callable[[RealVolumes, int, np.random.Generator], np.ndarray]
Mask = Callable[[tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Adversary:
    """An entrant whose merit is known: `wrong` says in one sentence what is wrong with it, `dose` how strongly.

    `needs_simulator`: it is possible only for a cohort that the present simulator made.
    """

    name: str
    title: str
    kind: Kind
    dose: str
    wrong: str
    make: Make
    needs_simulator: bool = False

    def volumes(self, real: RealVolumes, seed: int) -> np.ndarray:
        """As many volumes as there are fresh ones, float32 `[N,D,H,W]` in [0,1]."""
        made = [
            self.make(real, i, np.random.default_rng(derive(seed, "adversary", self.name, i)))
            for i in range(len(real.fresh))
        ]
        return np.clip(np.stack(made), 0, 1).astype(np.float32)


def by_name(entrants: Iterable[Adversary]) -> dict[str, Adversary]:
    """Name -> entrant."""
    return {entrant.name: entrant for entrant in entrants}


def of_role(role: Role) -> Make:
    """The volumes of a role as they are."""
    return lambda real, i, rng: real.of(role, i)


def altered(role: Role, alteration: Alteration, share: float = 1.0) -> Make:
    """The first `share` of the volumes, at least one, are altered ones of a role; the others are fresh."""
    return with_fresh(lambda real, i, rng: alteration(real.of(role, i), rng), share)


def with_fresh(make: Make, share: float) -> Make:
    """The first `share` of the volumes, at least one, are made so; the others are fresh."""

    def mixed(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        is_made = i < max(1, round(share * len(real.fresh)))
        return make(real, i, rng) if is_made else real.of("fresh", i)

    return mixed


def mosaic(role: Role, mask: Mask, alter_rest: Alteration | None = None) -> Make:
    """The voxels in `mask` are of one subject, the rest of another."""

    def make(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        volume, rest = real.of(role, i), real.other(role, i)
        return np.where(mask(volume.shape), volume, alter_rest(rest, rng) if alter_rest else rest)

    return make


def half(axis: int) -> Mask:
    """The lower half of the indices of one axis."""
    return lambda shape: np.indices(shape, sparse=True)[axis] < shape[axis] // 2


def central_planes(shape: tuple[int, ...]) -> np.ndarray:
    """The central plane of each view."""
    planes = np.zeros(shape, dtype=bool)
    planes[shape[0] // 2] = planes[:, shape[1] // 2] = planes[:, :, shape[2] // 2] = True
    return planes


def mixed_slices(axis: int) -> Make:
    """Every slice along an axis is of another fresh subject."""

    def make(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        subjects = len(real.fresh)
        places = range(real.grid.shape[axis])
        slices = [np.take(real.of("fresh", (i + place) % subjects), place, axis) for place in places]
        return np.stack(slices, axis)

    return make


def averaged(weight: float) -> Make:
    """A training volume times `weight` plus another one times the rest."""
    return lambda real, i, rng: weight * real.of("train", i) + (1 - weight) * real.other("train", i)


def repeated(subjects: int, alteration: Alteration | None = None) -> Make:
    """Only the first fresh subjects, again and again, each time altered."""

    def make(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        volume = real.of("fresh", i % subjects)
        return alteration(volume, rng) if alteration else volume

    return make


def towards_mean(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
    """A fresh volume, a quarter of the way to the mean training volume."""
    return 0.75 * real.of("fresh", i) + 0.25 * real.train_mean


def changed_anatomy(planted: Planted) -> Make:
    """Fresh subjects with something planted: simulated again or, of ventricles in other cohorts, by a warp."""

    def make(real: RealVolumes, i: int, rng: np.random.Generator) -> np.ndarray:
        if real.simulated_again:
            return real.simulated_again(i, planted)
        both, left = (towards_ventricles(real.grid, left_only) for left_only in (False, True))
        field = planted.ventricle_mm * both + planted.left_ventricle_mm * left
        return displaced(real.of("fresh", i), field)

    return make
