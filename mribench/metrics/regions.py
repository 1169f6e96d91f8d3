"""Volumes of brain regions, the traits that are compared, and the record of one comparison."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from mribench.errors import MribenchError

# Columns of `ArraySource.region_volumes`. "grey" and "white" are the cerebrum and the brainstem.
REGIONS = (
    "ventricles left",
    "ventricles right",
    "outer CSF",
    "grey left",
    "grey right",
    "white left",
    "white right",
    "cerebellum",
)
# What is compared: logarithms of volumes, so that a trait does not depend on the unit, and left over right.
TRAITS = (
    "ventricles",
    "outer CSF",
    "grey matter",
    "white matter",
    "cerebellum",
    "ventricle asymmetry",
    "grey asymmetry",
    "white asymmetry",
)
LEAST_ML = 1.0  # added to every volume: an absent region has a finite logarithm
LEAST_SPREAD = 0.005  # of a trait; smaller differences are within the error of the segmentation


def traits(volumes_ml: np.ndarray) -> np.ndarray:
    """`[N,8]` volumes in ml of `REGIONS` -> `[N,8]` float64 `TRAITS`; raises MribenchError for other arrays."""
    volumes = np.asarray(volumes_ml, dtype=np.float64)
    if volumes.ndim != 2 or volumes.shape[1] != len(REGIONS):
        raise MribenchError(f"Traits need volumes [N,{len(REGIONS)}] in ml, but got {list(volumes.shape)}.")
    if not np.isfinite(volumes).all() or (volumes < 0).any():
        raise MribenchError("Traits need finite volumes of at least 0 ml, but some are not.")
    left, right, outer, *cerebrum, cerebellum = (volumes + LEAST_ML).T
    grey_left, grey_right, white_left, white_right = cerebrum
    whole = (left + right - LEAST_ML, outer, grey_left + grey_right, white_left + white_right, cerebellum)
    return np.log(np.stack([*whole, left / right, grey_left / grey_right, white_left / white_right], axis=1))


class RegionRow(BaseModel):
    """How one trait of the samples differs from the reference's; intervals are 95 % jackknife intervals.

    `change`: mean of the samples minus that of the reference, in % of the volume (of the ratio left / right for an
    asymmetry). `d`: the same over the pooled standard deviation (Cohen). `spread`: ratio of the standard deviations.
    `p_mean` (Welch) and `p_spread` (Brown and Forsythe 1974) are Holm-corrected over all rows and both tests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
