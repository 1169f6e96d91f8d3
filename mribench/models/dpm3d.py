"""3D-DPM: a 3-D diffusion model of the central slices or of whole volumes (Dorjsembe et al., MIDL 2022)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from mribench.data.volume_set import Slab
from mribench.models.denoiser import EDM, FLOW, DiffusionConfig, DiffusionGenerator
from mribench.models.diffusion import cosine_betas, linear_betas
from mribench.models.generator import NextBatch
from mribench.models.unet3d import VolumeUNet
from mribench.runtime import Noise

SCHEDULES = {"cosine": cosine_betas, "linear": linear_betas}
LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss}


class DPM3DConfig(DiffusionConfig):
    """The defaults are those of Med-DDPM's unconditional mode; sources in docs/models.md."""

    whole_volume: bool = False  # or the central quarter of the axial slices, as the cDPM paper compares it
    base: int = Field(default=64, ge=2, multiple_of=2)
    res_blocks: int = Field(default=1, ge=1)
    attention_sizes: tuple[int, ...] = (16,)
    checkpoint_blocks: bool = False  # less memory, a third more time, the same numbers
    schedule: Literal["cosine", "linear"] = "cosine"
    steps: int = Field(default=250, ge=21)
    loss: Literal["l1", "l2"] = "l1"
    variance: Literal["large", "small"] = "small"
    learning_rate: float = Field(default=1e-5, gt=0)
    accumulation: int = Field(default=2, ge=1)  # batches per optimizer step
    ema: float = Field(default=0.995, ge=0, lt=1)
    ema_every: int = Field(default=10, ge=1)  # steps between averagings
    ema_start: int = Field(default=2000, ge=0)  # steps during which the average is a copy

    @model_validator(mode="after")
    def _check(self) -> DPM3DConfig:
        unit = 2 ** (len(self.multipliers) - 1)
        slices = self.array_shape[0]
        if not self.whole_volume and slices % 8:
            what = "size" if self.is_cube else "the number of slices"
            raise ValueError(f"{what} must be a multiple of 8, so that its central quarter is whole slices")
        depth = slices if self.whole_volume else slices // 4
        if depth % unit:
            raise ValueError(f"the {depth} slices made must be a multiple of {unit}")
        return self


PAPER: dict[str, Any] = {"size": 128, "batch_size": 1, "budget": 200_000}  # 100,000 steps of 2 accumulated


# 8 slices of 32^2 on a CPU. Much noise in training (linear, T = 1000) and in sampling (eta = 1) puts the
# ventricles into the middle after hundreds of volumes instead of thousands.
TINY: dict[str, Any] = {
    "size": 32,
    "batch_size": 2,
    "budget": 1000,
    "base": 8,
    "multipliers": (1, 2, 4, 8),
    "attention_sizes": (8,),
    "schedule": "linear",
    "steps": 1000,
    "prediction": "x0",
    "loss": "l2",
    "ddim_steps": 16,
    "eta": 1.0,
    "learning_rate": 2e-3,
    "accumulation": 1,
    "ema": 0.99,
    "ema_every": 1,
    "ema_start": 100,
}
# The same network with the recipes of docs/learning.md.
TINY_FLOW: dict[str, Any] = {**TINY, "ddim_steps": None, "eta": 0.0, "ema": 0.995, **FLOW}
TINY_EDM: dict[str, Any] = {**TINY_FLOW, **EDM}
# 16 slices of 64^2 on one GPU: our scaling of the network, not Med-DDPM's.
SMALL: dict[str, Any] = {
    "size": 64,
    "batch_size": 4,
    "budget": 120_000,
    "multipliers": (1, 2, 3, 4),
    "prediction": "x0",
    "ddim_steps": 20,
    "learning_rate": 2e-4,
    "accumulation": 1,
    "ema": 0.999,
    "ema_every": 1,
}


class DPM3D(DiffusionGenerator):
    """Denoises all slices at once; the published 32 slices are the central quarter of a volume of 128.

    3D-DPM's code was never released: network (parameter counts), schedule, loss, optimizer and averaging are
    those of its successor Med-DDPM without conditions. Volumes are scaled as the cohort is, one range per
    volume; Med-DDPM's loader fits a range per slice, which is not offered. Choices: docs/models.md.
    """

    Config = DPM3DConfig
    title = "3D-DPM"
    summary = "a denoising diffusion model with a 3D U-Net"
    source = "Dorjsembe et al. 2022"
    SMALLEST: ClassVar = {"size": 16, "multipliers": (1, 2), "ema_start": 2, "ddim_steps": 2}
    PRESETS: ClassVar = {
        "tiny": TINY,
        "tiny-flow": TINY_FLOW,
        "tiny-edm": TINY_EDM,
        "small": SMALL,
        "paper": PAPER,
        # The public code of 2022 from which Med-DDPM's training descends.
        "paper-2022": {**PAPER, "steps": 1000, "learning_rate": 2e-5},
    }

    def __init__(self, config: DPM3DConfig) -> None:
        net = VolumeUNet(
            size=config.size,
            base=config.base,
            multipliers=config.multipliers,
            res_blocks=config.res_blocks,
            attention_sizes=config.attention_sizes,
            checkpoint_blocks=config.checkpoint_blocks,
        )
        super().__init__(config, net, SCHEDULES[config.schedule](config.steps))
        self.config: DPM3DConfig = config
        self.optimizers = {
            "net": torch.optim.Adam(net.parameters(), lr=config.learning_rate, betas=(0.9, config.beta2))
        }

    @property
    def slab(self) -> Slab | None:
        """The central quarter of the axial slices (48 to 79 of 128), or None for whole volumes."""
        slices = self.config.array_shape[0]
        return None if self.config.whole_volume else (3 * slices // 8, 5 * slices // 8)

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """One Adam step down the mean error of `accumulation` batches, each volume at its own time."""
        loss = self.descend_mean(lambda: self._loss(next_batch()), self.config.accumulation, "net")
        self.average()
        return {"loss": loss}

    def _loss(self, volumes: Tensor) -> Tensor:
        """Mean error of the prediction over all voxels of the slab of `[B,1,D,H,W]`."""
        x_0 = volumes[:, :, slice(*self.slab)] if self.slab else volumes
        x_t, times, target, weight = self.noised(x_0)
        output, error = self.net(x_t, times).float(), LOSSES[self.config.loss]
        if weight is None:
            return error(output, target)
        return (weight * error(output, target, reduction="none").flatten(1).mean(1)).mean()

    def decay(self) -> Tensor:
        """Nothing changes between two averagings, and the average is a copy until `ema_start`."""
        averages = self.config.ema * (self.updates >= self.config.ema_start).double()
        return torch.where(self.updates % self.config.ema_every == 0, averages, 1.0)

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1], D being the slices of `slab`."""
        depth, height, width = self.config.array_shape
        start, stop = self.slab or (0, depth)
        return self.denoise(self.ema, noise, (1, stop - start, height, width))
