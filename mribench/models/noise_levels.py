"""Noise levels sigma of z = x_0 + sigma eps: what a network's answer at one means, which ones training draws.

With abar = 1 / (1 + sigma^2) this is the diffusion of `diffusion.py` divided by sqrt(abar); with
t = sigma / (1 + sigma) it is the rectified flow (1 - t) x_0 + t eps divided by 1 - t. So one description serves every
prediction.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mribench.models.diffusion import Diffusion

Prediction = Literal["eps", "x0", "v", "edm", "flow"]
DATA_SPREAD = 0.5  # standard deviation of volumes in [-1,1] (Karras et al. 2022, table 1)
LARGEST_SNR = 5.0  # of the loss weight min_snr (Hang et al. 2023)


class Reading(NamedTuple):
    """How a network F is used at one noise level: x_0 = skip z + out F(scale z, time); each `[B]`, float32."""

    scale: Tensor
    skip: Tensor
    out: Tensor
    time: Tensor  # 0 to 1000 for T = 1000

    def target(self, x_0: Tensor, z: Tensor) -> Tensor:
        """What F must answer so that `x_0 [B,...]` comes out."""
        return (x_0 - _column(self.skip, z) * z) / _column(self.out, z)

    def given(self, z: Tensor) -> Tensor:
        """What F is given."""
        return _column(self.scale, z) * z

    def estimate(self, z: Tensor, answer: Tensor) -> Tensor:
        """The x_0 that an answer implies, clipped to [-1,1]."""
        return (_column(self.skip, z) * z + _column(self.out, z) * answer).clamp(-1, 1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def read(prediction: Prediction, sigma: Tensor, process: Diffusion) -> Reading:
    """The reading of each prediction at `sigma [B]` (float64).

    eps, x0 and v are those of `process`, whose times are interpolated between its steps; edm is Karras et al. 2022,
    table 1; flow predicts eps - x_0 on the straight line from volume to noise (Liu et al. 2023).
    """
    one = torch.ones_like(sigma)
    root = (1 + sigma**2).sqrt()
    if prediction == "edm":
        norm = (sigma**2 + DATA_SPREAD**2).sqrt()
        time = (500 + 50 * sigma.log()) * (process.steps / 1000)
        values = (1 / norm, DATA_SPREAD**2 / norm**2, sigma * DATA_SPREAD / norm, time)
    elif prediction == "flow":
        share = sigma / (1 + sigma)
        values = (1 - share, 1 - share, -share, share * process.steps)
    else:
        skip, out = {
            "eps": (one, -sigma),
            "x0": (0 * one, one),
            "v": (1 / root**2, -sigma / root),
        }[prediction]
        values = (1 / root, skip, out, process.time_of(sigma))
    return Reading(*(value.float() for value in values))


def draw_sigma(count: int, mean: float, spread: float, device: torch.device) -> Tensor:
    """`[B]` float64 noise levels whose logarithm is normal; of flow's time t this is the logit-normal law."""
    return (mean + spread * torch.randn(count, device=device).double()).exp()


def draw_flow_sigma(count: int, device: torch.device) -> Tensor:
    """`[B]` float64 noise levels whose flow time is uniform in 0.001 to 0.999."""
    time = 0.001 + 0.998 * torch.rand(count, device=device).double()
    return time / (1 - time)


def min_snr_weight(sigma: Tensor, reading: Reading) -> Tensor:
    """`[B]` weight of the squared error of F that makes that of x_0 weigh min(1 / sigma^2, 5)."""
    return (1 / sigma.square()).clamp(max=LARGEST_SNR).float() * reading.out.square()
