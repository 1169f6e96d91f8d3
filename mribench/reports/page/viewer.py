"""Volumes for the three-plane viewer: brainsprite, as the package nilearn carries it, and its mosaics.

brainsprite is a script of 12 kB that draws mosaics, which are pictures. NiiVue 0.69 is a script of 2.9 MB, half of what
a page may weigh, and needs the volumes themselves, each five times as large as its mosaic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.data.grid import Grid
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError
from mribench.reports.page.figures import grey_levels, image_uri, stretched, whole_volume
from mribench.reports.records import Entrant
from mribench.reports.rows import Row

# Of the viewer's cubes: the paper's voxels; and a cross hair, which is one cube wide, stays thin.
_FINEST_MM, _COARSEST_MM = 1.375, 2.0
_LOSSLESS_LETTERS = (
    200_000  # of a data URI; a longer one becomes lossy, so that twenty entrants fit into a page
)
_LOSSY_QUALITY = 70
_SUSPECTS = 3  # of an entrant
PICTURES = 2  # of an entrant, where nothing else is asked
_SCRIPT = "nilearn/_assets/js/brainsprite.min.js"


@dataclass(frozen=True)
class Sprite:
    """One volume as a mosaic of its sagittal slices; `place` = set or entrant, and number of the volume."""

    place: str
    label: str
    uri: str
    lossy: bool = False


@dataclass(frozen=True)
class Viewer:
    """What the page needs to show volumes: `sides` = (x, y, z) voxels, `affine` for world millimetres."""

    sprites: tuple[Sprite, ...]
    sides: tuple[int, int, int]
    side_mm: float
    affine: tuple[tuple[float, ...], ...]
    lossy: bool
    script: str
    credit: str


@cache
def _widget() -> tuple[str, str]:
    """brainsprite's script and where it is from; raises MribenchError when nilearn does not carry it."""
    carrier = distribution("nilearn")  # not imported, which takes seconds
    try:
        script = Path(str(carrier.locate_file(_SCRIPT))).read_text(encoding="utf-8")
    except OSError as error:
        raise MribenchError(
            f"The viewer needs brainsprite.min.js from nilearn 0.14, but nilearn {carrier.version} "
            f"does not have it: {error.strerror}. Install another version of nilearn."
        ) from error
    if "</" in script:
        raise MribenchError("The viewer's script would end the page's script element.")
    title = script.partition("*/")[0].strip("/*! \n")
    return script, f"{title} (MIT licence, Copyright (c) 2016 SIMEXP), from nilearn {carrier.version}"


def make_viewer(
    bench: Bench, cohort: Cohort | None, rows: Sequence[Row], pictures: int = PICTURES
) -> tuple[Viewer | None, str]:
    """The first volumes of the reference and of every entrant, its suspects, one of each control; or None and why."""
    grid = cohort.grid if cohort else bench.protocol.cohort.voxels
    try:
        script, credit = _widget()
    except MribenchError as error:
        return None, str(error)
    finest = min(grid.spacing_mm)
    side = max(finest / math.ceil(finest / _COARSEST_MM), _FINEST_MM)
    sets: list[tuple[str, str, VolumeSet, Sequence[int]]] = []
    if cohort:
        sets.append(("Reference", "reference", cohort.set("reference"), range(pictures)))
    for row in rows:
        if row.entrant.samples is not None:
            samples = bench.run(row.entrant.name).samples()
            sets.append((row.title, row.entrant.name, samples, _shown(row.entrant, pictures)))
    sprites = [sprite for chosen in sets for sprite in _sprites(*chosen, grid, side)]
    if not sprites:
        return None, "No volume can be read."
    z, y, x = _cubes(np.zeros(grid.shape, np.float32), grid, side).shape
    lossy = any(sprite.lossy for sprite in sprites)
    return Viewer(tuple(sprites), (x, y, z), side, _affine(grid, side), lossy, script, credit), ""


def _shown(entrant: Entrant, pictures: int) -> Sequence[int]:
    """Numbers of the samples: the first ones, and those that a gate objects to."""
    if entrant.kind == "control":
        return (0,)
    failed = [gate for gate in entrant.gates if gate.passed is False]
    suspects = [suspect.sample_index for gate in failed for suspect in gate.suspects][:_SUSPECTS]
    return tuple(dict.fromkeys([*range(pictures), *suspects]))


def _sprites(
    label: str, name: str, volumes: VolumeSet, numbers: Iterable[int], grid: Grid, side: float
) -> Iterator[Sprite]:
    """Mosaics of the volumes that can be read; the sections above say which cannot."""
    for i in (number for number in numbers if number < len(volumes)):
        try:
            volume = whole_volume(volumes[i], grid, volumes.slab)
        except (MribenchError, ValueError):
            continue
        if volume.shape == grid.shape:  # all mosaics of a page must be of one size
            mosaic = _mosaic(_cubes(volume, grid, side))
            yield Sprite(f"{name}/{i}", f"{label}, volume {i + 1}", *_picture(mosaic))


def _cubes(volume: np.ndarray, grid: Grid, side: float) -> np.ndarray:
    """Stretched to cubic voxels of `side` mm, which is all that brainsprite draws in true proportion."""
    x, y, z = grid.spacing_mm
    return stretched(volume, (z / side, y / side, x / side))


def _mosaic(volume: np.ndarray) -> np.ndarray:
    """`[D,H,W]` -> its W sagittal slices in rows, each with anterior to the right and superior up."""
    depth, height, width = volume.shape
    columns = math.ceil(math.sqrt(width * depth / height))
    rows = math.ceil(width / columns)
    tiles = np.zeros((rows * columns, depth, height), np.uint8)
    tiles[:width] = grey_levels(volume[::-1].transpose(2, 0, 1))
    return tiles.reshape(rows, columns, depth, height).swapaxes(1, 2).reshape(rows * depth, columns * height)


def _picture(levels: np.ndarray) -> tuple[str, bool]:
    """A picture as a data URI, and whether it is compressed with a loss."""
    exact = image_uri(levels, lossless=True)
    if len(exact) <= _LOSSLESS_LETTERS:
        return exact, False
    return image_uri(levels, quality=_LOSSY_QUALITY), True


def _affine(grid: Grid, side: float) -> tuple[tuple[float, ...], ...]:
    """World millimetres of a cube from its index, which brainsprite counts from 1."""
    corner = (o - s / 2 for o, s in zip(grid.origin_mm, grid.spacing_mm, strict=True))
    shift = [first + side / 2 - side for first in corner]
    rows = [(*(side if i == j else 0.0 for j in range(3)), shift[i]) for i in range(3)]
    return (*rows, (0.0, 0.0, 0.0, 1.0))
