"""Latent diffusion: MONAI's AutoencoderKL first, then MONAI's U-Net on its latents."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import AutoencoderKL, PatchDiscriminator
from monai.networks.schedulers import DDIMScheduler
from pydantic import Field, model_validator
from torch import Tensor, nn

from mribench.models.generator import NextBatch
from mribench.models.stages import TwoStageConfig, TwoStageGenerator
from mribench.runtime import Noise
from mribench_monai.unet import SMALLEST, TINY, UNetConfig, UNetGenerator, Width, ddim

STEPS = 1000
BETAS = {"beta_start": 0.0015, "beta_end": 0.0205}

# Networks of the weights that MONAI's model zoo has of the paper's model, without its four covariates; training of the
# authors' public configuration: 75 passes of the autoencoder, 500 of the U-Net, over 31,740 volumes.
PAPER: dict[str, Any] = {
    "shape": (160, 224, 160),
    "batch_size": 2,
    "budget": 18_250_500,
    "first_share": 75 / 575,
    "encoder_channels": (64, 128, 128, 128),
    "latent": 3,
    "kl_weight": 1e-8,
    "adversarial_weight": 0.005,
    "adversarial_from": 5 / 75,
    "encoder_learning_rate": 5e-5,
    "channels": (256, 512, 768),
    "attention": (False, True, True),
    "head_channels": (256, 512, 768),
    "residual_resampling": True,
    "learning_rate": 2.5e-5,
    "accumulation": 8,
    "prediction": "v_prediction",
    "calls": 50,
}


class LatentDiffusionConfig(UNetConfig, TwoStageConfig):
    """Settings of both stages."""

    encoder_channels: tuple[Width, ...] = Field(min_length=1)  # of the autoencoder's levels, full size first
    encoder_res_blocks: int = Field(default=2, ge=1)
    latent: int = Field(default=3, ge=1)  # channels of the latent
    kl_weight: float = Field(default=1e-6, ge=0)
    encoder_learning_rate: float = Field(default=1e-4, gt=0)
    adversarial_weight: float = Field(default=0.0, ge=0)  # 0 = no discriminator
    adversarial_from: float = Field(default=0.0, ge=0, lt=1)  # share of the first stage without it
    discriminator_channels: int = Field(default=64, ge=1)
    discriminator_layers: int = Field(default=3, ge=1)
    discriminator_learning_rate: float = Field(default=1e-4, gt=0)
    accumulation: int = Field(default=1, ge=1)  # batches per step of the U-Net
    prediction: Literal["epsilon", "v_prediction"] = "v_prediction"

    @property
    def factor(self) -> int:
        """Voxels per voxel of the latent, along each axis."""
        return 2 ** (len(self.encoder_channels) - 1)

    @property
    def unit(self) -> int:
        """The latent's sides must be divisible too."""
        return self.factor * super().unit

    @model_validator(mode="after")
    def _groups_fit(self) -> LatentDiffusionConfig:
        if strange := [width for width in self.encoder_channels if width % self.groups]:
            raise ValueError(f"encoder_channels must be multiples of groups = {self.groups}, not {strange}")
        return self


class Latent(nn.Module):
    """What one latent is divided by, so that the latents of the first batch of the second stage have deviation 1."""

    scale: Tensor  # 0 until then

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.zeros(()))

    def normed(self, code: Tensor) -> Tensor:
        """Latents as the U-Net sees them, not clipped; the first call decides the scale."""
        self.scale.copy_(torch.where(self.scale == 0, code.float().std(), self.scale))
        return code / self.scale


class LatentDiffusion(UNetGenerator, TwoStageGenerator):
    """An autoencoder with a normal latent (L1, KL, patch discriminator), then diffusion of its latents.

    As published: networks, losses and their weights, rates, scaled linear betas, T = 1000, v-prediction, DDIM with 50
    calls. Different: no perceptual loss (its weights would have to be downloaded), no covariates, the scale of the
    latents is measured, and an average of the U-Net's weights makes the samples.
    """

    Config = LatentDiffusionConfig
    title = "Latent diffusion"
    summary = "an autoencoder, and a diffusion model of its latents"
    source = "Pinaya et al. 2022; networks of MONAI"
    needs = ("ema", "latent", "autoencoder.post_quant_conv", "autoencoder.decoder")
    stages = ("autoencoder", "diffusion")
    PRESETS: ClassVar = {
        "tiny": {
            **TINY,
            "batch_size": 2,
            "budget": 1_800,
            "first_share": 0.3,
            "encoder_channels": (8, 16, 32),
            "encoder_res_blocks": 1,
            "encoder_learning_rate": 2e-3,
            "channels": (32, 64),
            "attention": (False, True),
            "latent": 4,
            "calls": 20,
        },
        "paper": PAPER,
    }
    SMALLEST: ClassVar = {
        **SMALLEST,
        "encoder_channels": (8, 16),
        "adversarial_weight": 0.005,
        "discriminator_channels": 8,
        "discriminator_layers": 1,
    }

    def __init__(self, config: LatentDiffusionConfig) -> None:
        super().__init__(config, config.latent)
        self.config: LatentDiffusionConfig = config
        self.autoencoder = AutoencoderKL(
            spatial_dims=3,
            channels=config.encoder_channels,
            num_res_blocks=config.encoder_res_blocks,
            attention_levels=(False,) * len(config.encoder_channels),
            latent_channels=config.latent,
            norm_num_groups=config.groups,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        self.latent = Latent()
        rate = config.encoder_learning_rate
        self.optimizers["autoencoder"] = torch.optim.Adam(self.autoencoder.parameters(), lr=rate)
        if config.adversarial_weight:
            self.D = PatchDiscriminator(
                3, config.discriminator_channels, 1, num_layers_d=config.discriminator_layers
            )
            self.optimizers["D"] = torch.optim.Adam(
                self.D.parameters(), lr=config.discriminator_learning_rate
            )

    @cached_property
    def _schedule(self) -> DDIMScheduler:
        prediction = self.config.prediction
        return DDIMScheduler(
            STEPS, "scaled_linear_beta", clip_sample=False, prediction_type=prediction, **BETAS
        )

    @cached_property
    def _realness(self) -> PatchAdversarialLoss:
        return PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def first_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """The autoencoder, then the discriminator."""
        volumes = next_batch()
        rebuilt, mean, deviation = self.autoencoder(volumes)
        rebuilt, mean, deviation = rebuilt.float(), mean.float(), deviation.float()
        variance = deviation.square()
        divergence = (mean.square() + variance - variance.log() - 1).flatten(1).sum(1).mean() / 2
        losses = {"l1": F.l1_loss(rebuilt, volumes), "kl": divergence}
        loss = losses["l1"] + self.config.kl_weight * divergence
        plays = self.config.adversarial_weight > 0 and self.stage_share >= self.config.adversarial_from
        if plays:
            losses["praise"] = self._realness(self.D(rebuilt)[-1].float(), True, False)
            loss = loss + self.config.adversarial_weight * losses["praise"]
        self.descend(loss, "autoencoder")
        if plays:
            losses["D"] = self._discriminator_loss(volumes, rebuilt.detach())
            self.descend(losses["D"], "D")
        return {name: value.detach() for name, value in losses.items()}

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        of_real, of_fake = self.D(real)[-1].float(), self.D(fake)[-1].float()
        return (self._realness(of_real, True, True) + self._realness(of_fake, False, True)) / 2

    def second_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """The U-Net, on latents of the finished autoencoder."""
        parts: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for _ in range(self.config.accumulation):
                loss = self._loss(self._latents(next_batch())) / self.config.accumulation
                parts.append(loss.detach())
                yield loss

        self.learn(losses())
        return {"diffusion": torch.stack(parts).sum()}

    @torch.no_grad()
    def _latents(self, volumes: Tensor) -> Tensor:
        return self.latent.normed(self.autoencoder.encode_stage_2_inputs(volumes).float())

    def _loss(self, code: Tensor) -> Tensor:
        noise, times = torch.randn_like(code), torch.randint(STEPS, (len(code),), device=code.device)
        noisy = self._schedule.add_noise(code, noise, times)
        is_noise = self.config.prediction == "epsilon"
        target = noise if is_noise else self._schedule.get_velocity(code, noise, times)
        return F.mse_loss(self.net(noisy, times).float(), target)

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]: a latent by `calls` steps of DDIM, decoded."""
        sides = [side // self.config.factor for side in self.config.array_shape]
        start = noise.normal(self.config.latent, *sides)
        code = ddim(self._schedule, self.ema, start, self.config.calls)
        return self.autoencoder.decode(code * self.latent.scale).float().clamp(-1, 1)
