"""Rectified flow on whole volumes: MONAI's U-Net predicts the velocity from noise to data."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from monai.networks.schedulers import RFlowScheduler
from pydantic import Field
from torch import Tensor

from mribench.models.generator import NextBatch
from mribench.runtime import Noise
from mribench_monai.unet import SMALLEST, TINY, UNetConfig, UNetGenerator

# The authors' public settings for unconditional 3-D MRI; their 100 passes are taken over 1,000 volumes.
PAPER: dict[str, Any] = {
    "size": 128,
    "batch_size": 1,
    "budget": 100_000,
    "channels": (32, 64, 160, 480),
    "attention": (False, False, False, True),
    "head_channels": (32, 64, 160, 480),
    "residual_resampling": True,
    "accumulation": 4,
    "times": "uniform",
    "calls": 10,
}


class RectifiedFlowConfig(UNetConfig):
    """Settings of rectified flow."""

    times: Literal["uniform", "logit-normal"] = "uniform"  # how training draws them
    accumulation: int = Field(default=1, ge=1)  # batches per optimizer step


class RectifiedFlow(UNetGenerator):
    """x_t goes straight from noise to a volume; the U-Net learns the velocity, Euler steps follow it.

    The U-Net, times, noising and Euler steps are MONAI's. Our choice: an average of the weights makes the samples.
    """

    Config = RectifiedFlowConfig
    title = "Rectified flow"
    summary = "a U-Net that learns straight paths from noise to volumes"
    source = "Liu et al. 2023; settings of Yazdani et al. 2025; networks of MONAI"
    PRESETS: ClassVar = {
        "tiny": {
            **TINY,
            "batch_size": 2,
            "budget": 600,
            "channels": (8, 16, 32, 64),
            "attention": (False, False, False, True),
            "times": "logit-normal",
            "calls": 16,
        },
        "paper": PAPER,
    }
    SMALLEST: ClassVar = SMALLEST

    def __init__(self, config: RectifiedFlowConfig) -> None:
        super().__init__(config, 1)
        self.config: RectifiedFlowConfig = config

    @cached_property
    def _schedule(self) -> RFlowScheduler:
        return RFlowScheduler(use_discrete_timesteps=False, sample_method=self.config.times)

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """One step down the squared error of the velocity, each volume at its own time."""
        loss = self.descend_mean(lambda: self._loss(next_batch()), self.config.accumulation, "net")
        self.average()
        return {"loss": loss}

    def _loss(self, volumes: Tensor) -> Tensor:
        noise, times = torch.randn_like(volumes), self._schedule.sample_timesteps(volumes)
        x_t = self._schedule.add_noise(volumes, noise, times)
        return F.mse_loss(self.net(x_t, times).float(), volumes - noise)

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]: `calls` Euler steps."""
        x = noise.normal(1, *self.config.array_shape)
        self._schedule.set_timesteps(self.config.calls)
        times = [*self._schedule.timesteps.tolist(), 0]
        for now, after in pairwise(times):
            velocity = self.ema(x, torch.full((len(x),), float(now), device=x.device)).float()
            x, _ = self._schedule.step(velocity, now, x, after)
        return x.clamp(-1, 1)
