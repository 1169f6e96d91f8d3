"""A generator: every voxel is normal, with a mean and a deviation of its own."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mribench.models.generator import Generator, GeneratorConfig, NextBatch
from mribench.runtime import Noise


class IndependentVoxelsConfig(GeneratorConfig):
    """Settings of IndependentVoxels."""

    learning_rate: float = Field(default=0.05, gt=0, lt=1)
    temperature: float = Field(default=1.0, ge=0)  # factor of the deviation in sampling


class VoxelStatistics(nn.Module):
    """Mean and logarithm of the deviation, each `[1,D,H,W]`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, size, size, size))
        self.log_deviation = nn.Parameter(torch.zeros(1, size, size, size))


class IndependentVoxels(Generator):
    """Maximum likelihood of independent voxels."""

    Config = IndependentVoxelsConfig
    title = "IndependentVoxels"
    summary = "independent voxels around the mean volume"
    source = "brainkit 2026"
    needs = ("voxels",)
    sampler_settings = ("temperature",)
    PRESETS: ClassVar = {"tiny": {"size": 32, "batch_size": 8, "budget": 800}}
    SMALLEST: ClassVar = {"size": 16}

    def __init__(self, config: IndependentVoxelsConfig) -> None:
        super().__init__(config)
        self.config: IndependentVoxelsConfig = config
        self.voxels = VoxelStatistics(config.size)
        self.optimizers = {"voxels": torch.optim.Adam(self.voxels.parameters(), lr=config.learning_rate)}

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """One step up the likelihood of a batch `[B,1,D,H,W]`."""
        spread = self.voxels.log_deviation.clamp(min=-4).exp()
        error = (next_batch() - self.voxels.mean) / spread
        loss = (error.square() / 2 + spread.log()).mean()
        self.descend(loss, "voxels")
        return {"likelihood": loss.detach()}

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]."""
        spread = self.config.temperature * self.voxels.log_deviation.clamp(min=-4).exp()
        return (self.voxels.mean + spread * noise.normal(1, *[self.config.size] * 3)).clamp(-1, 1)
