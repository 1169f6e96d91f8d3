"""Networks of the 3-D GAN family that Kwon, Han and Kim published (MICCAI 2019), for powers of two and other boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mribench.models.convolution import CriticConv3d
from mribench.runtime import without_autocast

GRID = 4  # voxels per side at the narrow end of every network for cubes
Shape = tuple[int, int, int]  # (D, H, W)
SLOPE = 0.2  # of every LeakyReLU


class CodeBatchNorm(nn.BatchNorm1d):
    """BatchNorm over codes `[B,C]` that normalises a batch of one by its running statistics.

    One code has no variance; PyTorch's own layer raises an error there.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def _norm(channels: int, kind: str) -> nn.Module:
    """ "batch" as published; "group" (8 groups) does not couple the volumes of a batch."""
    return nn.BatchNorm3d(channels) if kind == "batch" else nn.GroupNorm(math.gcd(8, channels), channels)


def narrow_end(shape: Shape, stages: int) -> tuple[Shape, int]:
    """The box `(d, h, w)` at which networks of so many stages start or end, and the enlargement that is then missing.

    Cubes have 4^3 there and may be enlarged; of any other box every side is halved once a stage.
    """
    if len(set(shape)) == 1:
        return (GRID, GRID, GRID), shape[0] // (GRID << stages)
    d, h, w = (side >> stages for side in shape)
    return (d, h, w), 1


def trunk(channels: Sequence[int], norm: str) -> nn.Sequential:
    """Strided convolutions, `[B,1,D,H,W]` -> `[B,channels[-1],d,h,w]`, each side divided by 2^len(channels)."""
    layers: list[nn.Module] = []
    for width_in, width in zip([1, *channels[:-1]], channels, strict=True):
        layers.append(CriticConv3d(width_in, width, 4, stride=2, padding=1))
        if width_in > 1:  # the first layer is not normalised
            layers.append(_norm(width, norm))
        layers.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers)


class UpConv(nn.Conv3d):
    """Nearest enlargement by 2, then a 3^3 convolution: `[B,C,D,H,W]` -> `[B,C',2D,2H,2W]`.

    Computed as one transposed convolution, whose 4^3 kernel sums the taps that meet the same voxel: the same
    numbers within rounding, 64 instead of 216 multiplications a voxel (ratio: benchmarks/upconv.py).
    """

    def __init__(self, channels_in: int, channels_out: int, bias: bool = True) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.transpose(0, 1)
        for dim in (2, 3, 4):
            before, here, after = kernel.unbind(dim)
            kernel = torch.stack([after, here + after, before + here, before], dim)
        return F.conv_transpose3d(x, kernel, self.bias, stride=2, padding=1)


class LastUpConv(UpConv):
    """An UpConv in float32 whatever the autocast type: in bf16 a volume would hold some hundreds of grey levels."""

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return super().forward(x.float())


class VolumeCritic(nn.Module):
    """Trunk and head, `[B,1,D,H,W]` -> `[B,outputs]`, unbounded: critic, discriminator (logits) or encoder.

    Where the trunk ends at the narrow end the head covers it whole, or with `patch` (cubes) scores 2^3 positions,
    `[B,8*outputs]`. Where it ends at 8^3 (the upsampled route) the head scores 4^3 positions, whose mean counts.
    """

    def __init__(
        self, shape: Shape, channels: Sequence[int], outputs: int, norm: str = "batch", patch: bool = False
    ) -> None:
        super().__init__()
        self.trunk = trunk(channels, norm)
        box, enlarge = narrow_end(shape, len(channels))
        whole = enlarge == 1 and not patch
        self.head = CriticConv3d(
            channels[-1], outputs, box if whole else GRID, stride=1 if whole else 2, padding=0 if whole else 1
        )
        self.pooled = enlarge > 1

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.trunk(x)).float()  # sums of scores cancel, which bf16 does not bear
        return scores.mean(dim=(2, 3, 4)) if self.pooled else scores.flatten(1)


class VolumeGenerator(nn.Module):
    """Code `[B,L]` -> volume `[B,1,D,H,W]` in [-1,1].

    `stem` "linear" (VAE-GAN, WGAN-GP) or "transposed" (alpha-WGAN, CCE-GAN). Every stage doubles the sides by
    nearest neighbour; what is then missing is one last nearest enlargement without parameters.
    """

    def __init__(self, shape: Shape, channels: Sequence[int], latent: int, stem: str) -> None:
        super().__init__()
        widths = [*reversed(channels)]
        box, self.enlarge = narrow_end(shape, len(channels))
        self.stem: nn.Module
        if stem == "linear":
            self.stem = nn.Sequential(
                nn.Linear(latent, widths[0] * math.prod(box)), nn.Unflatten(1, (widths[0], *box))
            )
        else:
            self.stem = nn.Sequential(
                nn.Unflatten(1, (latent, 1, 1, 1)), nn.ConvTranspose3d(latent, widths[0], box, bias=False)
            )
        layers: list[nn.Module] = [nn.BatchNorm3d(widths[0]), nn.ReLU()]
        for width_in, width in pairwise(widths):
            layers += [UpConv(width_in, width, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
        layers += [LastUpConv(widths[-1], 1, bias=False), nn.Tanh()]
        self.stages = nn.Sequential(*layers)

    def forward(self, code: Tensor) -> Tensor:
        x = self.stages(self.stem(code))
        return x if self.enlarge == 1 else F.interpolate(x, scale_factor=float(self.enlarge))


class CodeCritic(nn.Module):
    """Critic of codes, `[B,L]` -> `[B,1]`."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent, width),
            CodeBatchNorm(width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, width),
            CodeBatchNorm(width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, 1),
        )

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(code)
