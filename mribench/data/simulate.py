"""Simulated skull-stripped T1 brains: warped, refolded and reshaded copies of the MNI152 anatomy.

They are drawn, not scanned: no patient stands behind them. Each subject is a diffeomorphic warp of the
template (stationary velocity field, scaling and squaring: Arsigny et al. 2006) with its own tissue borders,
ventricles and atrophy that go with a latent age, contrast, bias field and noise.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as functional
from torch import Tensor

from mribench.data.anatomy import Lattice, hull_field, left_weight, mni_anatomy, ventricle_field
from mribench.data.grid import PAPER_FOV_MM, Grid, paper_grid
from mribench.errors import UsageError
from mribench.runtime import derive

RECIPE = "mni-sim-1"  # a new name whenever voxels may change

# Set so that the mean pairwise MS-SSIM of subjects at 128^3 is that of real ones, 0.792 (Peng et al. 2023,
# Table 1); benchmarks/simulate.py measures it.
STRENGTH = 0.89
# (size of a bump in mm, RMS in mm of each component), times STRENGTH. Skulls are smooth: the fine bumps slide
# along the brain's surface and do not dent it, the broad ones dent it less.
_BROAD_WARP = ((30.0, 3.0),)
_FINE_WARP = ((14.0, 2.0), (7.0, 1.0))
_BROAD_DAMPING = 0.6
_WARP_SYMMETRY = 0.6  # proportion of the warp's variance that is the same left and right
_FALX_STIFFNESS, _FALX_REACH_MM = 0.7, 15.0  # the falx keeps the fissure between the hemispheres straight
_SQUARINGS = 6
_MIN_JACOBIAN, _WEAKENING_STEP = 0.05, 0.9

# MNI152 is 9 % larger along each axis than a typical adult. Scaled about this world point the brain is centred
# front to back, its crown 4 to 5 mm under the upper edge; the lower edge cuts brainstem and cerebellum.
_BASE_SCALE = 0.91
_SCALE_ABOUT_MM = (0.0, -28.1, 21.4)
# What affine registration leaves behind, as SDs: log size, log size of an axis, radians, shear, mm.
_SIZE_SD, _ANISOTROPY_SD, _ROTATION_SD, _SHEAR_SD, _SHIFT_SD_MM = 0.012, 0.010, 0.009, 0.006, 0.5

# (in the youngest, in the oldest)
_AGE_YEARS = (55.0, 90.0)
VENTRICLE_MM = (-2.5, 7.0)  # outward shift of the ventricle walls
ATROPHY = (-0.3, 0.7)  # offset of the CSF logit
_GM_DARKENING = (0.0, 0.03)

_FOLD_WARP = ((4.0, 1.0),)  # (mm, RMS in logits) of the fields that move the borders of CSF and of WM
_SHARPNESS = 1.6  # exponent on the template's probabilities: an average of brains is blurrier than a brain
RESIDUAL_WEIGHT = 0.85
_CSF_DARKENING = 0.6  # the average's CSF is brightened by partial volume
_BIAS = ((60.0, 0.04),)  # (mm, RMS of the logarithm)
_NOISE_SD = (0.005, 0.02)  # range of the Rician SD at 128^3, relative to white matter

WARP_LATTICE = Lattice((-96.0, -136.0, -76.0), (4.0, 4.0, 4.0), (49, 60, 49))
FOLD_LATTICE = Lattice((-88.0, -106.0, -46.0), (2.0, 2.0, 2.0), (65, 89, 89))
_BIAS_LATTICE = Lattice((-96.0, -114.0, -54.0), (8.0, 8.0, 8.0), (18, 25, 25))


@dataclass(frozen=True)
class Planted:
    """What is changed in a subject, all else the same.

    `ageing`: factor on the years above the youngest age; `ventricle_mm` and `left_ventricle_mm`: added outward shift of
    the ventricle walls in mm of the template, of both sides or of the left one (the truth's ventricle_mm stays);
    `atrophy`: added to the offset of the CSF logit.
    """

    ageing: float = 1.0
    ventricle_mm: float = 0.0
    left_ventricle_mm: float = 0.0
    atrophy: float = 0.0


_NOTHING = Planted()


@dataclass(frozen=True)
class _Traits:
    """A subject's scalars; `class_means`: T1 of CSF, GM, WM; `affine` `[3,4]`: from subject to template, mm."""

    age: float
    ventricle_mm: float
    atrophy: float
    class_means: tuple[float, float, float]
    noise_sd: float
    affine: np.ndarray


@dataclass(frozen=True)
class _Warp:
    """Displacement `[3,D,H,W]` in mm on WARP_LATTICE, its smallest Jacobian, and how much it was weakened."""

    displacement: Tensor
    jacobian_min: float
    weakening: float


@dataclass(frozen=True)
class _Brain:
    """The N brain voxels of a subject on a lattice: where they are, what they are made of."""

    inside: Tensor  # [D,H,W] bool
    points: Tensor  # [N,3] world mm
    tissues: np.ndarray  # [3,N] probabilities of CSF, GM, WM
    residual: np.ndarray  # [N] T1 that the tissues do not explain


def simulate(
    seed: int, index: int, size: int | Grid, planted: Planted = _NOTHING
) -> tuple[np.ndarray, dict[str, float]]:
    """Subject `index` of cohort `seed`: float32 `[D,H,W]` in [0,1] on a grid or `paper_grid(size)`, and its truth.

    The anatomy depends on (seed, index) alone, so every grid shows the same subject; only the scanner noise
    is drawn per size. Sides up to 64 are block means of a finer rendering. A warp that would fold is weakened
    by steps of 0.9 until its smallest Jacobian exceeds 0.05. Background is exactly 0.

    Truth: age (years), ventricle_mm (outward shift of the ventricle walls), atrophy (offset of the CSF
    logit), strength (of the warp, after weakening), jacobian_min, and brain_cm3 = gm_cm3 + wm_cm3 + csf_cm3
    within the field of view (summed over voxels: sizes agree within a few cm3). Raises UsageError for a side below 4
    or index < 0.
    """
    if index < 0 or (size if isinstance(size, int) else min(size.sides)) < 4:
        raise UsageError(
            f"a simulated subject needs size >= 4 and index >= 0; got size {size}, index {index}. "
            "Choose them so."
        )
    grid = paper_grid(size) if isinstance(size, int) else size
    traits = _draw_traits(_generator(seed, index, "traits"), planted)
    warp = _with_walls(_draw_warp(_generator(seed, index, "warp"), traits.ventricle_mm), planted)
    oversampling = tuple(map(_oversampling, grid.sides))
    lattice = _finer_lattice(grid, oversampling)
    brain = _warped_brain(lattice, traits, warp, _generator(seed, index, "folds"))
    signal = _signal(brain, traits, _generator(seed, index, "bias"))
    drawn_for = grid.size if grid.is_cube else "x".join(map(str, grid.sides))
    signal = _add_noise(signal, traits, lattice, _generator(seed, index, f"noise {drawn_for}"))
    image = _normalised(signal, brain.inside)
    return _block_mean(image, oversampling).numpy(), _truth(traits, warp, brain, lattice)


def _generator(seed: int, index: int, part: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, "subject", index, part))


def _oversampling(size: int) -> int:
    # Below 64 samples along an axis, nonlinear mixing of tissues in large voxels would change the contrast.
    return 1 if size > 64 else max(2, -(-64 // size))


def _finer_lattice(grid: Grid, factors: tuple[int, ...]) -> Lattice:
    """The grid with each voxel cut into `factors` along x, y and z."""
    sides = tuple(n * factor for n, factor in zip(grid.sides, factors, strict=True))
    if grid == paper_grid(grid.sides):
        finer = paper_grid(sides)  # type: ignore[arg-type]
        return Lattice(finer.origin_mm, finer.spacing_mm, finer.shape)
    spacing = np.array(grid.spacing_mm) / factors
    origin = np.array(grid.origin_mm) - np.array(grid.spacing_mm) / 2 + spacing / 2
    return Lattice(tuple(origin.tolist()), tuple(spacing.tolist()), sides[::-1])  # type: ignore[arg-type]


def _between(ends: tuple[float, float], fraction: float) -> float:
    return ends[0] + fraction * (ends[1] - ends[0])


def _draw_traits(random: np.random.Generator, planted: Planted = _NOTHING) -> _Traits:
    ageing = planted.ageing * random.beta(1.2, 1.5)
    csf, gm, wm = mni_anatomy().class_means
    ventricle_mm = _between(VENTRICLE_MM, ageing) + random.normal(0, 0.8)
    return _Traits(
        age=float(_between(_AGE_YEARS, ageing)),
        ventricle_mm=float(np.clip(ventricle_mm, *VENTRICLE_MM)),
        atrophy=float(_between(ATROPHY, ageing) + random.normal(0, 0.1)) + planted.atrophy,
        class_means=(
            float(csf * _CSF_DARKENING + random.normal(0, 0.03)),
            float(gm - _between(_GM_DARKENING, ageing) + random.normal(0, 0.025)),
            wm,
        ),
        noise_sd=float(random.uniform(*_NOISE_SD)),
        affine=_draw_affine(random),
    )


def _draw_affine(random: np.random.Generator) -> np.ndarray:
    scale = _BASE_SCALE * np.exp(random.normal(0, _SIZE_SD) + random.normal(0, _ANISOTROPY_SD, 3))
    rotation = _rotation(random.normal(0, _ROTATION_SD, 3))
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = random.normal(0, _SHEAR_SD, 3)
    linear = np.linalg.inv(rotation @ shear @ np.diag(scale))
    about = np.array(_SCALE_ABOUT_MM)
    return np.column_stack([linear, about - linear @ (about + random.normal(0, _SHIFT_SD_MM, 3))])


def _rotation(angles: np.ndarray) -> np.ndarray:
    rotation = np.eye(3)
    for angle, (a, b) in zip(angles, ((1, 2), (0, 2), (0, 1)), strict=True):
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        rotation = rotation @ turn
    return rotation


Scales = tuple[tuple[float, float], ...]


@functools.cache
def _amplitudes(lattice: Lattice, scales: Scales) -> np.ndarray:
    """The filter in Fourier space that turns white noise into a sum of smooth fields of these scales."""
    frequencies = [
        2 * np.pi * scipy.fft.fftfreq(count, spacing)
        for count, spacing in zip(lattice.shape, lattice.spacing_mm[::-1], strict=True)
    ]
    squared = sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij"))
    power = np.zeros(lattice.shape)
    for size_mm, rms in scales:
        bump = np.exp(-((size_mm / 1.5) ** 2) * squared)
        power += rms**2 * bump / bump.mean()
    return np.sqrt(power[..., : lattice.shape[2] // 2 + 1]).astype(np.float32)


def _random_fields(random: np.random.Generator, count: int, lattice: Lattice, scales: Scales) -> Tensor:
    """Independent stationary Gaussian fields `[count,D,H,W]`, each a sum of (size in mm, RMS) in `scales`."""
    white = random.standard_normal((count, *lattice.shape), dtype=np.float32)
    waves = scipy.fft.rfftn(white, axes=(1, 2, 3)) * _amplitudes(lattice, scales)
    return torch.from_numpy(scipy.fft.irfftn(waves, s=lattice.shape, axes=(1, 2, 3)))


def _draw_warp(random: np.random.Generator, ventricle_mm: float) -> _Warp:
    broad = _symmetrised(_random_fields(random, 3, WARP_LATTICE, _BROAD_WARP))
    fine = _symmetrised(_random_fields(random, 3, WARP_LATTICE, _FINE_WARP))
    towards_ventricles, normals = _guides()
    dents = (normals * (_BROAD_DAMPING * broad + fine)).sum(dim=0)
    velocity = STRENGTH * _registered(broad + fine - normals * dents) + ventricle_mm * towards_ventricles
    weakening = 1.0
    while True:
        displacement = _exponential(weakening * velocity)
        jacobian_min = _smallest_jacobian(displacement)
        if jacobian_min > _MIN_JACOBIAN:
            return _Warp(displacement, jacobian_min, weakening)
        weakening *= _WEAKENING_STEP


def _with_walls(warp: _Warp, planted: Planted) -> _Warp:
    """The warp, followed by the planted shift of the ventricle walls.

    As part of the velocity, the shift would fold the widest ventricles, and all of the warp would be weakened.
    """
    if not (planted.ventricle_mm or planted.left_ventricle_mm):
        return warp
    millimetres = planted.ventricle_mm + planted.left_ventricle_mm * left_weight(WARP_LATTICE)
    shift = _exponential(millimetres * _guides()[0])
    origins = WARP_LATTICE.points() + warp.displacement.movedim(0, -1)
    displacement = warp.displacement + WARP_LATTICE.sample(shift, origins)
    return replace(warp, displacement=displacement, jacobian_min=_smallest_jacobian(displacement))


@functools.cache
def _guides() -> tuple[Tensor, Tensor]:
    return ventricle_field(WARP_LATTICE), hull_field(WARP_LATTICE)


def _symmetrised(field: Tensor) -> Tensor:
    # The even and odd parts of a stationary field are independent, each with half of its variance.
    mirrored = field.flip(3) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1, 1)
    even, odd = (field + mirrored) / 2, (field - mirrored) / 2
    x = WARP_LATTICE.points()[0, 0, :, 0].numpy()
    odd[0] *= torch.from_numpy(1 - _FALX_STIFFNESS * np.exp(-((x / _FALX_REACH_MM) ** 2)))
    return (2 * _WARP_SYMMETRY) ** 0.5 * even + (2 - 2 * _WARP_SYMMETRY) ** 0.5 * odd


@functools.cache
def _affine_basis() -> tuple[np.ndarray, np.ndarray]:
    """Affine functions `[4,D,H,W]` on WARP_LATTICE, and the weights `[4,D,H,W]` of their best fit."""
    points = WARP_LATTICE.points()
    anatomy = mni_anatomy()
    inside = (anatomy.lattice.sample(anatomy.brain, points, "zeros")[0] > 0.5).numpy()
    basis = np.stack([*points.numpy().transpose(3, 0, 1, 2), np.ones(inside.shape)]).astype(np.float64)
    gram = np.einsum("kn,ln->kl", basis[:, inside], basis[:, inside])
    return basis, np.einsum("kl,ldhw,dhw->kdhw", np.linalg.inv(gram), basis, inside)


def _registered(field: Tensor) -> Tensor:
    """The field less its affine part within the brain, which registration of real scans would remove."""
    basis, weights = _affine_basis()
    # Plain sums (einsum) and no matrix product, whose rounding may depend on the number of threads.
    coefficients = np.einsum("cdhw,kdhw->ck", field.numpy(), weights)
    return field - torch.from_numpy(np.einsum("ck,kdhw->cdhw", coefficients, basis).astype(np.float32))


def _exponential(velocity: Tensor) -> Tensor:
    points = WARP_LATTICE.points()
    displacement = velocity / 2**_SQUARINGS
    for _ in range(_SQUARINGS):
        displacement = displacement + WARP_LATTICE.sample(displacement, points + displacement.movedim(0, -1))
    return displacement


def _smallest_jacobian(displacement: Tensor) -> float:
    """Smallest Jacobian of the warp as it is interpolated: trilinearly, at all 8 corners of every cell."""
    gradients = [
        displacement.diff(dim=dim) / spacing + axis.view(3, 1, 1, 1)
        for dim, spacing, axis in zip((3, 2, 1), WARP_LATTICE.spacing_mm, torch.eye(3), strict=True)
    ]
    smallest = np.inf
    for corner in itertools.product((0, 1), repeat=3):
        x, y, z = (_at_corner(gradient, axis, corner) for axis, gradient in enumerate(gradients))
        smallest = min(smallest, float((x * torch.linalg.cross(y, z, dim=0)).sum(dim=0).min()))
    return smallest


def _at_corner(gradient: Tensor, axis: int, corner: tuple[int, ...]) -> Tensor:
    # Along its own axis a difference has one value a cell; along the others the corner picks a side.
    for other, side in enumerate(corner):
        if other != axis:
            gradient = gradient.narrow(3 - other, side, gradient.shape[3 - other] - 1)
    return gradient


def _template_points(lattice: Lattice, traits: _Traits, warp: _Warp) -> Tensor:
    """Where in the template, in world mm, each node of the subject's lattice comes from: `[D,H,W,3]`."""
    points = lattice.points(traits.affine)
    return points + WARP_LATTICE.sample(warp.displacement, points).movedim(0, -1)


def _warped_brain(lattice: Lattice, traits: _Traits, warp: _Warp, random: np.random.Generator) -> _Brain:
    anatomy = mni_anatomy()
    origins = _template_points(lattice, traits, warp)
    inside = anatomy.lattice.sample(anatomy.brain, origins, "zeros")[0] > 0.5
    points, origins = lattice.points()[inside], origins[inside]
    csf, wm = FOLD_LATTICE.sample(_random_fields(random, 2, FOLD_LATTICE, _FOLD_WARP), points).numpy()
    offsets = np.stack([csf + traits.atrophy, np.full_like(csf, -0.3 * traits.atrophy), wm])
    probabilities = anatomy.lattice.sample(anatomy.tissues, origins, "zeros").numpy()
    residual = anatomy.lattice.sample(anatomy.residual, origins, "zeros")[0].numpy()
    return _Brain(
        inside, points, _softmax(_SHARPNESS * np.log(np.maximum(probabilities, 1e-3)) + offsets), residual
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    # NumPy's, because the last bit of torch's exponential depends on the number of threads.
    odds = np.exp(logits - logits.max(axis=0))
    return odds / odds.sum(axis=0)


def _signal(brain: _Brain, traits: _Traits, random: np.random.Generator) -> np.ndarray:
    csf, gm, wm = (mean * tissue for mean, tissue in zip(traits.class_means, brain.tissues, strict=True))
    bias = _BIAS_LATTICE.sample(_random_fields(random, 1, _BIAS_LATTICE, _BIAS), brain.points)[0].numpy()
    return (csf + gm + wm + RESIDUAL_WEIGHT * brain.residual) * np.exp(bias)


def _add_noise(
    signal: np.ndarray, traits: _Traits, lattice: Lattice, random: np.random.Generator
) -> np.ndarray:
    # Rician, as in a magnitude image. Larger voxels of the same scan average more noise away.
    finer = np.prod(np.array(PAPER_FOV_MM) / 128) / np.prod(lattice.spacing_mm)
    sd = np.float32(traits.noise_sd * finer**0.5)
    real, imaginary = sd * random.standard_normal((2, len(signal)), dtype=np.float32)
    return np.hypot(signal + real, imaginary)


def _normalised(signal: np.ndarray, inside: Tensor) -> Tensor:
    image = torch.zeros(inside.shape)
    image[inside] = torch.from_numpy(np.clip(signal / np.percentile(signal, 99.9), 0, 1))
    return image


def _block_mean(image: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Means over blocks of `factors` voxels along x, y and z."""
    return functional.avg_pool3d(image[None, None], factors[::-1])[0, 0] if max(factors) > 1 else image


def _truth(traits: _Traits, warp: _Warp, brain: _Brain, lattice: Lattice) -> dict[str, float]:
    voxel_cm3 = float(np.prod(lattice.spacing_mm)) / 1000
    csf, gm, wm = (float(tissue.sum(dtype=np.float64)) * voxel_cm3 for tissue in brain.tissues)
    return {
        "age": traits.age,
        "ventricle_mm": traits.ventricle_mm * warp.weakening,
        "atrophy": traits.atrophy,
        "strength": STRENGTH * warp.weakening,
        "brain_cm3": csf + gm + wm,
        "gm_cm3": gm,
        "wm_cm3": wm,
        "csf_cm3": csf,
        "jacobian_min": warp.jacobian_min,
    }
