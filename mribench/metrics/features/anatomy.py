"""Volumes of brain regions by expectation-maximisation over three tissues with MNI152 priors.

The mixture (Van Leemput et al. 1999, Ashburner and Friston 2005) has Gaussian CSF, grey and white matter and voxels of
half grey, half white matter (Shattuck et al. 2001). Points are MNI152 millimetres `(x, y, z)`, RAS+.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from mribench.data.anatomy import TEMPLATE_ORIGIN_MM, Lattice, load_maps
from mribench.data.grid import paper_grid
from mribench.errors import NotApplicable
from mribench.metrics.regions import REGIONS

DEFINITION = "em-4-class-mni152-1"  # a new name whenever a volume may change
MAX_VOXEL_MM = 5.5  # of 32^3 in the paper's field of view
# What the field of view must hold: the cerebrum and the upper cerebellum of a small head.
NEEDED_MM = ((-55.0, 55.0), (-85.0, 50.0), (-30.0, 55.0))

PRIOR_MM = 2.0  # spacing of the stored maps
PRIOR_SMOOTHING_MM = 3.0  # affine registration leaves errors of this size
PRIOR_FLOOR = 0.03  # no tissue is impossible anywhere
CORE_GREY, CORE_WHITE, CORE_BRAIN = 0.65, 0.75, 0.97  # smoothed maps above these: surely inside
GREY_LEVEL = 0.75  # of white matter, after the gamma that brings both medians there
GAMMA_LIMITS = (0.4, 2.5)
EDGE_LEVEL = 0.15  # of white matter; darker voxels at the surface are background
START_MEANS, START_DEVIATIONS = (0.35, 0.75, 1.0), (0.15, 0.1, 0.08)  # of CSF, grey and white matter
LEAST_DEVIATION = 0.01
ITERATIONS, BIAS_AFTER = 12, (3, 6, 9)
BIAS_CENTRE_MM, BIAS_REACH_MM = (0.0, -18.0, 8.0), (70.0, 90.0, 70.0)
BIAS_STRIDE = (
    3  # one voxel in so many is enough for nine coefficients; whole rows along x, so that mirroring commutes
)
BIAS_LIMITS = (0.5, 2.0)
ALIGNMENT_STEPS = 8
FEWEST_VOXELS = 50

# CSF in here is ventricle: the lateral and third ventricles with their walls, without the basal cisterns.
VENTRICLE_BOX_MM = ((-34, 34), (-60, 42), (0, 37))
# The cerebellum lies behind CEREBELLUM_FRONT_MM and under a roof that falls sideways, forwards and backwards; the
# numbers maximise the Dice overlap with the AAL labels of Colin27 (0.966; Tzourio-Mazoyer et al. 2002).
CEREBELLUM_FRONT_MM = -30.0
ROOF_TOP_MM, ROOF_RIDGE_MM, ROOF_SIDEWAYS, ROOF_ALONG = -3.0, -60.0, 0.4, 0.3


@dataclass(frozen=True)
class Tissues:
    """The N brain voxels of one volume.

    `inside` `[D,H,W]` bool; `points` `[N,3]`: where they lie in the template, mm; `proportions` `[3,N]` of CSF, grey
    and white matter, whose sum is 1; `voxel_ml`: volume of one voxel.
    """

    inside: np.ndarray
    points: np.ndarray
    proportions: np.ndarray
    voxel_ml: float


@dataclass(frozen=True)
class _Priors:
    """Smoothed maps `[3,D,H,W]` of grey matter, white matter and brain on a lattice, and brain points `[P,3]` in mm."""

    lattice: Lattice
    maps: torch.Tensor
    brain_points: np.ndarray


@functools.cache
def _priors() -> _Priors:
    t1, grey, white = load_maps()
    step = int(PRIOR_MM)
    brain = (t1 > 0).astype(np.float32)
    maps = np.stack(
        [ndimage.gaussian_filter(m, PRIOR_SMOOTHING_MM)[::step, ::step, ::step] for m in (grey, white, brain)]
    )
    lattice = Lattice(TEMPLATE_ORIGIN_MM, (PRIOR_MM,) * 3, maps.shape[1:])
    points = lattice.points().numpy()[::3, ::3, ::3].reshape(-1, 3).astype(np.float64)
    inside = maps[2, ::3, ::3, ::3].ravel() > 0.5
    return _Priors(lattice, torch.from_numpy(maps), points[inside])


def lattice_of(shape: tuple[int, int, int], affine: Sequence[Sequence[float]] | None) -> Lattice:
    """The world points of voxels `[D,H,W]`; without an affine those of the paper's field of view.

    Raises NotApplicable when voxels are too large or the field of view is not one of MNI152 that holds the brain.
    """
    if affine is None and len(set(shape)) > 1:
        raise NotApplicable(
            f"Anatomy needs to know where voxels lie, but volumes of {list(shape)} voxels have no affine. Without one "
            "they must be cubes in the paper's field of view."
        )
    matrix = paper_grid(shape[0]).affine if affine is None else np.asarray(affine, dtype=np.float64)
    spacing, origin = np.diag(matrix)[:3], matrix[:3, 3]
    upright = bool((spacing > 0).all()) and np.allclose(matrix[:3, :3], np.diag(spacing), atol=1e-3)
    ends = origin + spacing * (np.array(shape[::-1]) - 1)
    if not upright or any(
        low > least or high < most for low, high, (least, most) in zip(origin, ends, NEEDED_MM, strict=True)
    ):
        raise NotApplicable(
            "Anatomy needs volumes in MNI152 space, axes along x, y and z, that hold x -55 to 55, y -85 to 50 and "
            f"z -30 to 55 mm, but the affine of {list(shape)} voxels puts them from {_mm(origin)} to {_mm(ends)}. "
            "Register both sets to MNI152 and store that affine."
        )
    if spacing.max() > MAX_VOXEL_MM:
        raise NotApplicable(
            f"Anatomy needs voxels of at most {MAX_VOXEL_MM:g} mm, but these are {_mm(spacing)} mm. Use volumes of at "
            "least 32 x 32 x 32 voxels."
        )
    sides = [tuple(float(value) for value in values) for values in (origin, spacing)]
    return Lattice(sides[0], sides[1], shape)  # type: ignore[arg-type]


def _mm(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def region_volumes(volume: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Volumes in ml of `REGIONS` `[8]` float64 in one brain `[D,H,W]` in [0,1], 0 outside; zeros when it is empty."""
    tissues = segment(volume, lattice)
    x, left = tissues.points[:, 0], tissues.points[:, 0] < 0
    ventricle, cerebellum = _in_ventricle_box(tissues.points), in_cerebellum(tissues.points)
    csf, grey, white = tissues.proportions
    half = np.where(x == 0, 0.5, left)  # a voxel on the midline belongs to both sides
    cerebrum = ~cerebellum
    sides = (half, 1 - half)
    parts = (
        *(csf * ventricle * side for side in sides),
        csf * ~ventricle,
        *(matter * cerebrum * side for matter in (grey, white) for side in sides),
        (grey + white) * cerebellum,
    )
    return np.array([part.sum() for part in parts]) * tissues.voxel_ml


def _in_ventricle_box(points: np.ndarray) -> np.ndarray:
    low, high = np.array(VENTRICLE_BOX_MM, dtype=np.float64).T
    inside: np.ndarray = ((points > low) & (points < high)).all(axis=1)
    return inside


def in_cerebellum(points: np.ndarray) -> np.ndarray:
    """Which template points `[N,3]` in mm lie under the tentorium, by geometry: `[N]` bool."""
    x, y, z = points.T
    roof = ROOF_TOP_MM - ROOF_SIDEWAYS * abs(x) - ROOF_ALONG * abs(y - ROOF_RIDGE_MM)
    inside: np.ndarray = (y < CEREBELLUM_FRONT_MM) & (z < roof)
    return inside


def segment(volume: np.ndarray, lattice: Lattice) -> Tissues:
    """The tissues of one stripped brain `[D,H,W]` in [0,1]; N = 0 when it is empty. Deterministic, float64."""
    signal = np.clip(volume, 0, None).astype(np.float64)
    voxel_ml = float(np.prod(lattice.spacing_mm)) / 1000
    world = lattice.points().numpy().astype(np.float64)
    rough = _rough_mask(signal)
    if rough.sum() < FEWEST_VOXELS:
        nothing = np.zeros(lattice.shape, dtype=bool)
        return Tissues(nothing, np.zeros((0, 3)), np.zeros((3, 0)), voxel_ml)
    scale, shift = _alignment(world[rough], lattice)
    points = (world - shift) / scale
    priors = _priors()
    maps = priors.lattice.sample(priors.maps, torch.from_numpy(points.astype(np.float32)), "zeros").numpy()
    grey, white, brain = maps.astype(np.float64)
    signal = _standardised(signal, grey, white)
    inside = (signal > EDGE_LEVEL) | (brain > CORE_BRAIN)  # fluid may be black
    points, grey, white = points[inside], grey[inside], white[inside]
    slices, rows, _ = np.nonzero(inside)
    bias = _BiasModel(_bias_basis(points), (slices + rows) % BIAS_STRIDE == 0)
    proportions = _mixture(signal[inside], grey, white, bias)
    return Tissues(inside, points, proportions, voxel_ml)


def _rough_mask(signal: np.ndarray) -> np.ndarray:
    positive = signal[signal > 0]
    mask: np.ndarray = signal > (0.1 * np.percentile(positive, 95) if len(positive) else 0)
    return mask


def _alignment(brain: np.ndarray, lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift `[3]` each from the template to this brain, whose voxels lie at `[N,3]` mm.

    They give the template's brain, cut by the field of view, the same mean and spread. The midline stays, so that
    asymmetry does; the spread along z, which the cut changes, follows that along x and y.
    """
    low = np.array(lattice.origin_mm) - np.array(lattice.spacing_mm) / 2
    high = low + np.array(lattice.spacing_mm) * np.array(lattice.shape[::-1])
    mean, spread = brain.mean(axis=0), np.maximum(brain.std(axis=0), 1.0)
    scale, shift = np.ones(3), np.zeros(3)
    for _ in range(ALIGNMENT_STEPS):
        template = _priors().brain_points * scale + shift
        template = template[((template >= low) & (template <= high)).all(axis=1)]
        if len(template) < FEWEST_VOXELS:
            return np.ones(3), np.zeros(3)
        ratio = spread / template.std(axis=0)
        ratio[2] = np.sqrt(ratio[0] * ratio[1])
        shift = mean + ratio * (shift - template.mean(axis=0))
        scale = scale * ratio
        shift[0] = 0.0
    return scale, shift


def _standardised(signal: np.ndarray, grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """White matter at 1 and grey matter at `GREY_LEVEL` by gain and gamma, from medians where the priors are sure."""
    if min((grey > CORE_GREY).sum(), (white > CORE_WHITE).sum()) < FEWEST_VOXELS:
        return signal / signal.max()
    dark, bright = np.median(signal[grey > CORE_GREY]), np.median(signal[white > CORE_WHITE])
    if not 0 < dark < bright:  # no T1 contrast
        return signal / (bright or signal.max())
    gamma = np.clip(np.log(GREY_LEVEL) / np.log(dark / bright), *GAMMA_LIMITS)
    standardised: np.ndarray = (signal / bright) ** gamma
    return standardised


def _bias_basis(points: np.ndarray) -> np.ndarray:
    """Polynomials of first and second order without a constant `[N,9]`."""
    x, y, z = ((points - BIAS_CENTRE_MM) / BIAS_REACH_MM).T
    basis = np.stack([x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    centred: np.ndarray = basis - basis.mean(axis=0)
    return centred


@dataclass(frozen=True)
class _BiasModel:
    """Basis `[N,9]`, and the voxels `[N]` bool that its coefficients are fitted to."""

    basis: np.ndarray
    fitted: np.ndarray


@dataclass
class _Classes:
    """Means and deviations `[3]` of the pure tissues, weights `[4]` of them and of the mixed class."""

    means: np.ndarray
    deviations: np.ndarray
    weights: np.ndarray

    def all_means(self) -> np.ndarray:
        return np.append(self.means, (self.means[1] + self.means[2]) / 2)

    def all_deviations(self) -> np.ndarray:
        """Of the mixed class: the tissues' own, and a quarter of the distance between them."""
        _, grey, white = self.deviations
        mixed = np.hypot((grey + white) / 2, (self.means[2] - self.means[1]) / 4)
        return np.append(self.deviations, max(mixed, LEAST_DEVIATION))


def _mixture(signal: np.ndarray, grey: np.ndarray, white: np.ndarray, bias: _BiasModel) -> np.ndarray:
    """Proportions `[3,N]` of CSF, grey and white matter from the signal `[N]` and the priors of the last two."""
    prior = _class_priors(grey, white)
    classes = _Classes(np.array(START_MEANS), np.array(START_DEVIATIONS), np.full(4, 0.25))
    corrected = signal
    for iteration in range(ITERATIONS):
        shares = _responsibilities(corrected, prior, classes)
        if iteration in BIAS_AFTER:
            corrected = _without_bias(signal, shares, classes, bias)
        _update(classes, corrected, shares, prior)
    csf, grey, white, mixed = _responsibilities(corrected, prior, classes)
    return np.stack([csf, grey + mixed / 2, white + mixed / 2])


def _class_priors(grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """`[4,N]`; CSF is what grey and white matter leave, outside the template too."""
    tissues = np.stack([np.clip(1 - grey - white, 0, 1), grey, white]) + PRIOR_FLOOR
    tissues /= tissues.sum(axis=0)
    prior = np.concatenate([tissues, np.sqrt(tissues[1:2] * tissues[2:3])])
    normalised: np.ndarray = prior / prior.sum(axis=0)
    return normalised


def _responsibilities(signal: np.ndarray, prior: np.ndarray, classes: _Classes) -> np.ndarray:
    means, deviations = classes.all_means()[:, None], classes.all_deviations()[:, None]
    odds = classes.weights[:, None] / deviations * prior
    odds *= np.exp(-0.5 * ((signal - means) / deviations) ** 2)
    odds += 1e-300  # a voxel far from all classes is shared among them
    shares: np.ndarray = odds / odds.sum(axis=0)
    return shares


def _update(classes: _Classes, signal: np.ndarray, shares: np.ndarray, prior: np.ndarray) -> None:
    pure = shares[:3]
    sizes = np.maximum(pure.sum(axis=1), 1e-9)
    classes.means = (pure * signal).sum(axis=1) / sizes
    variances = (pure * (signal - classes.means[:, None]) ** 2).sum(axis=1) / sizes
    classes.deviations = np.sqrt(np.maximum(variances, LEAST_DEVIATION**2))
    expected = (prior / (classes.weights[:, None] * prior).sum(axis=0)).sum(axis=1)
    weights = shares.sum(axis=1) / expected  # the weight of priors in Ashburner and Friston 2005, equation 27
    classes.weights = weights / weights.sum()


def _without_bias(signal: np.ndarray, shares: np.ndarray, classes: _Classes, bias: _BiasModel) -> np.ndarray:
    """The signal over a polynomial field, fitted by least squares to its ratio to what the classes predict."""
    shares = shares[:, bias.fitted]
    weight = np.sqrt((shares / classes.all_deviations()[:, None] ** 2).sum(axis=0))
    predicted = (shares * classes.all_means()[:, None]).sum(axis=0)
    design = bias.basis[bias.fitted] * (predicted * weight)[:, None]
    coefficients = np.linalg.lstsq(design, (signal[bias.fitted] - predicted) * weight, rcond=None)[0]
    corrected: np.ndarray = signal / np.clip(1 + bias.basis @ coefficients, *BIAS_LIMITS)
    return corrected


def definition() -> dict[str, Any]:
    """What can move a volume."""
    return {"segmentation": DEFINITION, "priors": "mni152-2009a-nilearn", "regions": len(REGIONS)}
