"""Multi-scale structural similarity in 3D, and diversity as its mean over pairs.

Wang, Simoncelli and Bovik 2003 with valid Gaussian windows, 2 x 2 x 2 mean pooling, and each scale's
factor clipped at zero. The name of a `Definition` says everything that can move the number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mribench.errors import MribenchError
from mribench.metrics.arrays.pairs import NARROW, Kernel, State, checked, pair_matrix
from mribench.metrics.metric import ArraySource, Better, Keep

WANG_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, section 3.2
SIGMA = 1.5  # voxels
C1 = 0.01**2  # (K1 L)^2 with the data range L = 1
C2 = 0.03**2
WEIGHT_STEPS = 2**25  # float32 holds every multiple of 2^-25 up to 1/2
PIECE_VOXELS = 2**24  # voxels that a GPU compares at once: about 0.4 GB of intermediate results


@dataclass(frozen=True)
class Definition:
    """MS-SSIM of volumes in [0,1]: a Gaussian window of `window`^3 voxels and `scales` scales."""

    window: int
    scales: int
    tile: ClassVar[int] = NARROW

    @property
    def name(self) -> str:
        return f"msssim3d/g{self.window}s{SIGMA:g}-{self.scales}-valid-L1"

    @property
    def weights(self) -> tuple[float, ...]:
        """The first weights of Wang 2003, renormalised to the sum 1; all five as printed there."""
        chosen = WANG_WEIGHTS[: self.scales]
        return chosen if self.scales == 5 else tuple(w / sum(chosen) for w in chosen)

    @property
    def smallest_side(self) -> int:
        """The window must fit at the last scale."""
        return self.window * 2 ** (self.scales - 1)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise MribenchError when a side of `[D,H,W]` is too short."""
        if min(shape) < self.smallest_side:
            raise MribenchError(
                f"{self.name} needs sides of at least {self.smallest_side} voxels, but volumes are "
                f"{list(shape)}. Use definition_for(smallest side)."
            )

    def prepare(self, volumes: Tensor, first: int = 0) -> State:
        """Per scale from `first` on, of which `volumes` are: the volume, its local means and variances, `[N,d,h,w]`.

        On a CPU padded, and with spans (see `fused.Scale`).
        """
        states: list[Tensor] = []
        for scale in range(first, self.scales):
            if scale > first:
                volumes = F.avg_pool3d(volumes, 2)
            states += self.statistics(volumes)
        return tuple(states)

    def statistics(self, volumes: Tensor) -> State:
        """One scale's share of `prepare`."""
        window = gaussian_window(self.window)
        if volumes.device.type == "cpu":
            from mribench.metrics.arrays.kernels import fused

            return tuple(torch.from_numpy(array) for array in fused.statistics(volumes.numpy(), window))
        return statistics(volumes, window)

    def compare(self, rows: State, columns: State) -> Tensor:
        """`[R,C]` float64."""
        scores = rows[0].new_ones((len(rows[0]), len(columns[0])), dtype=torch.float64)
        each = len(rows) // self.scales
        for scale in range(self.scales):
            chosen = slice(each * scale, each * (scale + 1))
            scores *= self.factor(rows[chosen], columns[chosen], scale)
        return scores

    def factor(self, rows: State, columns: State, scale: int) -> Tensor:
        """What one scale contributes to the score, in [0,1] but for rounding: `[R,C]` float64."""
        last = scale == self.scales - 1
        if rows[0].device.type == "cpu":
            from mribench.metrics.arrays.kernels import fused

            x, y = fused.Scale(*(t.numpy() for t in rows)), fused.Scale(*(t.numpy() for t in columns))
            means = fused.factors(x, y, gaussian_window(self.window), last).clip(min=0)
            # torch's power of a number depends on the number's place in the array
            return torch.from_numpy(np.power(means, self.weights[scale]))
        return factors(rows, columns, gaussian_window(self.window), last).clamp(min=0) ** self.weights[scale]


@dataclass(frozen=True)
class Kwon2019:
    """The alpha-WGAN evaluation code's variant (Kwon 2019), its product bug included; slow, for old tables.

    Gaussian windows with reflected borders, five scales, and the last scale's factor raised four times.
    """

    name: str = "msssim3d/kwon2019-L1"
    tile: ClassVar[int] = NARROW

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise MribenchError when five scales do not fit."""
        if min(shape) < 16:
            raise MribenchError(
                f"{self.name} needs sides of at least 16 voxels, but volumes are {list(shape)}."
            )

    def prepare(self, volumes: Tensor) -> State:
        """Per scale: the volume, its local means and variances; `[N,d,h,w]` each."""
        states: list[Tensor] = []
        for scale in range(len(WANG_WEIGHTS)):
            if scale:
                volumes = F.avg_pool3d(volumes, 2)
            mean = _smooth_reflected(volumes)
            states += [volumes, mean, _smooth_reflected(volumes * volumes) - mean * mean]
        return tuple(states)

    def compare(self, rows: State, columns: State) -> Tensor:
        """`[R,C]` float64."""
        scores = rows[0].new_ones((len(rows[0]), len(columns[0])), dtype=torch.float64)
        last = len(WANG_WEIGHTS) - 1
        for scale, weight in enumerate(WANG_WEIGHTS):
            x, mx, vx = rows[3 * scale : 3 * scale + 3]
            for column in range(len(columns[0])):
                y, my, vy = (t[column] for t in columns[3 * scale : 3 * scale + 3])
                similarity = (2 * (_smooth_reflected(x * y) - mx * my) + C2) / (vx + vy + C2)
                if scale == last:
                    similarity = similarity * (2 * mx * my + C1) / (mx * mx + my * my + C1)
                factor = similarity.double().mean((-1, -2, -3)).clamp(min=0)
                scores[:, column] *= factor ** (4 * weight if scale == last else weight)
        return scores


def _smooth_reflected(volumes: Tensor) -> Tensor:
    from scipy.ndimage import gaussian_filter

    filtered = gaussian_filter(volumes.cpu().numpy(), sigma=(0, SIGMA, SIGMA, SIGMA))
    return torch.from_numpy(filtered).to(volumes.device)


def gaussian_window(taps: int) -> tuple[float, ...]:
    """`taps` weights, sigma 1.5 voxels, that float32 holds exactly and whose sum is exactly 1.

    A sum that is off by 6e-8, as rounding leaves it, shifts every variance by that share of the squared mean.
    """
    weights = [math.exp(-0.5 * ((i - (taps - 1) / 2) / SIGMA) ** 2) for i in range(taps)]
    held = [round(w / sum(weights) * WEIGHT_STEPS) / WEIGHT_STEPS for w in weights]
    held[taps // 2] += 1 - sum(held)
    return tuple(held)


def smooth(volumes: Tensor, window: tuple[float, ...]) -> Tensor:
    """Valid separable filtering of the last three axes: every side loses len(window) - 1 voxels."""
    for axis in (-3, -2, -1):
        length = volumes.shape[axis] - len(window) + 1
        total = volumes.narrow(axis, 0, length) * window[0]
        for tap, weight in enumerate(window[1:], start=1):
            total.add_(volumes.narrow(axis, tap, length), alpha=weight)
        volumes = total
    return volumes


def statistics(volumes: Tensor, window: tuple[float, ...]) -> State:
    """The volumes `[N,D,H,W]`, their local means and variances, on any device (a CPU has its own, `fused`)."""
    mean = smooth(volumes, window)
    return volumes, mean, smooth(volumes * volumes, window) - mean * mean


def factors(x: State, y: State, window: tuple[float, ...], last: bool) -> Tensor:
    """Mean over positions of cs (with `last`: of the full SSIM) of all rows with all columns, `[R,C]` float64."""
    depth, plane = x[1].shape[1], x[0][0, 0].numel()
    slices = max(1, min(depth, PIECE_VOXELS // plane))
    batch = max(1, PIECE_VOXELS // (depth * plane)) if slices == depth else 1
    totals = x[0].new_zeros((len(x[0]), len(y[0])), dtype=torch.float64)
    for column in range(len(y[0])):
        for top in range(0, len(x[0]), batch):
            some = slice(top, top + batch)
            for start in range(0, depth, slices):
                seen = slice(start, min(depth, start + slices))
                wide = slice(start, seen.stop + len(window) - 1)
                x_piece = (x[0][some, wide], x[1][some, seen], x[2][some, seen])
                y_piece = (y[0][column, wide], y[1][column, seen], y[2][column, seen])
                local = _similarity(x_piece, y_piece, window, last)
                totals[some, column] += local.sum(-1).double().sum((-1, -2))
    return totals / x[1][0].numel()


def _similarity(x: State, y: State, window: tuple[float, ...], last: bool) -> Tensor:
    """The local map: (2 c + C2) / (vx + vy + C2), at the last scale times the luminance term."""
    means = x[1] * y[1]
    covariance = smooth(x[0] * y[0], window).sub_(means)
    similarity = covariance.mul_(2).add_(C2).div_((x[2] + y[2]).add_(C2))
    if last:
        luminance = (x[1] * x[1]).add_(y[1] * y[1]).add_(C1)
        similarity.mul_(means.mul_(2).add_(C1)).div_(luminance)
    return similarity


def definition_for(side: int) -> Definition:
    """The size rule for the smallest side in voxels; raises MribenchError below 3.

    From 112 on window 7 and 5 scales; below, window 3 and as many of the 5 scales as fit (64: 5, 32: 4).
    """
    if side >= 112:
        return Definition(window=7, scales=5)
    if side < 3:
        raise MribenchError(f"MS-SSIM needs sides of at least 3 voxels, but the smallest side is {side}.")
    return Definition(window=3, scales=min(5, 1 + int(math.log2(side / 3))))


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
    kernel = definition or definition_for(min(a.shape[1:]))
    if engine == "reference":
        return _reference_matrix(a, a if b is None else b, kernel)
    return pair_matrix(a, b, kernel, device=device)


def _reference_matrix(a: np.ndarray, b: np.ndarray, definition: Kernel) -> np.ndarray:
    from pytorch_msssim import ms_ssim

    if not isinstance(definition, Definition):
        raise MribenchError(f"pytorch-msssim has no {definition.name}; use engine='native'.")
    _check_reference(a.shape[1:], definition)
    x = [torch.from_numpy(checked(v, a.shape[1:], f"Volume {i} of a"))[None, None] for i, v in enumerate(a)]
    y = [torch.from_numpy(checked(v, a.shape[1:], f"Volume {i} of b"))[None, None] for i, v in enumerate(b)]
    options: dict[str, Any] = {
        "data_range": 1.0,
        "win_size": definition.window,
        "win_sigma": SIGMA,
        "weights": list(definition.weights),
    }
    return np.array([[float(ms_ssim(p, q, **options)) for q in y] for p in x])


def _check_reference(shape: tuple[int, ...], definition: Definition) -> None:
    """That package asks for sides above 16 (w - 1) whatever the scales, forgets the depth, pads odd sides."""
    shortest, divisor = 16 * (definition.window - 1) + 1, 2 ** (definition.scales - 1)
    if min(shape) < shortest or any(side % divisor for side in shape):
        raise MribenchError(
            f"pytorch-msssim computes {definition.name} only for sides of at least {shortest} voxels that "
            f"are multiples of {divisor}, but volumes are {list(shape)}. Use engine='native'."
        )


@dataclass(frozen=True)
class PairMean:
    """Diversity: the mean MS-SSIM over all unordered pairs of samples, to match that of the reference."""

    name: str
    title: str
    ranked: bool
    kernel: Kernel | None = None  # None = the size rule
    unit: str = ""
    family: str = "ms_ssim"
    better: Better = "match"
    detects: tuple[str, ...] = ("mean_volume", "noise")
    resampled: tuple[str, ...] = ("samples",)
    target_resampled: tuple[str, ...] = ("reference",)

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 3, "reference": 3}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        kernel = self.kernel or definition_for(min(arrays.shape))
        return {"definition": kernel.name, "pairs": "all-unordered", "target": "reference"}

    def gather(self, arrays: ArraySource) -> dict[str, np.ndarray]:
        """The two square matrices, `[N,N]` and `[M,M]`."""
        return {name: arrays.pairs(name, name, self.kernel) for name in ("samples", "reference")}

    def value(self, prepared: dict[str, np.ndarray], keep: Keep) -> float:
        return mean_of_pairs(prepared["samples"], keep["samples"])

    def target(self, prepared: dict[str, np.ndarray], keep: Keep) -> float:
        return mean_of_pairs(prepared["reference"], keep["reference"])


def mean_of_pairs(matrix: np.ndarray, keep: np.ndarray) -> float:
    """Mean of the entries above the diagonal of a symmetric `[N,N]` matrix, restricted to `keep`."""
    kept = matrix[np.ix_(keep, keep)]
    n = len(kept)
    return float((kept.sum() - np.trace(kept)) / (n * (n - 1)))


MS_SSIM = PairMean(name="ms_ssim", title="MS-SSIM", ranked=True)
MS_SSIM_KWON2019 = PairMean(
    name="ms_ssim_kwon2019", title="MS-SSIM (Kwon 2019 code)", ranked=False, kernel=Kwon2019()
)
