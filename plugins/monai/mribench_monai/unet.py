"""What the three generators share: MONAI's U-Net with an average of its weights, and DDIM."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from pydantic import Field, model_validator
from torch import Tensor

from mribench.models.diffusion import average_weights
from mribench.models.generator import Generator, GeneratorConfig

Width = Annotated[int, Field(ge=1)]

# What the presets of all three generators have in common.
TINY: dict[str, Any] = {
    "size": 32,
    "res_blocks": 1,
    "groups": 8,
    "learning_rate": 1e-3,
    "ema": 0.995,
    "clip_norm": 1.0,
    "warmup": 20,
    "decay_from": 0.5,
}
SMALLEST: dict[str, Any] = {
    "size": 16,
    "channels": (8, 16),
    "attention": (False, True),
    "calls": 4,
    "warmup": 0,
    "ema": 0.9,
}


class UNetConfig(GeneratorConfig):
    """Settings of the U-Net, its training and its sampler."""

    channels: tuple[Width, ...] = Field(min_length=1)  # of the U-Net's levels, full size first
    attention: tuple[bool, ...]  # whether each level attends; the middle always does
    head_channels: tuple[int, ...] | None = None  # of an attention head at each level; None = one head
    res_blocks: int = Field(default=2, ge=1)
    groups: int = Field(default=32, ge=1)  # of group norm
    residual_resampling: bool = False  # residual blocks halve and double, not single convolutions
    learning_rate: float = Field(default=1e-4, gt=0)  # of the U-Net
    ema: float = Field(default=0.9999, ge=0, lt=1)  # kept of the past in the average; less while it is young
    clip_norm: float | None = Field(default=None, gt=0)  # of the gradient
    calls: int = Field(default=50, ge=1, le=1000)  # network calls of the sampler

    @property
    def unit(self) -> int:
        """What every side must be a multiple of."""
        return 2 ** (len(self.channels) - 1)

    @model_validator(mode="after")
    def _fits(self) -> UNetConfig:
        if any(side % self.unit for side in self.sides):
            raise ValueError(f"every side must be a multiple of {self.unit}, not {list(self.sides)}")
        if len(self.attention) != len(self.channels):
            raise ValueError(f"attention must say yes or no for each of {len(self.channels)} levels")
        if self.head_channels is not None and len(self.head_channels) != len(self.channels):
            raise ValueError(f"head_channels must be {len(self.channels)} numbers, one a level")
        if strange := [width for width in self.channels if width % self.groups]:
            raise ValueError(f"channels must be multiples of groups = {self.groups}, not {strange}")
        heads = self.head_channels or self.channels
        attending = [*(i for i, yes in enumerate(self.attention) if yes), len(self.channels) - 1]
        if any(heads[i] < 1 or self.channels[i] % heads[i] for i in attending):
            raise ValueError("head_channels must divide channels where a level attends")
        return self


class UNetGenerator(Generator):
    """A U-Net `net` whose running average `ema` makes the samples."""

    needs = ("ema",)
    cubes_only = ""
    sampler_settings: ClassVar[tuple[str, ...]] = ("calls",)
    updates: Tensor  # optimizer steps of the U-Net so far

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__(config)
        self.net = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=channels,
            out_channels=channels,
            num_res_blocks=config.res_blocks,
            channels=config.channels,
            attention_levels=config.attention,
            norm_num_groups=config.groups,
            resblock_updown=config.residual_resampling,
            num_head_channels=config.head_channels or config.channels,
        )
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.clip_norm = config.clip_norm
        self.optimizers["net"] = torch.optim.Adam(self.net.parameters(), lr=config.learning_rate)

    def learn(self, loss: Tensor) -> None:
        """One step of the U-Net down a loss, and of its average."""
        self.descend(loss, "net")
        self.average()

    def average(self) -> None:
        """Take the present weights of the U-Net into their average."""
        young = (1 + self.updates.double()) / (10 + self.updates.double())
        average_weights(self.ema, self.net, young.clamp(max=self.config.ema))
        self.updates += 1

    def complete_start(self, missing: set[str]) -> None:
        """A file with the averaged network alone starts both."""
        if any(name.startswith("net.") for name in missing):
            self.net.load_state_dict(self.ema.state_dict())


def ddim(
    schedule: DDIMScheduler, answer: Callable[[Tensor, Tensor], Tensor], x: Tensor, calls: int
) -> Tensor:
    """MONAI's deterministic DDIM from noise `x`; `answer(x, t [B])` is what the schedule's prediction means."""
    schedule.set_timesteps(calls)
    for step in schedule.timesteps.tolist():
        times = torch.full((len(x),), step, device=x.device)
        x, _ = schedule.step(answer(x, times).float(), step, x)
    return x
