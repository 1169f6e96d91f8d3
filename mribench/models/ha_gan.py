"""HA-GAN: a generator of whole volumes that is trained on slabs (Sun et al., IEEE JBHI 2022)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mribench.models.adversarial import cross_entropy
from mribench.models.generator import Generator, GeneratorConfig, NextBatch
from mribench.models.ha_gan_networks import (
    SIZES,
    STRIDE,
    Discriminator,
    SubvolumeGenerator,
    slab_depth,
    slab_encoder,
    volume_encoder,
)
from mribench.models.joint_batch import draw_normal
from mribench.runtime import Noise


class HAGANConfig(GeneratorConfig):
    """The defaults are those of the public script."""

    width: int = Field(default=64, ge=4, multiple_of=4)  # channels of the common features; scales all others
    latent: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)  # of G and both encoders
    discriminator_learning_rate: float = Field(default=4e-4, gt=0)
    train_encoders: bool = True  # they influence neither G nor D, hence no sample
    align_slabs: bool = False  # slabs start at multiples of 4 only (a deviation)

    @model_validator(mode="after")
    def _check(self) -> HAGANConfig:
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}")
        return self


PAPER: dict[str, Any] = {"size": 128, "batch_size": 4, "budget": 320_000}  # 80,000 iterations of batch 4


class HAGAN(Generator):
    """Adversarial training on a random slab of S/8 axial slices and on the whole volume at a quarter of the size.

    Exact, after the public script: networks at 128^3 and 256^3, the slab rule (one r in 0..7S/8 per iteration for
    the whole batch and all updates, features from floor(r/4) on, every 4th voxel as the low resolution), one
    cross-entropy on the mean of two logits, the L1 reconstructions of the encoders, order D, G, E^H, E^G, Adam.

    Deviations: volumes are shuffled and all are used (the script keeps one order and 80 % of them, which suits no
    benchmark); batch size 1 works (the script squeezes the batch away); no class labels (the benchmark has none);
    spectral norm starts from 15 power iterations (PyTorch's present way) and D computes in float32. 64^3, 32^3
    and `width` are our scaling by the same rules, but that a slab of 32^3 has 8 slices.

    Oddities kept: a real slab and a generated one may be up to 3 voxels apart (see `align_slabs`). In training G^H
    normalises over a slab and meets zeros at its cuts, in sampling it does neither. The encoders learn from G, G
    and D never from them, so without `train_encoders` the samples stay the same, bit for bit. The singular vectors
    of D also advance in the update of G.
    """

    Config = HAGANConfig
    title = "HA-GAN"
    summary = "a GAN that makes a whole small volume and a part of it at full resolution"
    source = "Sun et al. 2022"
    cubes_only = "its slabs and the number of its halvings are those of cubes of 32, 64, 128 or 256"
    # At four times the generator's rate, so narrow a discriminator swings: after 160 volumes the distance to real
    # volumes was 0.68 to 0.98 of noise's with three seeds; at equal rates 0.53 to 0.72.
    SMALLEST: ClassVar = {
        "width": 4,
        "latent": 12,
        "train_encoders": True,
        "discriminator_learning_rate": 8e-4,
    }
    needs = ("G.A", "G.H")  # G.L only shows the low resolution to D
    shares_batches = True
    PRESETS: ClassVar = {
        "tiny": {
            "size": 32,
            "batch_size": 4,
            "budget": 2_800,
            "width": 16,
            "latent": 64,  # 1024 would be the largest layer by far
            "learning_rate": 8e-4,  # eight times the paper's, as the discriminator's: 700 steps, not 80,000
            "discriminator_learning_rate": 3.2e-3,
            "train_encoders": False,  # they change no sample
        },
        "small": {"size": 64, "batch_size": 4, "budget": 80_000},  # our scaling, not the paper's
        "paper": PAPER,
        "paper-256": {**PAPER, "size": 256},
    }

    def __init__(self, config: HAGANConfig) -> None:
        super().__init__(config)
        self.config: HAGANConfig = config
        size, latent, width = config.size, config.latent, config.width
        self.G = SubvolumeGenerator(size, latent, width)
        self.D = Discriminator(size, width)
        self.optimizers = {
            "G": _adam(self.G.parameters(), config.learning_rate),
            "D": _adam(self.D.parameters(), config.discriminator_learning_rate),
        }
        if config.train_encoders:  # built last, so that G and D start the same without them
            self.E_H = slab_encoder(width)
            self.E_G = volume_encoder(size, latent, width)
            self.optimizers["E_H"] = _adam(self.E_H.parameters(), config.learning_rate)
            self.optimizers["E_G"] = _adam(self.E_G.parameters(), config.learning_rate)

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """One batch and one slab position r for the updates of D, G and the encoders, in this order."""
        volumes, r = next_batch(), self._draw_position()
        slab = volumes[:, :, r : r + slab_depth(self.config.size)]
        low = volumes[:, :, ::STRIDE, ::STRIDE, ::STRIDE]
        losses = {"D": self._discriminator_loss(slab, low, r)}
        self.descend(losses["D"], "D")
        losses["G"] = cross_entropy(self.D(*self.G(self._prior(volumes), r), r), 1.0)
        self.descend(losses["G"], "G")
        if self.config.train_encoders:
            losses["E_H"] = _l1(self.G.H(self.E_H(slab)), slab)
            self.descend(losses["E_H"], "E_H")
            losses["E_G"] = self._reconstruction_loss(volumes, slab, low, r)
            self.descend(losses["E_G"], "E_G")
        return {name: loss.detach() for name, loss in losses.items()}

    def _draw_position(self) -> int:
        step = STRIDE if self.config.align_slabs else 1
        last = self.config.size - slab_depth(self.config.size)
        return step * int(torch.randint(last // step + 1, ()))

    def _prior(self, like: Tensor) -> Tensor:
        return draw_normal(len(like), self.config.latent, like=like)

    def _discriminator_loss(self, slab: Tensor, low: Tensor, r: int) -> Tensor:
        with torch.no_grad():
            fake_slab, fake_low = self.G(self._prior(slab), r)
        real, fake = self.D(slab, low, r), self.D(fake_slab, fake_low, r)
        return cross_entropy(real, 1.0) + cross_entropy(fake, 0.0)

    def _reconstruction_loss(self, volumes: Tensor, slab: Tensor, low: Tensor, r: int) -> Tensor:
        """L1 of slab and low resolution made from E^G of all slabs' features, which E^H makes one by one."""
        with torch.no_grad():
            features = torch.cat(
                [self.E_H(part) for part in volumes.split(slab_depth(self.config.size), dim=2)], dim=2
            )
        again_slab, again_low = self.G(self.E_G(features), r)
        return (_l1(again_slab, slab) + _l1(again_low, low)) / 2

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]: every slice of the common features refined in one pass."""
        return self.G.H(self.G.A(noise.normal(self.config.latent))).float()


def _adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate, betas=(0.0, 0.999))


def _l1(made: Tensor, real: Tensor) -> Tensor:
    return F.l1_loss(made.float(), real)
