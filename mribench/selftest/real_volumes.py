"""The real volumes of a cohort, split so that entrants can be made from some that no other role uses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mribench.data.cohort import Cohort
from mribench.data.grid import Grid
from mribench.data.prepare.simulated import is_simulated_now, simulated_again
from mribench.data.simulate import Planted
from mribench.data.volume_set import VolumeSet
from mribench.errors import UsageError
from mribench.files import digest_json, read_array, write_array

FEWEST = 10  # volumes of an entrant, so that a minority of 10 % is one volume

Role = Literal["train", "reference", "holdout", "fresh"]


@dataclass(frozen=True)
class RealVolumes:
    """Real volumes by role. `fresh` ones, as many as an entrant has, are of subjects that no other role shows.

    `simulated_again` gives fresh volume i with something planted; None unless the present simulator made the cohort.
    """

    train: VolumeSet
    reference: VolumeSet
    holdout: VolumeSet
    fresh: VolumeSet
    grid: Grid
    simulated_again: Callable[[int, Planted], np.ndarray] | None = None

    def of(self, role: Role, i: int) -> np.ndarray:
        """Volume i `[D,H,W]` of a role."""
        volumes: VolumeSet = getattr(self, role)
        return volumes[i]

    def other(self, role: Role, i: int) -> np.ndarray:
        """The volume of another subject of that role: half the role's volumes further on."""
        volumes: VolumeSet = getattr(self, role)
        return volumes[(i + len(volumes) // 2) % len(volumes)]

    @functools.cached_property
    def train_mean(self) -> np.ndarray:
        """Voxel-wise mean `[D,H,W]` of the training volumes."""
        mean: np.ndarray = self.train.stack().mean(axis=0, dtype=np.float64)
        return mean


def split(cohort: Cohort, most: int, folder: Path | None = None) -> RealVolumes:
    """Every other held-out volume, at most `most`, becomes fresh; every other one stays held out.

    Volumes that are simulated again are kept in `folder`.

    Raises UsageError unless there are 10 training, 10 reference and 20 held-out volumes and `most` is 10 or more.
    """
    train, reference, holdout = (cohort.set(role) for role in ("train", "reference", "holdout"))
    # No role is smaller than an entrant, so that an entrant of copies never contains the same volume twice.
    count = min(most, len(train), len(reference), len(holdout) // 2)
    if count < FEWEST:
        raise UsageError(
            f"The gauntlet needs {FEWEST} training, {FEWEST} reference and {2 * FEWEST} held-out volumes and --volumes "
            f"{FEWEST}, each at least, but there are {len(train)}, {len(reference)} and {len(holdout)}, with --volumes "
            f"{most}. Choose another --bench; a new folder gets a simulated cohort."
        )
    everyone = range(len(holdout))
    fresh = holdout.subset(everyone[::2][:count], "fresh")
    again = functools.partial(_again, cohort, fresh.names, folder) if is_simulated_now(cohort) else None
    return RealVolumes(train, reference, holdout.subset(everyone[1::2]), fresh, cohort.grid, again)


def _again(
    cohort: Cohort, names: tuple[str, ...], folder: Path | None, i: int, planted: Planted
) -> np.ndarray:
    if folder is None:
        return simulated_again(cohort, names[i], planted)
    key = digest_json([cohort.record.recipe, names[i], asdict(planted)])
    path = folder / f"planted-{key[:16]}.npy"
    volume = read_array(path, cohort.grid.shape[0])
    if volume is None:
        volume = simulated_again(cohort, names[i], planted)
        write_array(path, volume)
    return volume
