"""Wavelet diffusion: MONAI's U-Net denoises the eight Haar subbands of a volume at half its size."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from monai.networks.schedulers import DDIMScheduler
from pydantic import Field
from torch import Tensor

from mribench.models.generator import NextBatch
from mribench.runtime import Noise
from mribench_monai.unet import SMALLEST, TINY, UNetConfig, UNetGenerator, ddim

LOW_SCALE = 3.0  # of the low-pass subband, which is 2 * 2^0.5 where a volume is 1
STEPS = 1000

# The public script for 128^3 without attention, where its U-Net adds the skips and MONAI's stacks them.
PAPER: dict[str, Any] = {
    "size": 128,
    "batch_size": 10,
    "budget": 12_000_000,  # 1.2 million iterations
    "channels": (64, 128, 128, 256, 256),
    "attention": (False,) * 5,
    "learning_rate": 1e-5,
    "calls": 1000,
}


def haar(like: Tensor) -> Tensor:
    """The orthonormal Haar filters of a block of 2^3 voxels, `[8,1,2,2,2]`; the first is low-pass along all axes."""
    pairs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], device=like.device) / math.sqrt(2)
    filters = [torch.einsum("d,h,w->dhw", *(pairs[i] for i in signs)) for signs in product((0, 1), repeat=3)]
    return torch.stack(filters)[:, None]


def subbands(volumes: Tensor) -> Tensor:
    """`[B,1,D,H,W]` in [-1,1] -> its Haar coefficients `[B,8,D/2,H/2,W/2]`, the low-pass ones over `LOW_SCALE`."""
    bands = F.conv3d(volumes.float(), haar(volumes), stride=2)
    return torch.cat([bands[:, :1] / LOW_SCALE, bands[:, 1:]], dim=1)


def volume(bands: Tensor) -> Tensor:
    """The inverse of `subbands`."""
    bands = torch.cat([bands[:, :1] * LOW_SCALE, bands[:, 1:]], dim=1).float()
    return F.conv_transpose3d(bands, haar(bands), stride=2)


class WaveletDiffusionConfig(UNetConfig):
    """Settings of wavelet diffusion."""

    learning_rate: float = Field(default=1e-5, gt=0)

    @property
    def unit(self) -> int:
        """Also the transform halves the sides."""
        return 2 * super().unit


class WaveletDiffusion(UNetGenerator):
    """Denoising diffusion of Haar coefficients with x0-prediction; estimates are clipped as volumes.

    As published: the scaled low-pass subband, the mean squared error over all subbands, linear betas, T = 1000, Adam.
    Different: MONAI's U-Net; an average of the weights; DDIM, because the ancestral sampler of MONAI draws the noise of
    a whole batch from one generator, and a volume must not depend on its batch.
    """

    Config = WaveletDiffusionConfig
    title = "Wavelet diffusion"
    summary = "a diffusion model of the Haar coefficients of a volume"
    source = "Friedrich et al. 2024; networks of MONAI"
    PRESETS: ClassVar = {
        "tiny": {
            **TINY,
            "batch_size": 4,
            "budget": 1_600,
            "channels": (16, 32, 64),
            "attention": (False, False, True),
            "calls": 20,
        },
        "paper": PAPER,
    }
    SMALLEST: ClassVar = SMALLEST

    def __init__(self, config: WaveletDiffusionConfig) -> None:
        super().__init__(config, 8)
        self.config: WaveletDiffusionConfig = config

    @cached_property
    def _schedule(self) -> DDIMScheduler:
        return DDIMScheduler(STEPS, "linear_beta", clip_sample=False, prediction_type="sample")

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """One step down the squared error of the coefficients, each volume at its own time."""
        bands = subbands(next_batch())
        times = torch.randint(STEPS, (len(bands),), device=bands.device)
        noisy = self._schedule.add_noise(bands, torch.randn_like(bands), times)
        loss = F.mse_loss(self.net(noisy, times).float(), bands)
        self.learn(loss)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]: `calls` steps of DDIM, then the inverse transform."""
        halves = [side // 2 for side in self.config.array_shape]

        def clean(x: Tensor, times: Tensor) -> Tensor:
            return subbands(volume(self.ema(x, times)).clamp(-1, 1))

        bands = ddim(self._schedule, clean, noise.normal(8, *halves), self.config.calls)
        return volume(bands).clamp(-1, 1)
