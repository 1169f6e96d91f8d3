"""Do samples have the anatomy of the reference? The energy distance of the joint distributions of region volumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from mribench.errors import MribenchError, NotApplicable
from mribench.metrics.arrays.distances import squared_distances
from mribench.metrics.metric import ArraySource, Keep, Metric
from mribench.metrics.mmd import mmd2_of_gram
from mribench.metrics.score import Better, Display
from mribench.metrics.statistics.comparison import holm
from mribench.metrics.statistics.jackknife import combined, half_width, jackknife_part, leave_out
from mribench.metrics.statistics.permutation import TEST

# Columns of `ArraySource.region_volumes`. "grey" and "white" are the cerebrum and the brainstem.
REGIONS = ("ventricles", "outer CSF", "grey left", "grey right", "white left", "white right", "cerebellum")
# What is compared: logarithms of volumes, so that a trait does not depend on the unit, and left over right.
TRAITS = (
    "ventricles",
    "outer CSF",
    "grey matter",
    "white matter",
    "cerebellum",
    "grey asymmetry",
    "white asymmetry",
)
LEAST_ML = 1.0  # added to every volume: an absent region has a finite logarithm
LEAST_SPREAD = 0.005  # of a trait; smaller differences are within the error of the segmentation
SHRINKAGE = 0.5  # share of the identity in the correlations; benchmarks/anatomy.py compares


def traits(volumes_ml: np.ndarray) -> np.ndarray:
    """`[N,7]` volumes in ml of `REGIONS` -> `[N,7]` float64 `TRAITS`; raises MribenchError for other arrays."""
    volumes = np.asarray(volumes_ml, dtype=np.float64)
    if volumes.ndim != 2 or volumes.shape[1] != len(REGIONS):
        raise MribenchError(f"Traits need volumes [N,{len(REGIONS)}] in ml, but got {list(volumes.shape)}.")
    if not np.isfinite(volumes).all() or (volumes < 0).any():
        raise MribenchError("Traits need finite volumes of at least 0 ml, but some are not.")
    ventricles, outer, *halves, cerebellum = (volumes + LEAST_ML).T
    grey_left, grey_right, white_left, white_right = halves
    whole = (ventricles, outer, grey_left + grey_right, white_left + white_right, cerebellum)
    return np.log(np.stack([*whole, grey_left / grey_right, white_left / white_right], axis=1))


@dataclass(frozen=True)
class RegionRow:
    """How one trait of the samples differs from the reference's; intervals are 95 % jackknife intervals.

    `change`: mean of the samples minus that of the reference, in % of the volume (of the ratio left / right for an
    asymmetry). `d`: the same over the pooled standard deviation (Cohen). `spread`: ratio of the standard deviations.
    `p_mean` (Welch) and `p_spread` (Brown and Forsythe 1974) are Holm-corrected over all rows and both tests.
    """

    trait: str
    change: float
    d: float
    d_low: float
    d_high: float
    spread: float
    spread_low: float
    spread_high: float
    p_mean: float
    p_spread: float


def compare_regions(reference_ml: np.ndarray, samples_ml: np.ndarray) -> list[RegionRow]:
    """One row per trait, from volumes `[M,7]` and `[N,7]` in ml of `REGIONS`.

    Raises MribenchError for other arrays or fewer than 3 volumes on a side.
    """
    reference, samples = traits(reference_ml), traits(samples_ml)
    if min(len(reference), len(samples)) < 3:
        raise MribenchError(
            f"A comparison of regions needs 3 volumes on each side, but got {len(reference)} and {len(samples)}."
        )
    columns = list(zip(reference.T, samples.T, strict=True))
    p = holm([_p(test, *pair) for pair in columns for test in (_welch, _brown_forsythe)])
    return [
        _row(trait, *pair, p[2 * i], p[2 * i + 1])
        for i, (trait, pair) in enumerate(zip(TRAITS, columns, strict=True))
    ]


Statistic = Callable[[np.ndarray, np.ndarray], float]


def _row(trait: str, reference: np.ndarray, samples: np.ndarray, p_mean: float, p_spread: float) -> RegionRow:
    d, d_half = _estimate(_cohen, reference, samples)
    log_ratio, half = _estimate(_log_ratio, reference, samples)
    return RegionRow(
        trait=trait,
        change=100 * math.expm1(samples.mean() - reference.mean()),
        d=d,
        d_low=d - d_half,
        d_high=d + d_half,
        spread=math.exp(log_ratio),
        spread_low=math.exp(log_ratio - half),
        spread_high=math.exp(log_ratio + half),
        p_mean=p_mean,
        p_spread=p_spread,
    )


def _estimate(statistic: Statistic, reference: np.ndarray, samples: np.ndarray) -> tuple[float, float]:
    """The statistic and half of its 95 % jackknife interval over both sides."""
    value = statistic(reference, samples)
    parts = [
        (leave_out(lambda rest: statistic(reference[rest], samples), len(reference)), len(reference)),
        (leave_out(lambda rest: statistic(reference, samples[rest]), len(samples)), len(samples)),
    ]
    return value, half_width(*combined(jackknife_part(value, varied, n) for varied, n in parts))


def _cohen(reference: np.ndarray, samples: np.ndarray) -> float:
    squares = sum(((side - side.mean()) ** 2).sum() for side in (reference, samples))
    pooled = math.sqrt(squares / (len(reference) + len(samples) - 2))
    return float(samples.mean() - reference.mean()) / max(pooled, LEAST_SPREAD)


def _log_ratio(reference: np.ndarray, samples: np.ndarray) -> float:
    return math.log(_deviation(samples) / _deviation(reference))


def _deviation(side: np.ndarray) -> float:
    return max(float(side.std(ddof=1)), LEAST_SPREAD)


def _welch(reference: np.ndarray, samples: np.ndarray) -> float:
    return float(stats.ttest_ind(reference, samples, equal_var=False).pvalue)


def _brown_forsythe(reference: np.ndarray, samples: np.ndarray) -> float:
    return float(stats.levene(reference, samples, center="median").pvalue)


def _p(test: Statistic, reference: np.ndarray, samples: np.ndarray) -> float:
    """1 where neither side varies and nothing can be tested."""
    with np.errstate(all="ignore"):
        p = test(reference, samples)
    return 1.0 if math.isnan(p) else p


def _energy_kernel(rows: np.ndarray, law: np.ndarray) -> np.ndarray:
    """Negative distances `[K,K]` of traits, whitened by the standard deviations and shrunk correlations of `law`.

    Their squared MMD is the energy distance (Sejdinovic et al., Annals of Statistics 41, 2013). It grows with the shift
    without limit, where Gaussian kernels end at a constant, so poor generators stay in order.
    """
    deviations = np.maximum(law.std(axis=0, ddof=1), LEAST_SPREAD)
    correlations = np.cov(law.T) / np.outer(deviations, deviations)
    shrunk = (1 - SHRINKAGE) * correlations + SHRINKAGE * np.eye(len(deviations))
    values, vectors = np.linalg.eigh(shrunk)
    return -np.sqrt(squared_distances(rows / deviations @ vectors / np.sqrt(values)))


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionDistance(Metric[tuple[np.ndarray, np.ndarray]]):
    """Unbiased energy distance (Szekely and Rizzo 2004) of the traits, whitened by the reference."""

    family: str = "anatomy"
    better: Better = "match"
    needs: dict[str, int] = field(default_factory=lambda: {"samples": 3, "reference": len(TRAITS) + 1})

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            **arrays.region_definition(),
            "traits": "-".join(TRAITS).replace(" ", "_"),
            "whitened": f"reference-shrunk-{SHRINKAGE:g}",
            "kernel": "energy",
            "estimator": "unbiased",
            "p": f"{TEST}-pooled-whitening",
        }

    def gather(self, arrays: ArraySource) -> tuple[np.ndarray, np.ndarray]:
        """Traits of the reference `[M,7]` and of the samples `[N,7]`."""
        if arrays.slab is not None:
            start, stop = arrays.slab
            raise NotApplicable(
                f"{self.title} needs whole volumes, but the samples hold only axial slices {start} to {stop - 1}."
            )
        return traits(arrays.region_volumes("reference")), traits(arrays.region_volumes("samples"))

    def value(self, gathered: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        reference, samples = gathered[0][keep["reference"]], gathered[1][keep["samples"]]
        gram = _energy_kernel(np.concatenate([reference, samples]), reference)
        return mmd2_of_gram(gram, len(reference), "unbiased")

    def target(self, gathered: tuple[np.ndarray, np.ndarray], keep: Keep) -> float:
        return 0.0

    def exchangeable(self, gathered: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, int]:
        """All volumes whiten here, so that it does not matter which are the reference."""
        rows = np.concatenate(gathered)
        return _energy_kernel(rows, rows), len(gathered[0])


ANATOMY = RegionDistance(
    name="anatomy",
    title="Anatomy",
    opt_in=True,
    in_slab="not applicable",
    detects=("mean_volume", "noise"),
    measures=(
        "Whether ventricles, outer CSF, grey matter, white matter, cerebellum and the left-right asymmetries of grey "
        "and white matter have the same joint distribution of volumes in the samples as in the reference. The expected "
        "value of a perfect generator is near 0, and small negative values are chance."
    ),
    blind_to=(
        "It does not detect copying, and it does not measure shape, contrast or texture. It needs volumes in MNI152 "
        "space."
    ),
    display=Display(aim="near 0"),
)
