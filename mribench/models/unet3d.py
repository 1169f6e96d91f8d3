"""3-D U-Net over whole volumes or slabs, with full self-attention at coarse levels.

The network of guided diffusion (Dhariwal & Nichol 2021) in three dimensions as Med-DDPM (Dorjsembe et al. 2024)
has it, the only public successor of 3D-DPM. Written from its published description.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mribench.models.unet import (
    Entry,
    GroupNorm,
    SelfAttention,
    embedding_mlp,
    sinusoid,
    skip_stack,
    zero_init,
)

MAX_PERIOD = 1000.0  # of the time embedding; guided diffusion has 10,000


class ResBlock(nn.Module):
    """Residual block to whose first convolution's output the embedding `[B,E]` is added."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = GroupNorm(channels_in)
        self.conv_in = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.shift = nn.Linear(embedding, channels_out)
        self.norm_out = GroupNorm(channels_out)
        self.conv_out = zero_init(nn.Conv3d(channels_out, channels_out, 3, padding=1))
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv3d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = h + self.shift(F.silu(embedding))[:, :, None, None, None]
        return self.skip(x) + self.conv_out(F.silu(self.norm_out(h)))


def double(x: Tensor, axis: int) -> Tensor:
    """Linear interpolation to twice as many points along `axis`: 3/4 of each point, 1/4 of either neighbour.

    F.interpolate(mode="trilinear") does this along three axes, but its backward on CUDA adds in random order.
    """
    last = x.shape[axis] - 1
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, last)], dim=axis)  # edges repeat
    after = torch.cat([x.narrow(axis, 1, last), x.narrow(axis, last, 1)], dim=axis)
    pair = [torch.lerp(x, neighbour, 0.25) for neighbour in (before, after)]
    return torch.stack(pair, dim=axis + 1).flatten(axis, axis + 1)


class Downsample(nn.Conv3d):
    """Halve every side by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """Double every side: trilinear, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for axis in (2, 3, 4):
            x = double(x, axis)
        return self.conv(x)


class Block(nn.Module):
    """One entry of the skip stack: a residual block, then optional attention, then optional resampling."""

    def __init__(
        self, res: ResBlock | None, attention: SelfAttention | None, resample: nn.Module | None
    ) -> None:
        super().__init__()
        self.res, self.attention, self.resample = res, attention, resample

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """`skip` is put beside `x` here, so that a checkpointed block keeps no copy of both."""
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        if self.res is not None:
            x = self.res(x, embedding)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.resample is None else self.resample(x)


class VolumeUNet(nn.Module):
    """`[B,1,D,H,W]` and times `[B]` in, `[B,1,D,H,W]` out; D, H and W must be multiples of 2^(levels - 1)."""

    def __init__(
        self,
        *,
        size: int,  # voxels; levels of the network are named by it, halved once a level
        base: int,
        multipliers: tuple[int, ...],
        res_blocks: int,
        attention_sizes: tuple[int, ...],  # levels, by their size, at which attention happens
        checkpoint_blocks: bool,  # recompute each block in the backward pass instead of keeping its activations
    ) -> None:
        super().__init__()
        self.base, self.checkpoint_blocks = base, checkpoint_blocks
        width = 4 * base
        self.time_mlp = embedding_mlp(base, width)

        def block(entry: Entry, resample: type[Downsample | Upsample]) -> Block:
            attends = entry.residual and entry.size in attention_sizes
            return Block(
                ResBlock(entry.channels_in, entry.channels, width) if entry.residual else None,
                SelfAttention(entry.channels, 1, "raw") if attends else None,
                resample(entry.channels) if entry.resample else None,
            )

        down, up = skip_stack(size, base, multipliers, res_blocks)
        self.stem = nn.Conv3d(1, base * multipliers[0], 3, padding=1)
        self.down = nn.ModuleList(block(entry, Downsample) for entry in down)
        deepest, channels = base * multipliers[-1], base * multipliers[0]
        self.middle = Block(ResBlock(deepest, deepest, width), SelfAttention(deepest, 1, "raw"), None)
        self.middle_out = Block(ResBlock(deepest, deepest, width), None, None)
        self.up = nn.ModuleList(block(entry, Upsample) for entry in up)
        self.head = nn.Sequential(
            GroupNorm(channels), nn.SiLU(), zero_init(nn.Conv3d(channels, 1, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """`x [B,1,D,H,W]`, `t [B]` in 0..T-1, embedded as it is."""
        embedding = self.time_mlp(sinusoid(t, self.base, MAX_PERIOD))
        h = self.stem(x)
        skips = [h]
        for block in self.down:
            h = self._run(block, h, embedding)
            skips.append(h)
        h = self._run(self.middle, h, embedding)
        h = self._run(self.middle_out, h, embedding)
        for block in self.up:
            h = self._run(block, h, embedding, skips.pop())
        return self.head(h)

    def _run(self, block: nn.Module, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.checkpoint_blocks and torch.is_grad_enabled():
            # Nothing random happens in a block, so the random state need not be kept.
            return checkpoint(block, x, embedding, skip, use_reentrant=False, preserve_rng_state=False)
        return block(x, embedding, skip)
