"""U-Net over stacks of 2-D slices with factorised attention: across slices, then within each slice.

The network of flexible video diffusion (Harvey et al. 2022) with one channel, which cDPM (Peng et al.
2023) uses on index sets of MRI slices. Written from its published description.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mribench.models.slice_mixing import NeighbourMixing, Sides, neighbours
from mribench.runtime import without_autocast

MIXING_WIDTH = 16  # fewest channels in which slices are mixed


def zero_init(module: nn.Module) -> nn.Module:
    """Set every parameter of `module` to 0, so that its branch starts silent."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def sinusoid(position: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """`[N]` positions -> `[N,width]`: cosines then sines of geometrically spaced frequencies."""
    frequencies = torch.exp(
        -math.log(max_period) / (width // 2) * torch.arange(width // 2, device=position.device)
    )
    angle = position.float()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def embedding_mlp(width_in: int, width: int) -> nn.Sequential:
    """Two linear layers that make an embedding of a sinusoid."""
    return nn.Sequential(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))


class Entry(NamedTuple):
    """What one entry of the skip stack of a U-Net has to do."""

    channels_in: int
    channels: int
    size: int  # in-plane, pixels, before resampling
    residual: bool  # whether it has a residual block, and attention where its size asks for it
    resample: bool


def skip_stack(
    size: int, base: int, multipliers: tuple[int, ...], res_blocks: int
) -> tuple[list[Entry], list[Entry]]:
    """Entries on the way down and on the way up; those on the way up take the skipped channels in too."""
    channels, last = base * multipliers[0], len(multipliers) - 1
    down, up, pushed = [], [], [channels]
    for level, multiplier in enumerate(multipliers):
        for _ in range(res_blocks):
            down.append(Entry(channels, base * multiplier, size >> level, True, False))
            channels = base * multiplier
            pushed.append(channels)
        if level < last:
            down.append(Entry(channels, channels, size >> level, False, True))
            pushed.append(channels)
    for level in range(last, -1, -1):
        for i in range(res_blocks + 1):
            doubles = level > 0 and i == res_blocks
            up.append(Entry(channels + pushed.pop(), base * multipliers[level], size >> level, True, doubles))
            channels = base * multipliers[level]
    return down, up


class GroupNorm(nn.GroupNorm):
    """Group norm in float32 whatever the autocast type (at most 32 groups)."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return super().forward(x)
        with without_autocast(x):
            return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


class ResBlock(nn.Module):
    """Residual block whose second norm is scaled and shifted by the embedding `[N,E]` of each slice."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = GroupNorm(channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * channels_out)
        self.norm_out = GroupNorm(channels_out)
        self.conv_out = zero_init(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.modulate(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.norm_out(h) * (1 + scale) + shift
        return self.skip(x) + self.conv_out(F.silu(h))


class Downsample(nn.Module):
    """Halve height and width by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class RelativePosition(nn.Module):
    """Table of vectors per signed slice distance and diffusion time, `[B,2N-1,heads,f]`; 0 at the start.

    R(e, d) = W_o SiLU(W_t e + W_d phi(d)), phi(d) = [ln(1+max(d,0)), ln(1+max(-d,0)), 1{d=0}]. It depends
    on the data through (time, distance) alone, hence one row per distinct distance instead of K^2 pairs.
    """

    def __init__(self, channels: int, heads: int, embedding: int, slices: int) -> None:
        super().__init__()
        self.heads = heads
        self.time = nn.Linear(embedding, channels)
        self.distance = nn.Linear(3, channels)
        self.out = zero_init(nn.Linear(channels, channels))
        distance = torch.arange(-(slices - 1), slices, dtype=torch.float32)
        features = [distance.clamp(min=0).log1p(), (-distance).clamp(min=0).log1p(), (distance == 0).float()]
        self.register_buffer("features", torch.stack(features, dim=1), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        hidden = F.silu(self.time(time)[:, None] + self.distance(self.features)[None])
        return self.out(hidden).unflatten(-1, (self.heads, -1))


class AcrossSliceAttention(nn.Module):
    """At each pixel, attention over the K slices with relative positions on queries, keys and values.

    `norm="set"` takes the group statistics over all K slices (as published; padding slices leak into
    them), `norm="slice"` over each slice's own pixels. `residual="normed"` adds the normalised input back
    (as published), `"raw"` the input itself.
    """

    def __init__(
        self, channels: int, heads: int, embedding: int, slices: int, norm: str, residual: str
    ) -> None:
        super().__init__()
        self.heads, self.slices, self.norm_scope, self.residual = heads, slices, norm, residual
        self.norm = GroupNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = zero_init(nn.Linear(channels, channels))
        self.relative_q = RelativePosition(channels, heads, embedding, slices)
        self.relative_k = RelativePosition(channels, heads, embedding, slices)
        self.relative_v = RelativePosition(channels, heads, embedding, slices)

    def _normalise(self, x: Tensor, k: int) -> Tensor:
        """`[BK,C,H,W]` -> normalised `[B,HW,K,C]`."""
        height, width = x.shape[-2:]
        if self.norm_scope == "slice":
            return self.norm(x).unflatten(0, (-1, k)).flatten(-2).permute(0, 3, 1, 2)
        per_pixel = x.unflatten(0, (-1, k)).permute(0, 3, 4, 2, 1).flatten(0, 2)  # [B*HW,C,K]
        return self.norm(per_pixel).unflatten(0, (-1, height * width)).transpose(-1, -2)

    def forward(self, x: Tensor, time: Tensor, index: Tensor, group: Tensor) -> Tensor:
        """`x [BK,C,H,W]`, `time [B,E]`, `index [B,K]` slice numbers, `group [B,K]`: slices attend in groups."""
        k, (height, width) = index.shape[1], x.shape[-2:]
        u = self._normalise(x, k)
        q, key, v = self.qkv(u).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # [B,HW,K,h,f]
        row = torch.arange(len(index), device=index.device)[:, None, None]
        distance = index[:, :, None] - index[:, None, :] + self.slices - 1  # i - j, shifted to >= 0
        r_k = self.relative_k(time)[row, distance]  # [B,K,K,h,f] at (i, j)
        r_q = self.relative_q(time)[row, distance.transpose(1, 2)]  # at (j, i)
        r_v = self.relative_v(time)[row, distance]
        score = torch.einsum("bdihf,bdjhf->bdhij", q, key)
        score = score + torch.einsum("bdihf,bijhf->bdhij", q, r_k)
        score = score + torch.einsum("bdjhf,bijhf->bdhij", key, r_q)
        apart = group[:, None, None, :, None] != group[:, None, None, None, :]
        score = score.float() * q.shape[-1] ** -0.5
        weight = score.masked_fill(apart, float("-inf")).softmax(-1).to(v.dtype)
        out = torch.einsum("bdhij,bdjhf->bdihf", weight, v)
        out = out + torch.einsum("bdhij,bijhf->bdihf", weight, r_v)
        out = self.project(out.flatten(-2))
        if self.residual == "normed":
            out = out + u
        out = out.transpose(1, 2).flatten(0, 1).transpose(1, 2).unflatten(-1, (height, width))
        return out if self.residual == "normed" else out + x


class SelfAttention(nn.Module):
    """Attention over all pixels of a slice, or all voxels of a volume; `residual` as in AcrossSliceAttention."""

    def __init__(self, channels: int, heads: int, residual: str) -> None:
        super().__init__()
        self.heads, self.residual = heads, residual
        self.norm = GroupNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """`x [N,C,H,W]` or `[N,C,D,H,W]`."""
        u = self.norm(x)
        tokens = u.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return (u if self.residual == "normed" else x) + out.transpose(1, 2).unflatten(-1, x.shape[2:])


class FactorisedAttention(nn.Module):
    """Across slices first, then within each slice."""

    def __init__(
        self, channels: int, heads: int, embedding: int, slices: int, norm: str, residual: str
    ) -> None:
        super().__init__()
        self.across = AcrossSliceAttention(channels, heads, embedding, slices, norm, residual)
        self.within = SelfAttention(channels, heads, residual)

    def forward(self, x: Tensor, time: Tensor, index: Tensor, group: Tensor) -> Tensor:
        return self.within(self.across(x, time, index, group))


class Block(nn.Module):
    """One entry of the skip stack: a residual block, then optional attention, mixing and resampling."""

    def __init__(
        self,
        res: ResBlock | None,
        attention: FactorisedAttention | None,
        resample: nn.Module | None,
        mixing: NeighbourMixing | None = None,
    ) -> None:
        super().__init__()
        self.res, self.attention, self.resample, self.mixing = res, attention, resample, mixing

    def forward(self, x: Tensor, embedding: Tensor, stack: Stack) -> Tensor:
        if self.res is not None:
            x = self.res(x, embedding)
        if self.attention is not None:
            x = self.attention(x, stack.time, stack.index, stack.group)
        if self.mixing is not None and stack.sides is not None:
            x = self.mixing(x, stack.slice_time, stack.sides)
        return x if self.resample is None else self.resample(x)


@dataclass(frozen=True)
class Stack:
    """What the layers across slices know beside the features."""

    time: Tensor  # `[B,E]`
    index: Tensor  # `[B,K]`
    group: Tensor  # `[B,K]`
    slice_time: Tensor  # `[N,E]`, of each slice that is still in the network
    sides: Sides | None  # neighbours of each of them, where they are mixed


def missing(observed: Tensor) -> Tensor:
    """Row-major places `[R]` of the slices that are not observed."""
    return (~observed).flatten().nonzero()[:, 0]


class SliceUNet(nn.Module):
    """Predicts one image per slice of a set: `[B,K,1,H,W]` in, `[R,1,H,W]` out for the R slices not given.

    Layers after the last attention act on each slice alone, so given slices are dropped there (exact).
    """

    def __init__(
        self,
        *,
        size: int,  # pixels; levels of the network are named by it, halved once a level
        slices: int,  # slices of a whole volume (largest index + 1)
        base: int,
        multipliers: tuple[int, ...],
        res_blocks: int,
        attention_sizes: tuple[int, ...],  # levels, by their size, at which attention happens
        heads: int,
        steps: int,  # diffusion steps T; times are rescaled to span 0..1000
        index_embedding: bool,
        norm: str,
        residual: str,
        tail_skip: bool,  # drop slices not kept after the last attention instead of at the end
        mixing_sizes: tuple[int, ...] = (),  # levels, by their size, at which neighbouring slices are mixed
    ) -> None:
        super().__init__()
        self.base, self.steps = base, steps
        width = 4 * base
        self.time_mlp = embedding_mlp(base, width)
        self.index_mlp = embedding_mlp(base, width) if index_embedding else None

        def attention(channels: int) -> FactorisedAttention:
            return FactorisedAttention(channels, heads, width, slices, norm, residual)

        def mixing(channels: int) -> NeighbourMixing:
            return NeighbourMixing(GroupNorm(channels), channels, max(MIXING_WIDTH, channels // 2), width)

        self.mixes = bool(mixing_sizes)
        mixed: set[tuple[int, bool]] = set()

        def block(entry: Entry, resample: type[Downsample | Upsample]) -> Block:
            attends = entry.residual and entry.size in attention_sizes
            place = (entry.size, resample is Upsample)  # one a level and direction: the first
            mixes = entry.residual and entry.size in mixing_sizes and place not in mixed
            if mixes:
                mixed.add(place)
            return Block(
                ResBlock(entry.channels_in, entry.channels, width) if entry.residual else None,
                attention(entry.channels) if attends else None,
                resample(entry.channels) if entry.resample else None,
                mixing(entry.channels) if mixes else None,
            )

        down, up = skip_stack(size, base, multipliers, res_blocks)
        self.stem = nn.Conv2d(2, base * multipliers[0], 3, padding=1)
        self.down = nn.ModuleList(block(entry, Downsample) for entry in down)
        deepest, channels = base * multipliers[-1], base * multipliers[0]
        self.middle = Block(ResBlock(deepest, deepest, width), attention(deepest), None)
        self.middle_out = ResBlock(deepest, deepest, width)
        self.up = nn.ModuleList(block(entry, Upsample) for entry in up)
        self.head = nn.Sequential(
            GroupNorm(channels), nn.SiLU(), zero_init(nn.Conv2d(channels, 1, 3, padding=1))
        )
        attending = [i for i, block in enumerate(self.up) if block.attention is not None]
        last_attention = attending[-1] if attending else -1  # -1 = in the middle
        self.drop_after = last_attention if tail_skip else len(self.up) - 1

    def embed(self, t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """`t [B]`, `index [B,K]` -> time embedding `[B,E]` and per-slice embedding `[BK,E]`."""
        time = self.time_mlp(sinusoid(t.float() * (1000.0 / self.steps), self.base))
        per_slice = time.repeat_interleave(index.shape[1], dim=0)
        if self.index_mlp is not None:
            per_slice = per_slice + self.index_mlp(sinusoid(index.flatten(), self.base))
        return time, per_slice

    def forward(
        self,
        x_t: Tensor,
        x_0: Tensor,
        index: Tensor,
        observed: Tensor,
        group: Tensor,
        t: Tensor,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Noisy `x_t` and clean `x_0` `[B,K,1,H,W]`, `index [B,K]`, `observed [B,K]` bool, `t [B]`.

        Clean slices replace noisy ones where `observed`; a second channel says which. The predictions are
        of the slices not observed, in row-major order; `wanted [R]` are their places in it, `missing(observed)`,
        which waits for the device and is therefore asked for where it is not given only.
        """
        flag = observed[:, :, None, None, None].to(x_t.dtype)
        x = torch.cat([x_t * (1 - flag) + x_0 * flag, flag.expand_as(x_t)], dim=2).flatten(0, 1)
        time, embedding = self.embed(t, index)
        if wanted is None:
            wanted = missing(observed)
        place = torch.arange(len(index), device=index.device)[:, None]
        label, slice_time = (2 * place + group).flatten(), time.repeat_interleave(index.shape[1], dim=0)
        stack = Stack(time, index, group, slice_time, self._sides(index.flatten(), label))
        h = self.stem(x)
        skips = [h]
        for block in self.down:
            h = block(h, embedding, stack)
            skips.append(h)
        h = self.middle_out(self.middle(h, embedding, stack), embedding)
        dropped = False
        for i, block in enumerate(self.up):
            if i == self.drop_after + 1:
                h, embedding, dropped = h[wanted], embedding[wanted], True
                remaining = self._sides(index.flatten()[wanted], label[wanted])
                stack = replace(stack, slice_time=slice_time[wanted], sides=remaining)
            skip = skips.pop()
            h = block(torch.cat([h, skip[wanted] if dropped else skip], dim=1), embedding, stack)
        return self.head(h if dropped else h[wanted])

    def _sides(self, index: Tensor, label: Tensor) -> Sides | None:
        return neighbours(index, label) if self.mixes else None
