"""mribench trains, samples and ranks 3D generative models of brain MRI.

The names of `__all__` are loaded at their first use, so that importing the package loads nothing else.

>>> import mribench, numpy as np
>>> volumes = np.random.default_rng(0).random((12, 32, 32, 32), dtype=np.float32)
>>> evaluation = mribench.evaluate(volumes[:6], volumes[6:], metrics=["ms_ssim"], device="cpu")
>>> [score.metric for score in evaluation.scores]
['ms_ssim']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mribench.bench.folder import open_bench
    from mribench.bench.protocol import Protocol
    from mribench.data.nifti import read_nifti
    from mribench.evaluation import evaluate
    from mribench.library import Bench
    from mribench.metrics.arrays.nearest import nearest_neighbours
    from mribench.metrics.fid import frechet_distance
    from mribench.metrics.kid import kid
    from mribench.metrics.metric import Metric
    from mribench.metrics.mmd import mmd2
    from mribench.metrics.ms_ssim import ms_ssim_matrix
    from mribench.metrics.prdc import prdc
    from mribench.models.generator import Generator
    from mribench.runtime import make_context
    from mribench.scored import Evaluation

__version__ = "0.2.0"

_HOME = {
    "Bench": "mribench.library",
    "Evaluation": "mribench.scored",
    "Generator": "mribench.models.generator",
    "Metric": "mribench.metrics.metric",
    "Protocol": "mribench.bench.protocol",
    "evaluate": "mribench.evaluation",
    "frechet_distance": "mribench.metrics.fid",
    "kid": "mribench.metrics.kid",
    "make_context": "mribench.runtime",
    "mmd2": "mribench.metrics.mmd",
    "ms_ssim_matrix": "mribench.metrics.ms_ssim",
    "nearest_neighbours": "mribench.metrics.arrays.nearest",
    "open_bench": "mribench.bench.folder",
    "prdc": "mribench.metrics.prdc",
    "read_nifti": "mribench.data.nifti",
}

__all__ = [
    "Bench",
    "Evaluation",
    "Generator",
    "Metric",
    "Protocol",
    "__version__",
    "evaluate",
    "frechet_distance",
    "kid",
    "make_context",
    "mmd2",
    "ms_ssim_matrix",
    "nearest_neighbours",
    "open_bench",
    "prdc",
    "read_nifti",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mribench' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
