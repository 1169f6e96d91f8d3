"""MS-SSIM of all pairs of volumes, and diversity as its mean over the pairs of samples.

torch is imported where volumes are compared, so that the declarations below can be read without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mribench.errors import MribenchError
from mribench.metrics.metric import ArraySource, Keep, Metric
from mribench.metrics.score import Better, Display

if TYPE_CHECKING:
    import torch

    from mribench.metrics.arrays.pairs import Kernel
    from mribench.metrics.arrays.similarity import Definition, Kwon2019


def ms_ssim_matrix(
    a: np.ndarray,
    b: np.ndarray | None = None,
    definition: Definition | Kwon2019 | None = None,
    *,
    engine: Literal["native", "reference"] = "native",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """MS-SSIM of all volumes of `a` `[N,D,H,W]` with all of `b` `[M,D,H,W]` (or of `a`), `[N,M]` float64.

    Volumes lie in [0,1]. `definition=None` applies the size rule to the smallest side. `engine="reference"`
    calls pytorch-msssim pair by pair. Raises MribenchError for a wrong shape, range or NaN, and when a
    side is too short for the definition or (reference) for that package's own rule.

    >>> import numpy as np
    >>> from mribench.metrics.ms_ssim import ms_ssim_matrix
    >>> volumes = np.random.default_rng(0).random((3, 32, 32, 32)).astype(np.float32)
    >>> matrix = ms_ssim_matrix(volumes)
    >>> matrix.shape, bool((matrix == matrix.T).all()), matrix.diagonal().tolist()
    ((3, 3), True, [1.0, 1.0, 1.0])
    """
    if engine not in ("native", "reference"):
        raise MribenchError(f"The engine must be native or reference, not {engine!r}.")
    for name, volumes in (("a", a), ("b", b)):
        if volumes is not None and (volumes.ndim != 4 or len(volumes) == 0):
            raise MribenchError(f"{name} must be volumes [N,D,H,W], but has the shape {list(volumes.shape)}.")
    if b is not None and a.shape[1:] != b.shape[1:]:
        raise MribenchError(
            f"Volumes must share one shape, but a has {list(a.shape)} and b has {list(b.shape)}."
        )
    from mribench.metrics.arrays.pairs import pair_matrix
    from mribench.metrics.arrays.similarity import definition_for

    kernel = definition or definition_for(min(a.shape[1:]))
    if engine == "reference":
        return _reference_matrix(a, a if b is None else b, kernel)
    return pair_matrix(a, b, kernel, device=device)


def _reference_matrix(a: np.ndarray, b: np.ndarray, definition: Kernel) -> np.ndarray:
    import torch
    from pytorch_msssim import ms_ssim

    from mribench.metrics.arrays.pairs import checked
    from mribench.metrics.arrays.similarity import SIGMA, Definition

    if not isinstance(definition, Definition):
        raise MribenchError(f"pytorch-msssim has no {definition.name}; use engine='native'.")
    _check_reference(a.shape[1:], definition)

    def tensors(volumes: np.ndarray, name: str) -> list[torch.Tensor]:
        valid = (checked(v, a.shape[1:], f"Volume {i} of {name}") for i, v in enumerate(volumes))
        return [torch.from_numpy(volume)[None, None] for volume in valid]

    def similarity(x: torch.Tensor, y: torch.Tensor) -> float:
        weights = list(definition.weights)
        return float(
            ms_ssim(x, y, data_range=1.0, win_size=definition.window, win_sigma=SIGMA, weights=weights)
        )

    columns = tensors(b, "b")
    return np.array([[similarity(x, y) for y in columns] for x in tensors(a, "a")])


def _check_reference(shape: tuple[int, ...], definition: Definition) -> None:
    """That package asks for sides above 16 (w - 1) whatever the scales, ignores the depth, pads odd sides."""
    shortest, divisor = 16 * (definition.window - 1) + 1, 2 ** (definition.scales - 1)
    if min(shape) < shortest or any(side % divisor for side in shape):
        raise MribenchError(
            f"pytorch-msssim computes {definition.name} only for sides of at least {shortest} voxels that "
            f"are multiples of {divisor}, but volumes are {list(shape)}. Use engine='native'."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMean(Metric[dict[str, np.ndarray]]):
    """Diversity: the mean MS-SSIM over all unordered pairs of samples, to match that of the reference."""

    kwon2019: bool = False  # the formula of Kwon 2019's code instead of the size rule
    family: str = "ms_ssim"
    better: Better = "match"
    detects: tuple[str, ...] = ("mean_volume", "noise")
    resampled: tuple[str, ...] = ("samples",)
    target_resampled: tuple[str, ...] = ("reference",)

    def _kernel(self) -> Kernel | None:
        """None = the size rule."""
        from mribench.metrics.arrays.similarity import Kwon2019

        return Kwon2019() if self.kwon2019 else None

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        kernel = self._kernel()
        name = kernel.name if kernel else arrays.similarity
        return {"definition": name, "pairs": "all-unordered", "target": "reference"}

    def gather(self, arrays: ArraySource) -> dict[str, np.ndarray]:
        """The two square matrices, `[N,N]` and `[M,M]`."""
        return {name: arrays.pairs(name, name, self._kernel()) for name in ("samples", "reference")}

    def value(self, gathered: dict[str, np.ndarray], keep: Keep) -> float:
        return mean_of_pairs(gathered["samples"], keep["samples"])

    def target(self, gathered: dict[str, np.ndarray], keep: Keep) -> float:
        return mean_of_pairs(gathered["reference"], keep["reference"])


def mean_of_pairs(matrix: np.ndarray, keep: np.ndarray) -> float:
    """Mean of the entries above the diagonal of a symmetric `[N,N]` matrix, restricted to `keep`."""
    part = matrix[np.ix_(keep, keep)]
    n = len(part)
    return float((part.sum() - np.trace(part)) / (n * (n - 1)))


MS_SSIM = PairMean(
    name="ms_ssim",
    title="MS-SSIM",
    ranked=True,
    measures=(
        "How similar the samples are to one another: the mean over all pairs of whole volumes. It should equal "
        "the mean over the pairs of real volumes. A higher value means too little variety; a lower value means "
        "too much variety, or noise."
    ),
    blind_to=(
        "It does not measure whether a sample looks like a brain or whether it was copied: exact copies of the "
        "training set get a perfect score."
    ),
    display=Display(
        heading="MS-SSIM (%)",
        gap="gap",
        family="MS-SSIM gap",
        aim="as the real set",
        scale=100,
        digits=2,
        bounds=(0, 100),
    ),
)
MS_SSIM_KWON2019 = PairMean(
    name="ms_ssim_kwon2019",
    title="MS-SSIM (Kwon 2019 code)",
    opt_in=True,
    kwon2019=True,
    measures=(
        "MS-SSIM as the evaluation code of Kwon 2019 computes it, with that code's product error. It serves "
        "only for comparison with old tables that used this code."
    ),
    blind_to="The same as MS-SSIM. Its values cannot be compared with those of the standard formula.",
)
