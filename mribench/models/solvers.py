"""From noise to a volume in few calls of a denoiser: solvers of the diffusion ODE in z = x_0 + sigma eps.

DDIM and the ancestral sampler (Song et al. 2021), Heun's method (Karras et al. 2022, algorithm 1), DPM-Solver++ in its
single-step (2S) and multistep (2M) form (Lu et al. 2022, algorithms 1 and 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from mribench.runtime import Noise

Denoise = Callable[[Tensor, float], Tensor]  # (z, sigma) -> estimate of x_0
Sampler = Literal["dpmpp", "dpmpp_2s", "heun", "ddim", "ancestral"]
RHO = 7.0  # of Karras's levels


def karras_levels(largest: float, smallest: float, count: int) -> list[float]:
    """`count` noise levels from largest to smallest, evenly spaced in sigma^(1/7) (Karras et al. 2022, eq. 5)."""
    if count == 1:
        return [largest]
    ends = largest ** (1 / RHO), smallest ** (1 / RHO)
    return [(ends[0] + i / (count - 1) * (ends[1] - ends[0])) ** RHO for i in range(count)]


def level_count(sampler: Sampler, calls: int) -> int:
    """Noise levels that at most `calls` calls of the denoiser reach; 2S and Heun take two a level, one at the last."""
    return (calls + 1) // 2 if sampler in ("dpmpp_2s", "heun") else calls


def solve(
    sampler: Sampler, denoise: Denoise, noise: Noise, shape: tuple[int, ...], levels: list[float], eta: float
) -> Tensor:
    """`[B,*shape]` from noise of the first level; the last estimate of the denoiser is returned as it is.

    `eta` is DDIM's proportion of fresh noise: 0 none, 1 the ancestral sampler.
    """
    z = levels[0] * noise.normal(*shape)
    if sampler in ("ddim", "ancestral"):
        return _ddim(denoise, z, levels, noise, eta if sampler == "ddim" else 1.0)
    return {"dpmpp": _multistep, "dpmpp_2s": _single_step, "heun": _heun}[sampler](denoise, z, levels)


def _ddim(denoise: Denoise, z: Tensor, levels: list[float], noise: Noise, eta: float) -> Tensor:
    for now, after in pairwise(levels):
        estimate = denoise(z, now)
        fresh = eta * after / now * math.sqrt(now**2 - after**2)
        z = estimate + math.sqrt(after**2 - fresh**2) / now * (z - estimate)
        if fresh > 0:
            z = z + fresh * noise.normal(*z.shape[1:])
    return denoise(z, levels[-1])


def _toward(z: Tensor, estimate: Tensor, now: float, after: float) -> Tensor:
    """The exact step from level to level while the estimate of x_0 stays the same."""
    return estimate + after / now * (z - estimate)


def _multistep(denoise: Denoise, z: Tensor, levels: list[float]) -> Tensor:
    before: Tensor | None = None
    step_before = 0.0
    for now, after in pairwise(levels):
        estimate, step = denoise(z, now), math.log(now / after)
        ahead = estimate
        if before is not None:
            ahead = torch.lerp(estimate, before, -step / (2 * step_before))
        z = _toward(z, ahead, now, after)
        before, step_before = estimate, step
    return denoise(z, levels[-1])


def _single_step(denoise: Denoise, z: Tensor, levels: list[float]) -> Tensor:
    for now, after in pairwise(levels):
        middle = math.sqrt(now * after)  # half-way in log sigma
        half = _toward(z, denoise(z, now), now, middle)
        z = _toward(z, denoise(half, middle), now, after)
    return denoise(z, levels[-1])


def _heun(denoise: Denoise, z: Tensor, levels: list[float]) -> Tensor:
    for now, after in pairwise(levels):
        slope = (z - denoise(z, now)) / now
        euler = z + (after - now) * slope
        z = z + (after - now) / 2 * (slope + (euler - denoise(euler, after)) / after)
    return denoise(z, levels[-1])
