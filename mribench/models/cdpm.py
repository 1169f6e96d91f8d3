"""cDPM: conditional diffusion over sets of slices (Peng et al., MICCAI 2023)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from mribench.models.denoiser import EDM, FLOW, DiffusionConfig, DiffusionGenerator
from mribench.models.diffusion import linear_betas
from mribench.models.generator import NextBatch
from mribench.models.joint_batch import own_part, whole_batch
from mribench.models.unet import SliceUNet, missing
from mribench.runtime import Noise, to_device

BACKGROUND = -1.0
AXES = {"axial": 0, "coronal": 1, "sagittal": 2}  # of [D,H,W]


class CDPMConfig(DiffusionConfig):
    """Every choice that the paper leaves open is a field, here or in the base; sources in docs/models.md."""

    axis: Literal["axial", "coronal", "sagittal"] = "axial"
    tau_max: int = Field(default=20, ge=2)  # most slices in one network call
    stage_slices: int = Field(
        default=10, ge=1
    )  # slices made per stage; the next stage is conditioned on as many
    anchor: bool = False  # slice 0 is background in training and given at sampling
    index_embedding: bool = True  # absolute slice index enters the residual blocks
    heads: int = Field(default=4, ge=1)
    norm: Literal["set", "slice"] = "set"
    residual: Literal["normed", "raw"] = "normed"
    tail_skip: bool = True  # exact: condition slices leave the network after its last attention
    mixing_sizes: tuple[int, ...] = ()  # beyond the paper: in-plane sizes at which neighbours are mixed
    windows: float = Field(default=0.0, ge=0, le=1)  # share of examples that are stages of the sampler
    ema_warmup: bool = False  # average over (1 + n)/(10 + n) of the past while training is short

    @property
    def slices(self) -> int:
        """How many slices a volume has along `axis`."""
        return self.array_shape[AXES[self.axis]]

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width of a slice, pixels: what is left without `axis`, up to the exchange by `_slicing`."""
        d, h, w = self.array_shape
        return {"axial": (h, w), "coronal": (d, w), "sagittal": (h, d)}[self.axis]

    @model_validator(mode="after")
    def _check(self) -> CDPMConfig:
        widths = {
            self.base * m
            for level, m in enumerate(self.multipliers)
            if self.size >> level in self.attention_sizes
        }
        widths.add(self.base * self.multipliers[-1])  # the middle always attends
        if any(width % self.heads for width in widths):
            raise ValueError(f"heads must divide the widths {sorted(widths)} at which attention happens")
        if not self.stage_slices < self.tau_max < self.slices:
            least = "size" if self.is_cube else "slices"
            raise ValueError(f"stage_slices < tau_max < {least} = {self.slices} must hold")
        sizes = [self.size >> level for level in range(len(self.multipliers))]
        if strange := set(self.mixing_sizes) - set(sizes):
            raise ValueError(f"mixing_sizes must be among {sizes}, not {strange}")
        if self.mixing_sizes and not self.tail_skip:
            raise ValueError("mixing_sizes need tail_skip: on the way up only slices that are made are mixed")
        if self.windows and 2 * self.stage_slices > self.tau_max:
            raise ValueError("windows need a tau_max of at least twice stage_slices")
        return self


PAPER: dict[str, Any] = {"size": 128, "batch_size": 3, "budget": 600_000}  # 200,000 iterations of batch 3


# 32^3 on a CPU, the recipe of the first versions: x0-prediction, uniform times, constant rate.
TINY_X0: dict[str, Any] = {
    "size": 32,
    "batch_size": 2,
    "budget": 600,
    "tau_max": 16,
    "stage_slices": 8,
    "base": 32,
    "multipliers": (1, 1, 2, 2),
    "res_blocks": 1,
    "attention_sizes": (8,),
    "heads": 2,
    "norm": "slice",
    "residual": "raw",
    "prediction": "x0",
    "ddim_steps": 8,
    "learning_rate": 2e-3,
    "ema": 0.99,
    "ema_warmup": True,
}
# The same network learns more from these (docs/learning.md); half of the examples are stages of the sampler.
TINY_SHARED: dict[str, Any] = {**TINY_X0, "ddim_steps": None, "windows": 0.5, "ema": 0.995}
TINY_EDM: dict[str, Any] = {**TINY_SHARED, **EDM}
TINY: dict[str, Any] = {**TINY_SHARED, **FLOW, "mixing_sizes": (32, 16)}
# 64^3 on one GPU: our scaling of the paper's network, not the paper's.
SMALL: dict[str, Any] = {
    "size": 64,
    "batch_size": 3,
    "budget": 60_000,
    "base": 64,
    "multipliers": (1, 2, 3, 4),
    "res_blocks": 1,
    "norm": "slice",
    "residual": "raw",
    "prediction": "x0",
    "ddim_steps": 20,
    "learning_rate": 3e-4,
    "ema": 0.999,
    "ema_warmup": True,
}


def spaced_group(rng: np.random.Generator, most: int, slices: int) -> list[int]:
    """Equally spaced indices: 1 to `most` of them, stride log-uniform from 1 to the largest that fits."""
    while True:
        count = int(rng.integers(1, most + 1))
        stride = (slices / (count - 0.999)) ** rng.random()
        start = rng.random() * (slices - stride * (count - 1))
        indices = [math.floor(start + stride * i) for i in range(count)]
        if indices[0] >= 0 and indices[-1] < slices:
            return indices


def draw_index_sets(rng: np.random.Generator, tau_max: int, slices: int) -> tuple[list[int], list[int]]:
    """Condition set C and target set P of one training example: "differently spaced groups".

    P is never empty, C often is, |C| + |P| <= tau_max, and no index occurs twice.
    """
    condition: list[int] = []
    target = spaced_group(rng, tau_max, slices)
    while True:
        chosen = condition if rng.random() < 0.5 else target
        used = set(condition) | set(target)
        fresh = [i for i in spaced_group(rng, tau_max, slices) if i not in used]
        if len(fresh) > tau_max - len(used):
            return condition, target
        chosen.extend(fresh)


def stage_plan(slices: int, per_stage: int, anchor: bool) -> list[tuple[list[int], list[int]]]:
    """(condition, target) indices of each sampling stage, in ascending order.

    128 slices, 10 a stage: 13 stages [10 x 12, 8]; with slice 0 given as anchor [10 x 12, 7].
    """
    first = 1 if anchor else 0
    plan: list[tuple[list[int], list[int]]] = []
    for start in range(first, slices, per_stage):
        before = list(range(max(start - per_stage, first), start))
        condition = [0] if anchor and not before else before
        plan.append((condition, list(range(start, min(start + per_stage, slices)))))
    return plan


class CDPM(DiffusionGenerator):
    """Slice-wise conditional diffusion, one short stack of slices at a time, each given the stack before.

    Exact: index sets, network (parameter counts), loss on all but condition slices with a fixed
    denominator, AdamW without weight decay, averaged weights, stage plan. Choices: docs/models.md.
    """

    Config = CDPMConfig
    title = "cDPM"
    summary = (
        "a diffusion model that makes a volume in stages of axial slices, each given slices already made"
    )
    source = "Peng et al. 2023"
    SMALLEST: ClassVar = {
        "size": 16,
        "base": 16,
        "multipliers": (1, 2),
        "tau_max": 6,
        "stage_slices": 3,
        "calls": 2,
        "mixing_sizes": (16,),
    }
    level_settings = ("attention_sizes", "mixing_sizes")
    sampler_settings = ("stage_slices", *DiffusionGenerator.sampler_settings, "tail_skip")
    PRESETS: ClassVar = {
        "tiny": TINY,
        "tiny-x0": TINY_X0,
        "tiny-edm": TINY_EDM,
        "small": SMALL,
        "paper": PAPER,
        "paper-anchor": {**PAPER, "index_embedding": False, "anchor": True},
    }

    def __init__(self, config: CDPMConfig) -> None:
        net = SliceUNet(
            size=config.size,
            slices=config.slices,
            base=config.base,
            multipliers=config.multipliers,
            res_blocks=config.res_blocks,
            attention_sizes=config.attention_sizes,
            heads=config.heads,
            steps=config.steps,
            index_embedding=config.index_embedding,
            norm=config.norm,
            residual=config.residual,
            tail_skip=config.tail_skip,
            mixing_sizes=config.mixing_sizes,
        )
        super().__init__(config, net, linear_betas(config.steps))
        self.config: CDPMConfig = config
        self.optimizers = {
            "net": torch.optim.AdamW(
                net.parameters(), lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=0.0
            )
        }

    def _slicing(self, volume: Tensor) -> Tensor:
        """Swap the slicing axis of `[B,?,D,H,W]` with D; its own inverse."""
        return volume.transpose(2, 2 + AXES[self.config.axis])

    def training_step(self, next_batch: NextBatch) -> dict[str, Tensor]:
        """Index sets per volume, one diffusion time per volume, squared error on every slice not given.

        Unused slots are filled with slices of the batch's next volume, which attend among themselves only.
        """
        volumes = self._slicing(whole_batch(next_batch()))[:, 0]  # [B,N,H,W]
        sets = [own_part(tensor) for tensor in self._draw_sets(len(volumes))]
        index, observed, group, wanted = (
            to_device(tensor, volumes.device) for tensor in (*sets, missing(sets[1]))
        )
        if self.config.anchor:
            volumes = volumes.clone()
            volumes[:, 0] = BACKGROUND
        place = own_part(torch.arange(len(volumes), device=volumes.device))
        owner = (place[:, None] + group) % len(volumes)
        x_0 = volumes[owner, index][:, :, None]  # [B,K,1,H,W]
        x_t, times, target, weight = self.noised(x_0)
        output = self.net(x_t, x_0, index, observed, group, times, wanted)
        error = (output.float() - target.flatten(0, 1)[wanted]).square()
        if weight is not None:
            error = error * weight[wanted // index.shape[1], None, None, None]
        # Fixed denominator K*H*W: volumes with many given slices weigh less, as in eq. 6's sum of squares.
        loss = error.sum() / x_0.numel()
        self.descend(loss, "net")
        self.average()
        return {"loss": loss.detach()}

    def _draw_sets(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """`[B,K]` slice indices, which of them are given, 1 for the slots of another volume."""
        rng = np.random.default_rng(int(torch.randint(2**62, ()).item()))
        most, slices = self.config.tau_max, self.config.slices
        index = np.empty((batch, most), np.int64)
        observed, padding = np.zeros((batch, most), bool), np.zeros((batch, most), np.int64)
        for b in range(batch):
            condition, target = self._draw_sets_of_one(rng)
            used = len(condition) + len(target)
            index[b] = [*condition, *target, *rng.integers(0, slices, most - used)]
            observed[b, : len(condition)] = True
            padding[b, used:] = 1
        return torch.from_numpy(index), torch.from_numpy(observed), torch.from_numpy(padding)

    def _draw_sets_of_one(self, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        c = self.config
        if c.windows and rng.random() < c.windows:
            plan = stage_plan(c.slices, c.stage_slices, c.anchor)
            return plan[int(rng.integers(len(plan)))]
        return draw_index_sets(rng, c.tau_max, c.slices)

    def decay(self) -> Tensor:
        """The setting, or with `ema_warmup` (1 + n)/(10 + n) at step n where that is less."""
        longest = torch.full_like(self.updates, self.config.ema, dtype=torch.float64)
        if not self.config.ema_warmup:
            return longest
        count = self.updates.double() + 1
        return torch.minimum(longest, (1 + count) / (10 + count))

    @torch.no_grad()
    def sample(self, noise: Noise) -> Tensor:
        """`[B,1,D,H,W]` in [-1,1]: stage after stage, each given the slices of the stage before."""
        c = self.config
        volume = torch.full((len(noise), c.slices, 1, *c.plane), BACKGROUND, device=noise.device)
        for condition, target in stage_plan(c.slices, c.stage_slices, c.anchor):
            made = self._sample_stage(volume, condition, target, noise)
            volume[:, target[0] : target[-1] + 1] = made
        return self._slicing(volume.transpose(1, 2))

    def _sample_stage(self, volume: Tensor, condition: list[int], target: list[int], noise: Noise) -> Tensor:
        """The target slices `[B,P,1,H,W]` given the finished ones."""
        batch, given = len(volume), len(condition)
        slices = torch.tensor(condition + target).expand(batch, -1)
        given_slots = (torch.arange(slices.shape[1]) < given).expand(batch, -1)
        index, observed, wanted = (
            to_device(tensor.contiguous(), volume.device)
            for tensor in (slices, given_slots, missing(given_slots))
        )
        group = torch.zeros_like(index)
        clean = volume[:, index[0]]

        def predict(x: Tensor, t: Tensor) -> Tensor:
            x_t = torch.cat([clean[:, :given], x], dim=1)
            return self.ema(x_t, clean, index, observed, group, t, wanted).unflatten(0, (batch, -1))

        return self.denoise(predict, noise, (len(target), 1, *volume.shape[-2:]))
