"""The metrics by name. Importing this package imports nothing heavy; `get_metric` loads one metric."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mribench.errors import UsageError

if TYPE_CHECKING:
    from mribench.metrics.metric import Metric

METRICS: dict[str, str] = {
    "ms_ssim": "mribench.metrics.ms_ssim:MS_SSIM",
    "mmd": "mribench.metrics.mmd:MMD",
    "mmd_voxel": "mribench.metrics.mmd:MMD_VOXEL",
    "mmd_legacy": "mribench.metrics.mmd:MMD_LEGACY",
    "fid_a": "mribench.metrics.fid:FID_A",
    "fid_c": "mribench.metrics.fid:FID_C",
    "fid_s": "mribench.metrics.fid:FID_S",
    "kid_a": "mribench.metrics.kid:KID_A",
    "kid_c": "mribench.metrics.kid:KID_C",
    "kid_s": "mribench.metrics.kid:KID_S",
    "precision": "mribench.metrics.prdc:PRECISION",
    "recall": "mribench.metrics.prdc:RECALL",
    "density": "mribench.metrics.prdc:DENSITY",
    "coverage": "mribench.metrics.prdc:COVERAGE",
    "memorisation": "mribench.metrics.memorisation:MEMORISATION",
    "copy_rate": "mribench.metrics.memorisation:COPY_RATE",
    "ms_ssim_kwon2019": "mribench.metrics.ms_ssim:MS_SSIM_KWON2019",
    "fid_3d": "mribench.metrics.fid:FID_3D",
}

OPT_IN = ("ms_ssim_kwon2019", "fid_3d")
DEFAULT_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name not in OPT_IN)
# A slice that a slab holds is the same slice in whole volumes (Table 1 of Peng 2023 compares FID-A so).
COMPARED_IN_A_SLAB = ("fid_a", "kid_a")
FAMILIES = ("ms_ssim", "mmd", "fid", "memorisation")  # weight 1 each in the mean rank


def get_metric(name: str) -> Metric:
    """The metric called `name`; raises UsageError with the nearest known name when there is none."""
    check_name("metric", name, METRICS)
    module, _, attribute = METRICS[name].partition(":")
    metric: Metric = getattr(importlib.import_module(module), attribute)
    return metric


def check_name(kind: str, name: str, names: Iterable[str]) -> str:
    """`name` itself if it is one of `names`; otherwise UsageError with a guess at what was meant."""
    choices = sorted(names)
    if name in choices:
        return name
    guess = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {guess[0]!r}?" if guess else ""
    raise UsageError(f"There is no {kind} called {name!r}.{hint} Choose one of: {', '.join(choices)}.")
