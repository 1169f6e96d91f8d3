"""What the two diffusion models share: their settings, the averaged copy of the network, the choice of sampler."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mribench.models.diffusion import Diffusion, average_weights
from mribench.models.generator import Generator, GeneratorConfig
from mribench.runtime import Noise


class DiffusionConfig(GeneratorConfig):
    """Settings of both; the defaults are cDPM's."""

    base: int = Field(default=128, ge=2, multiple_of=2)  # channels at full size
    multipliers: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 1, 2, 3, 4), min_length=1)
    res_blocks: int = Field(default=2, ge=1)
    attention_sizes: tuple[int, ...] = (16, 8)  # in-plane sizes, pixels; the middle always attends
    steps: int = Field(default=1000, ge=21)  # T; at 20 the linear schedule would end in beta = 1
    prediction: Literal["eps", "x0", "v"] = "eps"
    variance: Literal["large", "small"] = "large"  # of the ancestral sampler
    ddim_steps: int | None = None  # None = ancestral over all T
    eta: float = Field(default=0.0, ge=0, le=1)  # DDIM: 0 deterministic, 1 as noisy as ancestral
    learning_rate: float = Field(default=1e-4, gt=0)
    ema: float = Field(default=0.9999, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> DiffusionConfig:
        unit = 2 ** (len(self.multipliers) - 1)
        if self.size % unit:
            raise ValueError(f"size must be a multiple of {unit}")
        levels = [self.size >> level for level in range(len(self.multipliers))]
        if strange := set(self.attention_sizes) - set(levels):
            raise ValueError(
                f"attention_sizes must be among {levels}, the in-plane sizes of the network, not {strange}"
            )
        if self.ddim_steps is not None and not 0 < self.ddim_steps <= self.steps:
            raise ValueError(f"ddim_steps must be between 1 and {self.steps}")
        if self.eta > 0 and self.ddim_steps is None:
            raise ValueError("eta must be 0 without ddim_steps; the ancestral sampler has variance instead")
        return self


class DiffusionGenerator(Generator):
    """A network `net` trained to denoise; its running average `ema` makes the samples."""

    needs = ("ema",)
    sampler_settings: ClassVar[tuple[str, ...]] = ("ddim_steps", "eta", "variance")
    updates: Tensor  # optimizer steps so far

    def __init__(self, config: Any, net: nn.Module, betas: Tensor) -> None:
        super().__init__(config)
        self.net = net
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.diffusion = Diffusion(betas, config.prediction)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def decay(self) -> Tensor:
        """Share of the past, float64, that the average keeps at the step after `updates` steps."""
        raise NotImplementedError(f"{type(self).__name__} must define decay")

    def average(self) -> None:
        """Count an optimizer step; the average keeps its share `decay` and takes the rest from the network."""
        average_weights(self.ema, self.net, self.decay())
        self.updates += 1

    def denoise(
        self, predict: Callable[[Tensor, Tensor], Tensor], noise: Noise, shape: tuple[int, ...]
    ) -> Tensor:
        """`[B,*shape]` in [-1,1] from pure noise by the sampler of the settings; `predict` as in Diffusion.sample."""
        c = self.config
        return self.diffusion.sample(
            predict, noise, shape, ddim_steps=c.ddim_steps, eta=c.eta, variance=c.variance
        )
