"""Known faults in growing doses, which a good metric should notice.

Each function takes real volumes, a dose and one random generator per volume, and gives volumes in [0,1]. Dose 0
changes nothing. A volume's generator does not depend on the dose, so that a larger dose is more of the same fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from mribench.data.volume_set import VolumeSet
from mribench.runtime import derive

_SLAB_SLICES = 10  # cDPM makes slabs of ten slices (Peng 2023)
COPY_NOISE = 0.01  # in the brain only: noise in the background is noticed by itself
_BIAS_SMOOTHNESS = 6  # a bias field's SD in voxels is the side over this


@dataclass(frozen=True)
class Material:
    """Real volumes: `probes` are degraded, `spare` are further held-out subjects, `train` can be copied."""

    probes: VolumeSet
    spare: VolumeSet
    train: VolumeSet


_Generators = Sequence[np.random.Generator]
_OfVolume = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
_OfSet = Callable[[Material, float, _Generators], np.ndarray]


@dataclass(frozen=True)
class Degradation:
    """A fault with the doses at which it is tried, smallest first, and the unit of a dose."""

    name: str
    title: str
    unit: str
    doses: tuple[float, ...]
    function: _OfSet

    def apply(self, material: Material, dose: float, seed: int) -> np.ndarray:
        """The degraded probes, float32 `[N,D,H,W]` in [0,1]."""
        numbers = range(len(material.probes))
        generators = [np.random.default_rng(derive(seed, "degradation", self.name, i)) for i in numbers]
        return self.function(material, dose, generators)


def each(function: _OfVolume) -> _OfSet:
    """A fault of one volume as a fault of the set."""

    def of_set(material: Material, dose: float, generators: _Generators) -> np.ndarray:
        return np.stack([function(material.probes[i], dose, rng) for i, rng in enumerate(generators)])

    return of_set


def blur(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur; dose: SD in voxels."""
    blurred: np.ndarray = gaussian_filter(volume, dose)
    return blurred


def noise_in_brain(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """White noise where the volume is not 0; dose: SD."""
    return np.where(volume > 0, noise_everywhere(volume, dose, rng), volume)


def noise_everywhere(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """White noise in brain and background, clipped to [0,1]; dose: SD."""
    return np.clip(volume + dose * rng.standard_normal(volume.shape, dtype=np.float32), 0, 1)


def bias_field(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random factor, clipped to [0,1]; dose: RMS of its logarithm within the brain, whose mean is 0."""
    field = gaussian_filter(rng.standard_normal(volume.shape), np.array(volume.shape) / _BIAS_SMOOTHNESS)
    inside = volume > 0
    field = (field - field[inside].mean()) / field[inside].std()
    return np.clip(volume * np.exp(dose * field), 0, 1).astype(np.float32)


def intensity(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Darker by a factor; dose: fraction of the intensity that is lost."""
    return volume * np.float32(1 - dose)


def slice_shuffle(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Axial slices out of order; dose: slices, no slice moves that far."""
    places = np.arange(len(volume)) + dose * rng.random(len(volume))
    return volume[np.argsort(places, kind="stable")]


def seam_brightness(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Slabs of ten slices by turns brighter and darker, clipped to [0,1]; dose: relative step at a border."""
    factors = np.array([1 - dose / 2, 1 + dose / 2], dtype=np.float32)
    return np.clip(volume * factors[_slabs(len(volume), rng)][:, None, None], 0, 1)


def seam_shift(volume: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Every other slab of ten slices moved in the plane, filled up with 0; dose: voxels, along H or W, either way."""
    moved, axis, step = volume.copy(), 1 + int(rng.integers(2)), round(dose)
    chosen = _slabs(len(volume), rng) == 1
    back = bool(rng.integers(2))
    if step:
        slab = np.moveaxis(volume[chosen], axis, 0)
        shifted = np.zeros_like(slab)
        if back:
            shifted[:-step] = slab[step:]
        else:
            shifted[step:] = slab[:-step]
        moved[chosen] = np.moveaxis(shifted, 0, axis)
    return moved


def _slabs(depth: int, rng: np.random.Generator) -> np.ndarray:
    """0 or 1 by turns for each slab of ten slices, `[depth]`; the first is drawn."""
    slabs: np.ndarray = (np.arange(depth) // _SLAB_SLICES + rng.integers(2)) % 2
    return slabs


def collapse(material: Material, dose: float, generators: _Generators) -> np.ndarray:
    """Every volume pulled towards the mean of all; dose: fraction of the way."""
    volumes = material.probes.stack()
    mean = volumes.mean(axis=0, dtype=np.float64)
    return ((1 - dose) * volumes + dose * mean).astype(np.float32)


def repeats(material: Material, dose: float, generators: _Generators) -> np.ndarray:
    """Fewer distinct volumes, again and again; dose: fraction of the volumes that repeat another."""
    volumes = material.probes.stack()
    distinct = max(1, round((1 - dose) * len(volumes)))
    return volumes[np.arange(len(volumes)) % distinct]


def dropped_mode(material: Material, dose: float, generators: _Generators) -> np.ndarray:
    """One end of the first principal component of the voxels is never made; dose: fraction of the subjects lost.

    Lost subjects are replaced by spare ones that remain, so that the number of volumes stays.
    """
    volumes = np.concatenate([subjects.stack() for subjects in twice_as_many(material)])
    order = np.argsort(first_component(volumes), kind="stable")
    rest = np.sort(order[: round((1 - dose) * len(volumes))])
    return volumes[rest[: len(material.probes)]]


def twice_as_many(material: Material) -> tuple[VolumeSet, VolumeSet]:
    """The probes and as many spare volumes."""
    return material.probes, material.spare.subset(range(len(material.probes)))


def first_component(volumes: np.ndarray) -> np.ndarray:
    """Scores `[N]` of the volumes on the first principal component of their voxels; the largest is positive."""
    flat = volumes.reshape(len(volumes), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    scores: np.ndarray = vectors[:, -1] * np.sqrt(max(values[-1], 0))
    return scores * np.sign(scores[np.abs(scores).argmax()])


def training_copies(material: Material, dose: float, generators: _Generators) -> np.ndarray:
    """Training volumes plus noise of SD 0.01 in the brain in the place of new ones; dose: fraction of the volumes."""
    volumes = material.probes.stack()
    for i in range(round(dose * len(volumes))):
        copied = material.train[i % len(material.train)]
        volumes[i] = noise_in_brain(copied, COPY_NOISE, generators[i])
    return volumes


def mirrored_copies(material: Material, dose: float, generators: _Generators) -> np.ndarray:
    """The same with left and right of the copies exchanged; dose: fraction of the volumes."""
    mirrored = Material(material.probes, material.spare, material.train.mirrored())
    return training_copies(mirrored, dose, generators)


def other_subjects(material: Material, dose: float, generators: _Generators) -> np.ndarray:
    """No fault: as many other real subjects as there are. A metric that detects them gives a false alarm."""
    volumes = material.probes if dose == 0 else material.spare
    return volumes.subset(range(min(len(volumes), len(material.probes)))).stack()


_FRACTIONS = (0.25, 0.5, 0.75, 1.0)
_STEPS = (0.02, 0.05, 0.1, 0.2)

DEGRADATIONS = {
    fault.name: fault
    for fault in (
        Degradation("other_subjects", "Other real subjects", "no fault", (1.0,), other_subjects),
        Degradation("blur", "Blur", "SD, voxels", (0.25, 0.5, 1.0, 2.0), each(blur)),
        Degradation(
            "noise_in_brain", "Noise in the brain", "SD", (0.01, 0.03, 0.1, 0.2), each(noise_in_brain)
        ),
        Degradation(
            "noise_everywhere", "Noise everywhere", "SD", (0.01, 0.03, 0.1, 0.2), each(noise_everywhere)
        ),
        Degradation("bias_field", "Bias field", "RMS of log", (0.05, 0.1, 0.2, 0.4), each(bias_field)),
        Degradation("intensity", "Darker", "share lost", _STEPS, each(intensity)),
        Degradation("collapse", "Pulled to the mean", "share of way", _FRACTIONS, collapse),
        Degradation("repeats", "Repeats", "share", (0.25, 0.5, 0.75, 0.9), repeats),
        Degradation("dropped_mode", "Dropped mode", "share of subjects", (0.1, 0.2, 0.35, 0.5), dropped_mode),
        Degradation("training_copies", "Training copies", "share", (0.1, 0.25, 0.5, 1.0), training_copies),
        Degradation("mirrored_copies", "Mirrored copies", "share", (0.1, 0.25, 0.5, 1.0), mirrored_copies),
        Degradation(
            "slice_shuffle", "Slices out of order", "slices", (2.0, 4.0, 8.0, 16.0), each(slice_shuffle)
        ),
        Degradation("seam_brightness", "Seams, brightness", "step", _STEPS, each(seam_brightness)),
        Degradation("seam_shift", "Seams, position", "voxels", (1.0, 2.0, 3.0, 4.0), each(seam_shift)),
    )
}
