"""Size of the brain: do samples have as many bright voxels as real volumes, and as much variety in it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from mribench.data.volume_set import VolumeSet
from mribench.metrics.metric import ArraySource, Keep, Metric

THRESHOLD = 0.1  # of a volume's range [0,1]
Proportions = dict[str, np.ndarray]  # set name -> `[N]`


def _proportions(volumes: VolumeSet) -> np.ndarray:
    return np.array([(volumes[i] > THRESHOLD).mean() for i in range(len(volumes))])


@dataclass(frozen=True, kw_only=True, eq=False)
class BrainSize(Metric[Proportions]):
    """Wasserstein-1 distance of two sets of proportions: voxels above the threshold, per volume."""

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {"threshold": THRESHOLD, "distance": "wasserstein-1"}

    def gather(self, arrays: ArraySource) -> Proportions:
        return {name: _proportions(arrays.sets[name]) for name in ("samples", "reference")}

    def value(self, gathered: Proportions, keep: Keep) -> float:
        samples, reference = (gathered[name][keep[name]] for name in ("samples", "reference"))
        return float(wasserstein_distance(samples, reference))


BRAIN_SIZE = BrainSize(
    name="brain_size",
    title="Brain size",
    unit="proportion of voxels",
    family="brain_size",
    better="lower",
    opt_in=True,
    detects=("noise",),
    measures="Whether the brains of the samples are as large as those of the reference, and as different in size.",
    blind_to="It does not measure what is inside a brain, and it does not detect copies.",
)
