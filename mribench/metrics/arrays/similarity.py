"""Multi-scale structural similarity (MS-SSIM) in 3D as a pair kernel, on a CPU or a GPU.

Wang, Simoncelli and Bovik 2003 with valid Gaussian windows, 2 x 2 x 2 mean pooling, and each scale's
factor clipped at zero. The name of a `Definition` says everything that can move the number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mribench.errors import MribenchError
from mribench.metrics.arrays import kernels
from mribench.metrics.arrays.kernels import C1, C2
from mribench.metrics.arrays.pairs import NARROW, State

_WANG_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, section 3.2
SIGMA = 1.5  # voxels
_WEIGHT_STEPS = 2**25  # float32 holds every multiple of 2^-25 up to 1/2
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
        chosen = _WANG_WEIGHTS[: self.scales]
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

        On a CPU padded, and with spans (see `kernels`).
        """
        states: list[Tensor] = []
        for scale in range(first, self.scales):
            if scale > first:
                volumes = F.avg_pool3d(volumes, 2)
            states += self.statistics(volumes)
        return tuple(states)

    def statistics(self, volumes: Tensor) -> State:
        """What `prepare` gives at one scale."""
        window = gaussian_window(self.window)
        if volumes.device.type == "cpu":
            return tuple(torch.from_numpy(array) for array in kernels.statistics(volumes.numpy(), window))
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
            x, y = (kernels.Scale(*(tensor.numpy() for tensor in state)) for state in (rows, columns))
            means = kernels.factors(x, y, gaussian_window(self.window), last).clip(min=0)
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
        for scale in range(len(_WANG_WEIGHTS)):
            if scale:
                volumes = F.avg_pool3d(volumes, 2)
            mean = _smooth_reflected(volumes)
            states += [volumes, mean, _smooth_reflected(volumes * volumes) - mean * mean]
        return tuple(states)

    def compare(self, rows: State, columns: State) -> Tensor:
        """`[R,C]` float64."""
        scores = rows[0].new_ones((len(rows[0]), len(columns[0])), dtype=torch.float64)
        last = len(_WANG_WEIGHTS) - 1
        for scale, weight in enumerate(_WANG_WEIGHTS):
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

    A sum that is off by 6e-8, as rounding leaves it, shifts every variance by that part of the squared mean.
    """
    weights = [math.exp(-0.5 * ((i - (taps - 1) / 2) / SIGMA) ** 2) for i in range(taps)]
    rounded = [round(w / sum(weights) * _WEIGHT_STEPS) / _WEIGHT_STEPS for w in weights]
    rounded[taps // 2] += 1 - sum(rounded)
    return tuple(rounded)


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
    """The volumes `[N,D,H,W]`, their local means and variances, by torch; a CPU uses `kernels` instead."""
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
            rows = slice(top, top + batch)
            for start in range(0, depth, slices):
                inner = slice(start, min(depth, start + slices))
                outer = slice(start, inner.stop + len(window) - 1)
                x_piece = (x[0][rows, outer], x[1][rows, inner], x[2][rows, inner])
                y_piece = (y[0][column, outer], y[1][column, inner], y[2][column, inner])
                local = _similarity(x_piece, y_piece, window, last)
                totals[rows, column] += local.sum(-1).double().sum((-1, -2))
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
