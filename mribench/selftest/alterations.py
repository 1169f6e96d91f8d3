"""What is done to one real volume `[D,H,W]`: each function here gives an alteration of a fixed dose."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, rotate

from mribench.data.anatomy import Lattice, left_weight, ventricle_field
from mribench.data.grid import Grid

_WARP_SMOOTHNESS = 8  # a random warp's SD in voxels is the side over this
# Of the sphere, in shares of the side; it reaches two of the central planes.
_SPHERE_CENTRE, _SPHERE_RADIUS = (0.5, 0.5, 0.3), 1 / 8

Alteration = Callable[[np.ndarray, np.random.Generator], np.ndarray]
OfDose = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def dosed(function: OfDose, dose: float) -> Alteration:
    """A function of `degradations` at one dose."""
    return lambda volume, rng: function(volume, dose, rng)


def in_turn(*alterations: Alteration) -> Alteration:
    """Several alterations, one after the other."""

    def alter(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for alteration in alterations:
            volume = alteration(volume, rng)
        return volume

    return alter


def axes_exchanged(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every axial slice `[H,W]` transposed."""
    return volume.swapaxes(1, 2)


def flipped(axis: int) -> Alteration:
    """Mirrored along one axis of `[D,H,W]`."""
    return lambda volume, rng: np.flip(volume, axis)


def scaled(factor: float) -> Alteration:
    """Intensities times a factor."""
    return lambda volume, rng: volume * factor


def gamma(exponent: float) -> Alteration:
    """Intensities to the power of an exponent."""
    return lambda volume, rng: volume**exponent


def inverted(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1 - intensity where the volume is not 0."""
    return np.where(volume > 0, 1 - volume, 0)


def rotated(degrees: float) -> Alteration:
    """Turned in the axial plane, filled up with 0."""
    return lambda volume, rng: rotate(volume, degrees, axes=(1, 2), reshape=False, order=1)


def shifted(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by one voxel towards index 0 along each axis, filled up with 0."""
    moved = np.zeros_like(volume)
    moved[:-1, :-1, :-1] = volume[1:, 1:, 1:]
    return moved


def hemispheres_exchanged(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The left half at the place of the right half, and the reverse; neither is mirrored."""
    return np.roll(volume, volume.shape[2] // 2, axis=2)


def without_sphere(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0 within a sphere in the left hemisphere."""
    places = np.moveaxis(np.indices(volume.shape), 0, -1) / volume.shape - _SPHERE_CENTRE
    return np.where((places**2).sum(axis=-1) < _SPHERE_RADIUS**2, 0, volume)


def warped(voxels: float) -> Alteration:
    """Deformed by a smooth random field of displacements with that RMS length in voxels."""

    def alter(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        smoothness = (0, *(np.array(volume.shape) / _WARP_SMOOTHNESS))
        # Wrapped, the field varies as much at the border as inside.
        field = gaussian_filter(rng.standard_normal((3, *volume.shape)), smoothness, mode="wrap")
        return displaced(volume, field * (voxels / np.sqrt((field**2).sum(axis=0).mean())))

    return alter


def displaced(volume: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Every voxel has the value found at its own place plus `field` `[3,D,H,W]`, in voxels; 0 outside."""
    values: np.ndarray = map_coordinates(volume, np.indices(volume.shape) + field, order=1)
    return values


@functools.cache
def towards_ventricles(grid: Grid, left_only: bool) -> np.ndarray:
    """What 1 mm towards the lateral ventricles of MNI152 is in voxels of `grid`, fading with distance: `[3,D,H,W]`."""
    lattice = Lattice(grid.origin_mm, grid.spacing_mm, grid.shape)
    in_mm = ventricle_field(lattice).numpy()[::-1]
    field: np.ndarray = in_mm / np.reshape(grid.spacing_mm[::-1], (3, 1, 1, 1))
    return field * left_weight(lattice).numpy() if left_only else field
