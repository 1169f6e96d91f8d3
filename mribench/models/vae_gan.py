"""3D-VAE-GAN: Larsen et al. (ICML 2016) in three dimensions, after the code of Kwon et al. (MICCAI 2019)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mribench.models.adversarial import (
    NATIVE_32,
    NATIVE_64,
    NATIVE_128,
    SMALLEST,
    UPSAMPLED_128,
    LatentGAN,
    LatentGANConfig,
    cross_entropy,
)
from mribench.models.blocks import GRID, CodeBatchNorm, VolumeCritic, narrow_end, trunk
from mribench.models.generator import NextBatch
from mribench.models.joint_batch import draw_normal_like


class VAEGANConfig(LatentGANConfig):
    """Settings of 3D-VAE-GAN; sources in docs/models.md."""

    learning_rate: float = Field(default=1e-4, gt=0)
    hidden: int = Field(default=2048, ge=1)  # of the encoder's two heads
    generator_mse_weight: float = Field(default=20.0, ge=0)
    encoder_mse_weight: float = Field(default=10.0, ge=0)


def _head(width: int, hidden: int, latent: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), CodeBatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, latent)
    )


class VAEEncoder(nn.Module):
    """Volume `[B,1,D,H,W]` -> mean and log-variance of its code, `[B,L]` each."""

    def __init__(self, config: VAEGANConfig) -> None:
        super().__init__()
        self.trunk = trunk(config.channels, "batch")
        box, self.pooling = narrow_end(config.array_shape, len(config.channels))
        width = config.channels[-1] * math.prod(box)
        self.mean = _head(width, config.hidden, config.latent)
        self.log_variance = _head(width, config.hidden, config.latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        if self.pooling > 1:  # the upsampled route; PyTorch's own pooling is not deterministic on CUDA
            features = (
                features.unflatten(4, (GRID, 2))
                .unflatten(3, (GRID, 2))
                .unflatten(2, (GRID, 2))
                .mean((3, 5, 7))
            )
        features = features.flatten(1)
        return self.mean(features).float(), self.log_variance(features).float()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)), averaged over the latent dimensions and the batch."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()


class VAEGAN(LatentGAN):
    """Variational autoencoder whose decoder also plays a GAN against a discriminator.

    Exact: networks; one step each of D, G and E on every batch; G maximises D's loss (saturating form) plus
    20 MSE, E minimises the divergence per latent dimension plus 10 MSE and has no adversarial term. It is not
    Larsen's loss: the reconstruction is compared voxel by voxel, not by features of D, as in the public code.

    Deviations from that code: E's error is computed with the updated G (the stale graph is an error in today's
    PyTorch); fakes are detached in D's step (same gradient, less work); logits instead of sigmoid and log (same
    function, no overflow); the term of G's loss that is constant in G is left out (no gradient). The missing
    import that stops the public script needs no switch, and its constant 5e-10 is used nowhere. With one
    volume a batch, norms of codes use their running statistics.

    The weights belong to 64^3: with 8 times as many voxels the divergence weighs 8 times more. The `paper`
    presets keep them, as the paper names no others; `generator_mse_weight` 160 and `encoder_mse_weight` 80 keep the
    balance.
    """

    Config = VAEGANConfig
    title = "3D-VAE-GAN"
    summary = "a variational autoencoder whose decoder is also a GAN's generator"
    source = "Larsen et al. 2016; in 3D by Kwon et al. 2019"
    SMALLEST: ClassVar = {**SMALLEST, "hidden": 16}
    stem = "linear"
    PRESETS: ClassVar = {
        "tiny": {
            **NATIVE_32,
            "budget": 2_400,
            "hidden": 256,
            "beta1": 0.5,
            "critic_learning_rate": 1e-4,  # at the others' rate D wins within 100 steps
            "encoder_mse_weight": 6.0,  # 10: samples of a short training leave the heads; 1: they become one head
        },
        "small": {**NATIVE_64, "budget": 126_200},
        "paper": {**UPSAMPLED_128, "budget": 126_200},  # 100 epochs of the paper's 1262 volumes
        "paper-native": {**NATIVE_128, "budget": 126_200},
    }

    def __init__(self, config: VAEGANConfig) -> None:
        super().__init__(config)
        self.config: VAEGANConfig = config
        self.E = VAEEncoder(config)
        self.D = VolumeCritic(config.array_shape, config.channels, 1, config.critic_norm)
        self.optimizers = self.adam("D", "G", "E")

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """D, then G against the updated D, then E through the updated G."""
        x = next_batch()
        mean, log_variance = self.E(x)
        code = mean + (0.5 * log_variance).exp() * draw_normal_like(mean)
        rebuilt, made = self.G(code.detach()), self.G(self.prior(x))

        loss_d = cross_entropy(self.D(x), 1) + self._fakes(rebuilt.detach(), made.detach())
        self.descend(loss_d, "D")

        loss_g = self.config.generator_mse_weight * F.mse_loss(rebuilt, x) - self._fakes(rebuilt, made)
        self.descend(loss_g, "G")

        mse, kl = F.mse_loss(self.G(code), x), divergence(mean, log_variance)
        self.descend(kl + self.config.encoder_mse_weight * mse, "E")
        losses = {"D": loss_d, "G": loss_g, "mse": mse, "kl": kl}
        return {name: loss.detach() for name, loss in losses.items()}

    def _fakes(self, rebuilt: Tensor, made: Tensor) -> Tensor:
        return cross_entropy(self.D(rebuilt), 0) + cross_entropy(self.D(made), 0)
