"""Two metrics: one is ranked, one is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mribench.metrics.metric import ArraySource, Keep, Metric

PerVolume = dict[str, np.ndarray]  # set name -> `[N]`


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference(Metric[PerVolume]):
    """Absolute difference of the sets' means of one number per volume."""

    statistic: str  # of the voxels of a volume: a function of numpy

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {"statistic": self.statistic}

    def gather(self, arrays: ArraySource) -> PerVolume:
        number = getattr(np, self.statistic)
        sets = {name: arrays.sets[name] for name in ("samples", "reference")}
        return {name: np.array([number(of[i]) for i in range(len(of))]) for name, of in sets.items()}

    def value(self, gathered: PerVolume, keep: Keep) -> float:
        samples, reference = (gathered[name][keep[name]].mean() for name in ("samples", "reference"))
        return float(abs(samples - reference))


BRIGHTNESS = Difference(
    name="brainkit_brightness",
    title="Brightness",
    statistic="mean",
    family="brainkit_brightness",
    better="lower",
    ranked=True,
    measures="Whether samples are as bright as reference volumes.",
    blind_to="Where they are bright.",
)
CONTRAST = Difference(
    name="brainkit_contrast",
    title="Contrast",
    statistic="std",
    family="brainkit_contrast",
    better="lower",
    measures="Whether samples have the contrast of reference volumes.",
    blind_to="Where they have it.",
)
