"""The metrics by name. Importing this package imports nothing heavy; `get_metric` loads one metric, without torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mribench.errors import UsageError

if TYPE_CHECKING:
    from mribench.metrics.metric import Metric

# The order of scores, columns and families. A change of it changes the digest of every protocol.
METRICS: dict[str, str] = {
    "ms_ssim": "mribench.metrics.ms_ssim:MS_SSIM",
    "mmd": "mribench.metrics.mmd:MMD",
    "fid_a": "mribench.metrics.fid:FID_A",
    "fid_c": "mribench.metrics.fid:FID_C",
    "fid_s": "mribench.metrics.fid:FID_S",
    "memorisation": "mribench.metrics.memorisation:MEMORISATION",
    "copy_rate": "mribench.metrics.memorisation:COPY_RATE",
    "fid_a_central": "mribench.metrics.fid:FID_A_CENTRAL",
    "fid_c_central": "mribench.metrics.fid:FID_C_CENTRAL",
    "fid_s_central": "mribench.metrics.fid:FID_S_CENTRAL",
    "kid_a": "mribench.metrics.kid:KID_A",
    "kid_c": "mribench.metrics.kid:KID_C",
    "kid_s": "mribench.metrics.kid:KID_S",
    "precision": "mribench.metrics.prdc:PRECISION",
    "recall": "mribench.metrics.prdc:RECALL",
    "density": "mribench.metrics.prdc:DENSITY",
    "coverage": "mribench.metrics.prdc:COVERAGE",
    "mmd_voxel": "mribench.metrics.mmd:MMD_VOXEL",
    "mmd_legacy": "mribench.metrics.mmd:MMD_LEGACY",
    "ms_ssim_kwon2019": "mribench.metrics.ms_ssim:MS_SSIM_KWON2019",
    "fid_3d": "mribench.metrics.fid:FID_3D",
    "anatomy": "mribench.metrics.anatomy:ANATOMY",
    "slice_consistency": "mribench.metrics.consistency:SLICE_CONSISTENCY",
}


def get_metric(name: str) -> Metric[Any]:
    """The metric called `name`; raises UsageError with the nearest known name when there is none."""
    check_name("metric", name, METRICS)
    module, _, attribute = METRICS[name].partition(":")
    metric: Metric[Any] = getattr(importlib.import_module(module), attribute)
    return metric


def default_metrics() -> tuple[str, ...]:
    """Names of all metrics but those that are computed only when they are asked for."""
    return tuple(name for name in METRICS if not get_metric(name).opt_in)


def check_name(kind: str, name: str, names: Iterable[str]) -> str:
    """`name` itself if it is one of `names`; otherwise UsageError with a guess at what was meant."""
    choices = sorted(names)
    if name in choices:
        return name
    guess = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {guess[0]!r}?" if guess else ""
    raise UsageError(f"There is no {kind} called {name!r}.{hint} Choose one of: {', '.join(choices)}.")
