"""The metrics by name. Importing this package imports nothing heavy; `get_metric` loads one metric, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mribench.plugins import Registry

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


METRIC_REGISTRY: Registry[Metric[Any]] = Registry("metric", METRICS, "mribench.metrics.metric:Metric")
get_metric = METRIC_REGISTRY.get


def default_metrics() -> tuple[str, ...]:
    """Names of mribench's own metrics but for those that are computed only when they are asked for.

    Plug-ins are not among them: what is installed must not change the digest of a protocol.
    """
    return tuple(name for name in METRICS if not get_metric(name).opt_in)


def plugin_metrics() -> tuple[str, ...]:
    """Names of the plug-in metrics that are computed without being asked for by name, outside benches."""
    return tuple(
        name for name, metric in METRIC_REGISTRY.usable() if name not in METRICS and not metric.opt_in
    )
