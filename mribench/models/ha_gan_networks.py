"""The networks of HA-GAN (Sun et al., JBHI 2022) for volumes of 32, 64, 128 or 256 voxels a side.

Channel numbers are multiples of `width` (64 in the paper). Everything ends or starts at 4^3: a size that is half
as large has one upsampling less in the generator, and one halving less in the discriminator's branches and in E^G.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mribench.models.blocks import SLOPE, LastUpConv, UpConv
from mribench.runtime import without_autocast

SIZES = (32, 64, 128, 256)
STRIDE = 4  # voxels per voxel of the common features A and of the low-resolution volume


def slab_depth(size: int) -> int:
    """Axial slices of a sub-volume: S/8, but 8 at 32^3, where a slab of one slice of features would know no axis."""
    return max(size // 8, 2 * STRIDE)


def halvings(size: int) -> int:
    """How often the low-resolution side S/4 halves down to 4: 1 at 32^3, 4 at 256^3."""
    return int(math.log2(size // STRIDE)) - 2


def _normed(convolution: nn.Conv3d) -> list[nn.Module]:
    """The convolution, group norm, ReLU."""
    channels = convolution.out_channels
    return [convolution, nn.GroupNorm(math.gcd(8, channels), channels), nn.ReLU()]


def _conv3(channels_in: int, channels_out: int) -> nn.Conv3d:
    return nn.Conv3d(channels_in, channels_out, 3, padding=1)


def _halving(channels_in: int, channels_out: int) -> nn.Conv3d:
    return nn.Conv3d(channels_in, channels_out, 4, stride=2, padding=1)


def _flattening(channels_in: int, channels_out: int, depth: int) -> nn.Conv3d:
    """Halves height and width, and the depth until it is 1; the kernel is never deeper than the volume."""
    if depth > 4:
        return _halving(channels_in, channels_out)
    deep, stride = (2, 2) if depth > 1 else (1, 1)
    return nn.Conv3d(channels_in, channels_out, (deep, 4, 4), (stride, 2, 2), (0, 1, 1))


class SubvolumeGenerator(nn.Module):
    """z `[B,latent]` -> a slab `[B,1,d,S,S]` and the whole at low resolution `[B,1,S/4,S/4,S/4]`, in [-1,1].

    d is `slab_depth`. A makes the common features `[B,width,S/4,S/4,S/4]`, H refines some or all of their slices,
    L shows them all.
    """

    def __init__(self, size: int, latent: int, width: int) -> None:
        super().__init__()
        self.depth = slab_depth(size)
        common: list[nn.Module] = [nn.Linear(latent, 8 * width * 4**3), nn.Unflatten(1, (8 * width, 4, 4, 4))]
        common += _normed(_conv3(8 * width, 8 * width))
        for i, pair in enumerate(pairwise(width * m for m in (8, 8, 4, 2, 1))):
            common += _normed(UpConv(*pair) if i < halvings(size) else _conv3(*pair))
        self.A = nn.Sequential(*common)
        self.H = nn.Sequential(
            *_normed(UpConv(width, width // 2)),
            LastUpConv(width // 2, 1),
            nn.Tanh(),
        )
        self.L = nn.Sequential(
            *_normed(_conv3(width, width // 2)),
            *_normed(_conv3(width // 2, width // 4)),
            _conv3(width // 4, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, r: int) -> tuple[Tensor, Tensor]:
        """The slab whose first axial slice is r - r % 4, and the low-resolution volume."""
        common = self.A(z)
        start, depth = r // STRIDE, self.depth // STRIDE
        return self.H(common[:, :, start : start + depth]), self.L(common)


def _spectral(layer: nn.Module) -> list[nn.Module]:
    """The layer with its largest singular value divided out, then a leaky ReLU."""
    return [spectral_norm(layer), nn.LeakyReLU(SLOPE)]


class Discriminator(nn.Module):
    """One logit `[B,1]` for a slab, its position and the low-resolution volume: the mean of two branches' logits."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.last_start = size - slab_depth(size)
        self.H = SlabBranch(size, width)
        channels = [1, *(width * m // 2 for m in (1, 2, 4, 8)[-halvings(size) :])]
        layers = [m for pair in pairwise(channels) for m in _spectral(_halving(*pair))]
        self.L = nn.Sequential(*layers, spectral_norm(nn.Conv3d(4 * width, 1, 4)))

    def forward(self, slab: Tensor, low: Tensor, r: int) -> Tensor:
        """`slab [B,1,d,S,S]` from axial slice r on, `low [B,1,S/4,S/4,S/4]`."""
        # float32 whatever the autocast type: a power iteration in bf16 would misjudge the singular value
        with without_autocast(slab):
            h = self.H(slab.float(), r / self.last_start)
            return (h + self.L(low.float()).flatten(1)) / 2


class SlabBranch(nn.Module):
    """The logit `[B,1]` of a slab `[B,1,d,S,S]` at a relative position in [0,1]."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        outputs = [width * m // 4 for m in (1, 2, 4, 8, 16, 32)]
        used, depth = halvings(size) + 2, slab_depth(size)
        layers: list[nn.Module] = []
        for pair in pairwise([1, *outputs[-used:]]):
            layers += _spectral(_flattening(*pair, depth))
            depth = max(1, depth // 2)
        self.convolutions = nn.Sequential(*layers, *_spectral(nn.Conv3d(8 * width, 2 * width, (1, 4, 4))))
        self.head = nn.Sequential(
            *_spectral(nn.Linear(2 * width + 1, width)), spectral_norm(nn.Linear(width, 1))
        )

    def forward(self, slab: Tensor, position: float) -> Tensor:
        """See the class."""
        return self.head(F.pad(self.convolutions(slab).flatten(1), (0, 1), value=position))


def slab_encoder(width: int) -> nn.Sequential:
    """E^H: a slab `[B,1,d,S,S]` -> common features `[B,width,d/4,S/4,S/4]`."""
    return nn.Sequential(
        *_normed(_halving(1, width // 2)),
        *_normed(_conv3(width // 2, width // 2)),
        *_normed(_halving(width // 2, width)),
    )


def volume_encoder(size: int, latent: int, width: int) -> nn.Sequential:
    """E^G: common features `[B,width,S/4,S/4,S/4]` -> z `[B,latent]`."""
    channels = [width, *(width * m // 2 for m in (1, 2, 4, 8)[-halvings(size) :])]
    layers = [m for pair in pairwise(channels) for m in _normed(_halving(*pair))]
    return nn.Sequential(*layers, nn.Conv3d(4 * width, latent, 4), nn.Flatten())
