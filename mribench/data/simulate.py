"""Simulated skull-stripped T1 brains: warped, refolded and reshaded copies of the MNI152 anatomy.

They are drawn, not scanned: no patient stands behind them. Each subject is a diffeomorphic warp of the
template (stationary velocity field, scaling and squaring: Arsigny et al. 2006), with its own sulci (a random
field moves the tissue borders), ventricles and atrophy that go with a latent age, contrast, bias and noise.
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

from mribench.data.anatomy import Lattice, hull_field, mni_anatomy, ventricle_field
from mribench.data.grid import paper_grid
from mribench.errors import UsageError
from mribench.seeds import derive

RECIPE = "mni-sim-1"  # a new name whenever voxels may change

STRENGTH = 0.70  # set so that the mean pairwise MS-SSIM of subjects at 128^3 is 0.792 (real subjects, Peng 2023)
# (size of a bump in mm, RMS in mm of each component), times strength. Skulls are smooth: the fine bumps slide
# along the brain's surface and do not dent it, the broad ones dent it by half.
BROAD_WARP = ((30.0, 3.0),)
FINE_WARP = ((14.0, 2.0), (7.0, 1.0))
BROAD_DAMPING = 0.6
WARP_SYMMETRY = 0.6  # share of the warp's variance that is the same left and right
FALX_STIFFNESS, FALX_REACH_MM = 0.7, 15.0  # the falx keeps the fissure between the hemispheres straight
SQUARINGS = 6
MIN_JACOBIAN = 0.05

# MNI152 is 9 % larger along each axis than a typical adult. Scaled about this world point the crown lies
# 4 mm under the upper edge of the field of view; brainstem and lowest cerebellum are cut by the lower one.
BASE_SCALE = 0.91
SCALE_ABOUT_MM = (0.0, -28.1, 32.5)

# What affine registration leaves behind: SDs of log size, log anisotropy, rotation (rad), shear, shift (mm).
RESIDUAL_AFFINE = {"size": 0.012, "anisotropy": 0.010, "rotation": 0.009, "shear": 0.006, "shift": 0.5}

AGE_YEARS = (55.0, 90.0)
VENTRICLE_MM = (-2.5, 7.0)  # displacement of the ventricle walls from the youngest to the oldest
ATROPHY = (-0.3, 0.7)  # offset of the CSF logit

FOLD_MM, FOLD_LOGIT = 4.0, 1.0  # size and RMS of the field that moves tissue borders
SHARPNESS = 1.6  # exponent on the template's tissue probabilities: an average brain is blurrier than one brain
RESIDUAL_WEIGHT = 0.85
CSF_DARKENING = 0.6  # CSF of the average is brightened by partial volume
BIAS_MM, BIAS = 60.0, 0.04
NOISE = (0.005, 0.02)  # Rician SD at 128^3 relative to white matter

WARP_LATTICE = Lattice((-96.0, -136.0, -76.0), (4.0, 4.0, 4.0), (49, 60, 49))
FOLD_LATTICE = Lattice((-88.0, -106.0, -46.0), (2.0, 2.0, 2.0), (65, 89, 89))
BIAS_LATTICE = Lattice((-96.0, -114.0, -54.0), (8.0, 8.0, 8.0), (18, 25, 25))


@dataclass(frozen=True)
class Traits:
    """What distinguishes one subject besides its random fields."""

    age: float
    ventricle_mm: float
    atrophy: float
    class_means: tuple[float, float, float]  # T1 of CSF, GM, WM
    noise: float
    affine: np.ndarray  # [3,4], from world mm of the subject to world mm of the template


def simulate(seed: int, index: int, size: int) -> tuple[np.ndarray, dict[str, float]]:
    """Subject `index` of cohort `seed`: float32 `[D,H,W]` in [0,1] on `paper_grid(size)`, and its ground truth.

    The anatomy depends on (seed, index) alone, so that every size shows the same subject; only the scanner
    noise is drawn per size. Small sizes are averages over finer voxels. A warp that would fold is weakened by
    steps of 0.9 until its smallest Jacobian exceeds 0.05. Background is exactly 0.

    Truth: age (years), ventricle_mm (outward shift of the ventricle walls), atrophy (offset of the CSF logit),
    strength (of the warp, after weakening), brain_cm3, gm_cm3, wm_cm3, csf_cm3 (within the field of view),
    jacobian_min. Raises UsageError when size < 4 or index < 0.
    """
    if size < 4 or index < 0:
        raise UsageError(
            f"a simulated subject needs size >= 4 and index >= 0, got size {size} and index {index}: "
            "choose them so."
        )
    traits = _draw_traits(_generator(seed, index, "traits"))
    displacement, weakening, jacobian_min = _draw_warp(_generator(seed, index, "warp"), traits)
    traits = replace(traits, ventricle_mm=traits.ventricle_mm * weakening)
    oversampling = _oversampling(size)
    fine = _output_lattice(size * oversampling)
    tissues, residual, inside = _tissues(seed, index, fine, traits, displacement)
    image = _shade(seed, index, fine, traits, tissues, residual, inside)
    truth = {
        "age": traits.age,
        "ventricle_mm": traits.ventricle_mm,
        "atrophy": traits.atrophy,
        "strength": STRENGTH * weakening,
        **_volumes(tissues, fine),
        "jacobian_min": jacobian_min,
    }
    return _block_mean(image, oversampling).numpy(), truth


def _generator(seed: int, index: int, part: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, "subject", index, part))


def _oversampling(size: int) -> int:
    # Measured: points 2.75 mm apart, averaged 2 x 2 x 2, follow the block mean of 128^3.
    return 1 if size > 64 else max(2, -(-64 // size))


def _output_lattice(size: int) -> Lattice:
    grid = paper_grid(size)
    return Lattice(grid.origin_mm, grid.spacing_mm, grid.shape)


def _draw_traits(random: np.random.Generator) -> Traits:
    ageing = random.beta(1.2, 1.5)
    anatomy = mni_anatomy()
    csf, gm, wm = anatomy.class_means
    return Traits(
        age=float(np.interp(ageing, (0, 1), AGE_YEARS)),
        ventricle_mm=float(np.clip(np.interp(ageing, (0, 1), VENTRICLE_MM) + random.normal(0, 0.8), *VENTRICLE_MM)),
        atrophy=float(np.interp(ageing, (0, 1), ATROPHY) + random.normal(0, 0.1)),
        class_means=(
            csf * CSF_DARKENING + float(random.normal(0, 0.03)),
            gm - 0.03 * float(ageing) + float(random.normal(0, 0.025)),
            wm,
        ),
        noise=float(random.uniform(*NOISE)),
        affine=_draw_affine(random),
    )


def _draw_affine(random: np.random.Generator) -> np.ndarray:
    sd = RESIDUAL_AFFINE
    scale = BASE_SCALE * np.exp(random.normal(0, sd["size"]) + random.normal(0, sd["anisotropy"], 3))
    turn = random.normal(0, sd["rotation"], 3)
    rotation = np.eye(3)
    for angle, (a, b) in zip(turn, ((1, 2), (0, 2), (0, 1)), strict=True):
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        rotation = rotation @ step
    shear = np.eye(3)
    shear[[0, 0, 1], [1, 2, 2]] = random.normal(0, sd["shear"], 3)
    linear = np.linalg.inv(rotation @ shear @ np.diag(scale))
    about = np.array(SCALE_ABOUT_MM)
    shift = about - linear @ (about + random.normal(0, sd["shift"], 3))
    return np.column_stack([linear, shift])


@functools.cache
def _spectrum(lattice: Lattice, scales: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Amplitude filter that turns white noise into a sum of smooth fields of the given sizes and RMS."""
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


def _random_field(
    random: np.random.Generator, count: int, lattice: Lattice, scales: tuple[tuple[float, float], ...]
) -> Tensor:
    """Gaussian random fields `[count,D,H,W]`; each is the sum of fields with (size in mm, RMS) in `scales`."""
    white = random.standard_normal((count, *lattice.shape), dtype=np.float32)
    waves = scipy.fft.rfftn(white, axes=(1, 2, 3)) * _spectrum(lattice, scales)
    return torch.from_numpy(scipy.fft.irfftn(waves, s=lattice.shape, axes=(1, 2, 3)))


def _draw_warp(random: np.random.Generator, traits: Traits) -> tuple[Tensor, float, float]:
    """Displacement `[3,D,H,W]` in mm on WARP_LATTICE, how much it was weakened, and its smallest Jacobian."""
    broad = _symmetrised(_random_field(random, 3, WARP_LATTICE, BROAD_WARP))
    fine = _symmetrised(_random_field(random, 3, WARP_LATTICE, FINE_WARP))
    toward_ventricles, normals = _guides()
    dents = (normals * (BROAD_DAMPING * broad + fine)).sum(dim=0)
    velocity = STRENGTH * _registered(broad + fine - normals * dents)
    velocity = velocity + traits.ventricle_mm * toward_ventricles
    weakening = 1.0
    while True:
        displacement = _exponential(weakening * velocity)
        smallest = _smallest_jacobian(displacement)
        if smallest > MIN_JACOBIAN:
            return displacement, weakening, smallest
        weakening *= 0.9


def _symmetrised(field: Tensor) -> Tensor:
    # The even and odd parts of a stationary field are independent, each with half of its variance.
    mirrored = field.flip(3) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1, 1)
    even, odd = (field + mirrored) / 2, (field - mirrored) / 2
    x = WARP_LATTICE.points()[..., 0]
    odd[0] *= 1 - FALX_STIFFNESS * torch.exp(-((x / FALX_REACH_MM) ** 2))
    return (2 * WARP_SYMMETRY) ** 0.5 * even + (2 - 2 * WARP_SYMMETRY) ** 0.5 * odd


@functools.cache
def _affine_fit() -> tuple[Tensor, Tensor]:
    points = WARP_LATTICE.points()
    anatomy = mni_anatomy()
    inside = anatomy.lattice.sample(anatomy.maps[4:], points, "zeros")[0] > 0.5
    basis = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1).double()
    solve = torch.zeros(4, *WARP_LATTICE.shape, dtype=torch.float64)
    solve[:, inside] = torch.linalg.pinv(basis[inside])
    return basis, solve


def _registered(field: Tensor) -> Tensor:
    """The field less its affine part within the brain, which registration of real scans would remove."""
    basis, solve = _affine_fit()
    coefficients = torch.einsum("cdhw,kdhw->ck", field.double(), solve)
    return field - torch.einsum("ck,dhwk->cdhw", coefficients, basis).float()


@functools.cache
def _guides() -> tuple[Tensor, Tensor]:
    return ventricle_field(WARP_LATTICE), hull_field(WARP_LATTICE)


def _exponential(velocity: Tensor) -> Tensor:
    points = WARP_LATTICE.points()
    displacement = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        displacement = displacement + WARP_LATTICE.sample(displacement, points + displacement.movedim(0, -1))
    return displacement


def _smallest_jacobian(displacement: Tensor) -> float:
    """Smallest Jacobian of the warp as sampled: of the trilinear map at all 8 corners of every cell."""
    gradients = []
    for axis, spacing in zip((3, 2, 1), WARP_LATTICE.spacing_mm, strict=True):
        gradients.append(displacement.diff(dim=axis) / spacing)
    axes = torch.eye(3).view(3, 3, 1, 1, 1)
    smallest = np.inf
    for corner in itertools.product((0, 1), repeat=3):
        x, y, z = (
            _at_corner(gradient, axis, corner) + axes[axis] for axis, gradient in enumerate(gradients)
        )
        smallest = min(smallest, float((x * torch.linalg.cross(y, z, dim=0)).sum(dim=0).min()))
    return smallest


def _at_corner(gradient: Tensor, axis: int, corner: tuple[int, ...]) -> Tensor:
    # Along its own axis a one-sided difference has one value a cell; along the others the corner picks a side.
    for other, side in enumerate(corner):
        if other != axis:
            gradient = gradient.narrow(3 - other, side, gradient.shape[3 - other] - 1)
    return gradient


def _tissues(
    seed: int, index: int, lattice: Lattice, traits: Traits, displacement: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Tissue probabilities `[3,N]` and T1 residual `[N]` of the brain's N voxels, and the brain `[D,H,W]`."""
    here = lattice.points()
    affine = torch.from_numpy(traits.affine.astype(np.float32))
    there = here @ affine[:, :3].T + affine[:, 3]
    there = there + WARP_LATTICE.sample(displacement, there).movedim(0, -1)
    anatomy = mni_anatomy()
    inside = anatomy.lattice.sample(anatomy.maps[4:], there, "zeros")[0] > 0.5
    maps = anatomy.lattice.sample(anatomy.maps[:4], there[inside], "zeros")
    folds = _random_field(_generator(seed, index, "folds"), 2, FOLD_LATTICE, ((FOLD_MM, FOLD_LOGIT),))
    csf, wm = FOLD_LATTICE.sample(folds, here[inside])
    offsets = torch.stack([csf + traits.atrophy, torch.full_like(csf, -0.3 * traits.atrophy), wm])
    logits = SHARPNESS * maps[:3].clamp_min(1e-3).log() + offsets
    return logits.softmax(dim=0), maps[3], inside


def _shade(
    seed: int, index: int, lattice: Lattice, traits: Traits, tissues: Tensor, residual: Tensor, inside: Tensor
) -> Tensor:
    """The T1 image `[D,H,W]` in [0,1] of the tissues: contrast, bias field, Rician noise, normalisation."""
    signal = torch.tensor(traits.class_means) @ tissues + RESIDUAL_WEIGHT * residual
    bias = _random_field(_generator(seed, index, "bias"), 1, BIAS_LATTICE, ((BIAS_MM, BIAS),))
    signal = signal * BIAS_LATTICE.sample(bias, lattice.points()[inside])[0].exp()
    # Averaging voxels averages their noise: a coarser grid of the same scan is quieter.
    sd = traits.noise * (lattice.shape[0] / 128) ** 1.5
    random = _generator(seed, index, f"noise {lattice.shape[0]}")
    real, imaginary = torch.from_numpy(random.normal(0, sd, (2, len(signal))).astype(np.float32))
    signal = torch.hypot(signal + real, imaginary)
    white = np.percentile(signal.numpy(), 99.9)
    image = torch.zeros(lattice.shape)
    image[inside] = (signal / float(white)).clamp(0, 1)
    return image


def _volumes(tissues: Tensor, lattice: Lattice) -> dict[str, float]:
    voxel_cm3 = float(np.prod(lattice.spacing_mm)) / 1000
    csf, gm, wm = (float(total) * voxel_cm3 for total in tissues.double().sum(dim=1))
    return {"brain_cm3": csf + gm + wm, "gm_cm3": gm, "wm_cm3": wm, "csf_cm3": csf}


def _block_mean(image: Tensor, factor: int) -> Tensor:
    return functional.avg_pool3d(image[None, None], factor)[0, 0] if factor > 1 else image
