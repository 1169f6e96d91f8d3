"""A large simulated cohort, aligned once, from which the benchmarks of the gates draw benches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from scipy.ndimage import gaussian_filter, map_coordinates, rotate, shift

from mribench.data.simulate import simulate
from mribench.data.volume_set import VolumeSet
from mribench.metrics.arrays.alignment import BATCH, Frame, coarse
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features.anatomy import lattice_of, region_volumes
from mribench.metrics.features.seams import honest_changes, join_profile
from mribench.selftest.degradations import bias_field, noise_everywhere, noise_in_brain

SEED = 78
Alteration = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def people(folder: Path, size: int, count: int) -> np.ndarray:
    """Simulated subjects 0 to `count` - 1, `[N,D,H,W]` float16; kept in `folder`, continued after a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    path, progress = folder / f"people-{size}.npy", folder / f"count-{size}"
    if not path.exists():
        open_memmap(path, mode="w+", dtype=np.float16, shape=(count, size, size, size))
    volumes = np.load(path, mmap_mode="r+")
    first = int(progress.read_text()) if progress.exists() else 0
    for i in range(first, count):
        volumes[i] = simulate(SEED, i, size)[0]
        progress.write_text(str(i + 1))
    return volumes[:count]


def blur(sd: float) -> Alteration:
    return lambda volume, mean, rng: gaussian_filter(volume, sd)


def pull(share: float) -> Alteration:
    return lambda volume, mean, rng: (1 - share) * volume + share * mean


HONEST: dict[str, Alteration] = {
    "perfect": lambda volume, mean, rng: volume,
    "blur 0.5 voxel": blur(0.5),
    "noise 0.03 in the brain": lambda volume, mean, rng: noise_in_brain(volume, 0.03, rng),
    "a quarter to the mean": pull(0.25),
    "bias field 0.05": lambda volume, mean, rng: bias_field(volume, 0.05, rng),
}


def moved(voxels: int) -> Alteration:
    """Shifted by up to so many voxels an axis, by so many along at least one."""

    def alter(volume: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        steps = rng.integers(-voxels, voxels + 1, 3)
        steps[rng.integers(3)] = voxels * rng.choice([-1, 1])
        return shift(volume, steps, order=1)

    return alter


def turned(degrees: float) -> Alteration:
    """Rotated about one of the three axes, either way."""

    def alter(volume: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        axes = [(0, 1), (0, 2), (1, 2)][rng.integers(3)]
        return rotate(volume, degrees * rng.choice([-1, 1]), axes=axes, reshape=False, order=1)

    return alter


def warped(voxels: float) -> Alteration:
    """Deformed by a smooth random field with that RMS length; its smoothness is an eighth of the side."""

    def alter(volume: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        smooth = (0, *(np.array(volume.shape) / 8))
        field = gaussian_filter(rng.standard_normal((3, *volume.shape)), smooth, mode="wrap")
        field *= voxels / np.sqrt((field**2).sum(axis=0).mean())
        return map_coordinates(volume, np.indices(volume.shape) + field, order=1)

    return alter


def in_turn(*alterations: Alteration) -> Alteration:
    def alter(volume: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for each in alterations:
            volume = np.clip(each(volume, mean, rng), 0, 1)
        return volume

    return alter


def mirrored(volume: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return volume[:, :, ::-1]


def powered(exponent: float) -> Alteration:
    return lambda volume, mean, rng: volume**exponent


def scaled(factor: float) -> Alteration:
    return lambda volume, mean, rng: volume * factor


def noisy(sd: float) -> Alteration:
    return lambda volume, mean, rng: noise_everywhere(volume, sd, rng)


class Aligned:
    """What gates compare of any volumes in one fixed frame, computed once: `regions` are in ml."""

    def __init__(self, mean: np.ndarray) -> None:
        self.frame = Frame(coarse(torch.from_numpy(mean.astype(np.float32))))
        self.coarse: list[np.ndarray] = []
        self.forms: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self.poses: list[np.ndarray] = []
        self.joins: list[np.ndarray] = []
        self.regions: list[np.ndarray] = []
        self.lattice = lattice_of(mean.shape, None)
        self.honest_joins = np.zeros((0, 0))

    def add(self, volumes: Sequence[np.ndarray]) -> range:
        """Numbers of the volumes, float `[D,H,W]`."""
        first = len(self.coarse)
        if not first:  # as a bench's own people would say it
            self.honest_joins = honest_changes(lambda i: volumes[i].astype(np.float32), min(64, len(volumes)))
        for start in range(0, len(volumes), BATCH):
            clipped = [np.clip(v, 0, 1).astype(np.float32) for v in volumes[start : start + BATCH]]
            self.joins.extend(join_profile(volume) for volume in clipped)
            self.regions.extend(region_volumes(volume, self.lattice) for volume in clipped)
            batch = torch.stack([coarse(torch.from_numpy(volume)) for volume in clipped])
            self.coarse.extend(batch.numpy())
            self.poses.extend(self.frame.poses(batch).numpy())
            for side, forms in zip((batch, batch.flip(3)), self.forms, strict=True):
                forms.extend(self.frame.forms(side.contiguous()).numpy())
        return range(first, len(self.coarse))


class Bench(Arrays):
    """A bench of numbered volumes that are aligned already; the frame does not follow the training set."""

    def __init__(self, aligned: Aligned, **numbers: Sequence[int]) -> None:
        self.aligned, self.numbers = aligned, numbers
        shape = tuple(aligned.frame.mean.shape)
        sets = {name: _numbered(name, each, shape) for name, each in numbers.items()}
        super().__init__(sets, None)
        self.frame = aligned.frame

    def coarse(self, set_name: str) -> np.ndarray:
        return np.stack([self.aligned.coarse[i] for i in self.numbers[set_name]])

    def forms(self, set_name: str, mirrored: bool = False) -> np.ndarray:
        return np.stack([self.aligned.forms[mirrored][i] for i in self.numbers[set_name]])

    def poses(self, set_name: str, mirrored: bool = False) -> np.ndarray:
        assert not mirrored
        return np.stack([self.aligned.poses[i] for i in self.numbers[set_name]])

    def joins(self, set_name: str) -> np.ndarray:
        return np.stack([self.aligned.joins[i] for i in self.numbers[set_name]])

    def honest_joins(self, set_name: str) -> np.ndarray:
        return self.aligned.honest_joins

    def region_volumes(self, set_name: str) -> np.ndarray:
        return np.stack([self.aligned.regions[i] for i in self.numbers[set_name]])


def _numbered(name: str, numbers: Sequence[int], shape: tuple[int, ...]) -> VolumeSet:
    names = tuple(f"{i:06d}" for i in numbers)
    return VolumeSet(name, names, names, shape, load=lambda i: None)
