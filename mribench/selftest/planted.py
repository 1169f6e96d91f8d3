"""Copies of training volumes hidden among fresh real ones: does the search find all of them and nothing else?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import rotate

from mribench.data.volume_set import VolumeSet
from mribench.metrics.memorisation import Copies
from mribench.runtime import derive
from mribench.selftest.degradations import noise_everywhere
from mribench.selftest.record import FreshVolumes, PlantedKind, PlantedResult

_DEGREES = 3.0


@dataclass(frozen=True)
class Kind:
    """One way to alter a copy. `must`: the search has to find it; the other kinds show what it does not find."""

    name: str
    must: bool
    mirrored: bool
    alter: Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _noisy(sd: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda volume, rng: noise_everywhere(volume, sd, rng)


def _scaled(factor: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda volume, rng: np.clip(volume * np.float32(factor), 0, 1)


def _same(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return volume


def _shifted(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(volume, 1, axis=1)


def _rotated(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(rotate(volume, _DEGREES, axes=(1, 2), reshape=False, order=1), 0, 1)


_KINDS = (
    Kind("exact", True, False, _same),
    Kind("noise 0.01", True, False, _noisy(0.01)),
    Kind("noise 0.03", True, False, _noisy(0.03)),
    Kind("intensity x 0.9", True, False, _scaled(0.9)),
    Kind("intensity x 1.1, clipped", True, False, _scaled(1.1)),
    Kind("mirrored", True, True, _same),
    Kind("mirrored, noise 0.03", True, True, _noisy(0.03)),
    Kind("shifted by one voxel", False, False, _shifted),
    Kind(f"rotated by {_DEGREES:g} degrees", False, False, _rotated),
)


@dataclass(frozen=True)
class Planted:
    """Fresh volumes, then for each kind the copies; `sources[i]` is the training volume of the i-th copy."""

    volumes: np.ndarray  # [N,D,H,W]
    fresh: int
    kinds: tuple[Kind, ...]
    sources: tuple[int, ...]


def plant(fresh: VolumeSet, train: VolumeSet, per_kind: int, seed: int) -> Planted:
    """`per_kind` altered copies of every kind behind the fresh volumes, each of the next training volume."""
    kinds = tuple(kind for kind in _KINDS for _ in range(per_kind))
    sources = tuple(i % len(train) for i in range(len(kinds)))
    copies = []
    for i, (kind, source) in enumerate(zip(kinds, sources, strict=True)):
        volume = train[source][:, :, :: -1 if kind.mirrored else 1]
        copies.append(kind.alter(volume, np.random.default_rng(derive(seed, "planted", i))))
    volumes = np.concatenate([fresh.stack(), np.stack(copies).astype(np.float32)])
    return Planted(volumes, len(fresh), kinds, sources)


def outcome(planted: Planted, search: Copies) -> PlantedResult:
    """How many copies of each kind were found, with source and orientation right; and false finds among the fresh."""
    first = planted.fresh
    right = (
        search.copied[first:]
        & (search.neighbour[first:] == np.array(planted.sources))
        & (search.mirrored[first:] == np.array([kind.mirrored for kind in planted.kinds]))
    )
    results = []
    for kind in dict.fromkeys(planted.kinds):
        of_kind = np.array([other is kind for other in planted.kinds])
        results.append(
            PlantedKind(
                kind=kind.name,
                must_be_found=kind.must,
                planted=int(of_kind.sum()),
                found=int(right[of_kind].sum()),
                largest_ratio=float(search.ratio[first:][of_kind].max()),
            )
        )
    fresh = FreshVolumes(
        volumes=first,
        taken_for_copies=int(search.copied[:first].sum()),
        smallest_ratio=float(search.ratio[:first].min()),
    )
    return PlantedResult(kinds=tuple(results), fresh=fresh)


def problems(result: PlantedResult) -> list[str]:
    """One sentence per kind of copy that had to be found and was not, and one about fresh volumes taken for copies."""
    sentences = [
        f"planted copies ({row.kind}): {row.found} of {row.planted} found"
        for row in result.kinds
        if row.must_be_found and row.found < row.planted
    ]
    wrong = result.fresh.taken_for_copies
    if wrong:
        sentences.append(f"{wrong} of {result.fresh.volumes} fresh real volumes were taken for copies")
    return sentences
