"""Probabilistic PCA (Tipping and Bishop, J. R. Stat. Soc. B 61, 1999), fitted by stochastic gradient EM."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mribench.models.blocks import without_autocast
from mribench.models.generator import Generator, GeneratorConfig, NextBatch
from mribench.runtime import Noise


class PPCAConfig(GeneratorConfig):
    """Settings of probabilistic PCA."""

    latent: int = Field(default=32, ge=1)  # components
    learning_rate: float = Field(default=0.05, gt=0, lt=1)


class PPCA(Generator):
    """A volume is the mean plus a normal combination of components plus noise, which samples leave out."""

    Config = PPCAConfig
    title = "PPCA"
    summary = "PPCA: the mean volume plus a random combination of principal components."
    source = "Tipping and Bishop 1999"
    needs = ("decoder",)
    PRESETS: ClassVar = {"tiny": {"size": 32, "batch_size": 16, "budget": 8_000}}
    SMALLEST: ClassVar = {"size": 16, "latent": 4}
    variance: Tensor  # of the noise

    def __init__(self, config: PPCAConfig) -> None:
        super().__init__(config)
        self.config: PPCAConfig = config
        self.decoder = nn.Linear(config.latent, config.size**3)  # weight: components; bias: mean
        nn.init.normal_(self.decoder.weight, std=1e-3)
        self.register_buffer("variance", torch.tensor(0.01))
        self.optimizers = {"decoder": torch.optim.SGD(self.decoder.parameters(), lr=config.learning_rate)}

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """One step down both squared errors, given a random draw of the batch's codes."""
        x = next_batch().flatten(1)  # [B,1,D,H,W] in [-1,1] -> [B,voxels]
        with without_autocast(x):
            centred = x - x.mean(0)  # else a component would learn the mean
            error = (centred - self._codes(centred) @ self.decoder.weight.T).square()
            mean_error = (x - self.decoder.bias).square()
            self.descend((error + mean_error).sum(1).mean() / 2, "decoder")
        self.variance.lerp_(error.detach().mean(), 0.05)
        return {"error": error.detach().mean(), "mean_error": mean_error.detach().mean()}

    @torch.no_grad()
    def _codes(self, centred: Tensor) -> Tensor:
        """`[B,latent]` drawn from p(code | volume), which is normal."""
        scaled = self.decoder.weight / self.variance
        covariance = (
            scaled.T @ self.decoder.weight + torch.eye(self.config.latent, device=scaled.device)
        ).inverse()
        mean = centred @ scaled @ covariance
        return mean + torch.randn_like(mean) @ torch.linalg.cholesky(covariance).T

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]: one code per volume, decoded."""
        code = noise.normal(self.config.latent)
        with without_autocast(code):
            return self.decoder(code).clamp(-1, 1).unflatten(1, (1, *[self.config.size] * 3))
