"""3D-alpha-WGAN: Kwon, Han and Kim (MICCAI 2019, arXiv 1908.02498)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mribench.models.adversarial import (
    NATIVE_32,
    NATIVE_64,
    NATIVE_128,
    SMALLEST,
    UPSAMPLED_128,
    LatentGAN,
    LatentGANConfig,
    critic_loss,
    gradient_penalty,
)
from mribench.models.blocks import CodeCritic, VolumeCritic
from mribench.models.generator import NextBatch


class AlphaWGANConfig(LatentGANConfig):
    """Settings of 3D-alpha-WGAN; sources in docs/models.md."""

    code_width: int = Field(default=4096, ge=1)  # of the code critic
    l1_weight: float = Field(default=10.0, ge=0)
    penalty_weight: float = Field(default=10.0, ge=0)
    live_code_term: bool = True  # False: C never learns from encoded codes, as in the public code
    steps_per_gradient: int = Field(default=1, ge=1)  # of G; 2 in the public code


BUDGET = 96_000  # 12,000 iterations, two batches of four each
COMPAT: dict[str, Any] = {"live_code_term": False, "steps_per_gradient": 2}


class AlphaWGAN(LatentGAN):
    """Autoencoder and Wasserstein GAN in one: a critic D of volumes and a critic C of codes.

    Exact: four networks; E and G jointly (10 L1 minus what the critics say), D on a new batch (both fakes, two
    penalties of weight 10 per sample), C on that batch's codes; 12,000 iterations, Adam 2e-4.

    Deviations from the public code, undone by preset `compat` (64^3): C's term on encoded codes is live (in the
    public code it reuses a number computed without gradient, so C never sees a code of E; on PyTorch after 0.4
    that line is an error), and G steps once per gradient, not twice. The `volatile` flags mean nothing today.
    Negative losses are normal. With one volume a batch, norms of codes use their running statistics.
    """

    Config = AlphaWGANConfig
    title = "3D-alpha-WGAN"
    summary = "an autoencoder and a Wasserstein GAN in one, with a second critic for the latent code"
    source = "Kwon, Han and Kim 2019"
    SMALLEST: ClassVar = {**SMALLEST, "code_width": 16}
    stem = "transposed"
    PRESETS: ClassVar = {
        "tiny": {
            **NATIVE_32,
            "budget": 2_000,
            "code_width": 256,
            # BatchNorm in D and momentum make D swing at this rate, and its large scores drown an L1 of weight 10.
            "critic_norm": "group",
            "beta1": 0.0,
            "beta2": 0.9,
            "l1_weight": 100.0,
        },
        "small": {**NATIVE_64, "budget": BUDGET},
        "compat": {**NATIVE_64, **COMPAT, "budget": BUDGET},
        "paper": {**UPSAMPLED_128, "budget": BUDGET},
        "paper-native": {**NATIVE_128, "budget": BUDGET},
    }

    def __init__(self, config: AlphaWGANConfig) -> None:
        super().__init__(config)
        self.config: AlphaWGANConfig = config
        self.E = VolumeCritic(config.array_shape, config.channels, config.latent)
        self.D = VolumeCritic(config.array_shape, config.channels, 1, config.critic_norm)
        self.C = CodeCritic(config.latent, config.code_width)
        self.optimizers = self.adam("E", "G", "D", "C")

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """E and G on one batch, then D on the next, then C on the codes of that one."""
        loss_eg, l1 = self._autoencode(next_batch())
        x = next_batch()
        with torch.no_grad():
            code = self.E(x)
            rebuilt, made = self.G(code), self.G(self.prior(x))
        loss_d = critic_loss(self.D, x, rebuilt, made, self.config.penalty_weight)
        self.descend(loss_d, "D")
        loss_c = self._code_loss(code)
        self.descend(loss_c, "C")
        losses = {"E and G": loss_eg, "l1": l1, "D": loss_d, "C": loss_c}
        return {name: loss.detach() for name, loss in losses.items()}

    def _autoencode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.E(x)
        rebuilt, made = self.G(code), self.G(self.prior(x))
        l1 = F.l1_loss(rebuilt, x)
        praise = self.D(rebuilt).mean() + self.D(made).mean() + self.C(code).mean()
        loss = self.config.l1_weight * l1 - praise
        self.descend(loss, "E", *["G"] * self.config.steps_per_gradient)
        return loss, l1

    def _code_loss(self, code: Tensor) -> Tensor:
        prior = self.prior(code)
        encoded = self.C(code).mean()
        if not self.config.live_code_term:
            encoded = encoded.detach()
        penalty = gradient_penalty(self.C, code, prior)
        return encoded - self.C(prior).mean() + self.config.penalty_weight * penalty
