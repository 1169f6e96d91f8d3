"""Models of which one network is trained after the other, as the two of latent diffusion are."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mribench.models.generator import Generator, GeneratorConfig, NextBatch


class TwoStageConfig(GeneratorConfig):
    """Settings of a training in two stages; `warmup`, `decay_from` and `decay_to` hold in each of them."""

    first_share: float = Field(default=0.5, gt=0, lt=1)  # of the budget: volumes seen in the first stage


class TwoStageGenerator(Generator):
    """A model whose step is `first_step` until its share of the budget was seen, then `second_step`.

    A second stage that has begun goes on, whatever the budget becomes.
    """

    stages: ClassVar[tuple[str, ...]] = ("first", "second")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._began = (0, 0)  # steps made and volumes seen when this stage began
        self.stage_share = 0.0  # of this stage's volumes that were seen

    def begin_step(self, step: int, seen: int) -> None:
        """The stage, how far it is, and the learning rates."""
        c = self.config
        first = c.first_share * c.budget
        if self.stage == 0 and seen >= first:
            self.stage, self._began = 1, (step, seen)
        steps_before, seen_before = self._began
        volumes = (c.budget if self.stage else first) - seen_before
        self.stage_share = (seen - seen_before) / volumes
        self.scale_rates(c.rate_share(step - steps_before, seen - seen_before, volumes))

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """The present stage's step."""
        return self.second_step(next_batch) if self.stage else self.first_step(next_batch)

    def first_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """As `training_step`, for the first stage."""
        raise NotImplementedError(f"{type(self).__name__} must define first_step")

    def second_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """As `training_step`, for the second stage."""
        raise NotImplementedError(f"{type(self).__name__} must define second_step")

    def get_extra_state(self) -> Tensor:
        """What a checkpoint holds of the stages; on the CPU, so that no step waits for a device."""
        return torch.tensor([self.stage, *self._began], device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take up what a checkpoint holds."""
        self.stage, *began = state.tolist()
        self._began = (began[0], began[1])
