"""From volumes to feature vectors: a slice per view through a pretrained network with verified weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mribench.data.volume_set import VIEWS, Slab
from mribench.errors import MribenchError
from mribench.files import digest_file
from mribench.plugins import Registry, imported

BATCH = 4  # fixed, because features may depend on it on some devices; fits the cache of a core
# Positions are every second, third... twelfth of a side; beyond the fourth from the centre there is little brain.
_PARTS, _OUTERMOST = 12, 4
_STEPS = ((48, 4), (math.inf, 2))  # (smallest side below, in twelfths): 3 and 5 positions


@dataclass(frozen=True)
class Extractor:
    """A pretrained 2D network: how pixels become its input, and which weights it must have."""

    name: str
    network: str  # "module:function" from a state dict to a module
    arguments: tuple[str, ...]
    dimension: int
    size: int  # side of the input in pixels
    half_pixel: bool  # bilinear with pixel centres; False = TensorFlow 1's grid, source = i * in / out
    offset: float  # input = (grey value 0..255 - offset) / divisor
    divisor: float
    file: str
    sha256: str  # in full, or its first digits, which are those in the file's published name
    packaged: str = ""  # "module:function" that returns the path of the weights in an installed package

    def definition(self) -> dict[str, Any]:
        """What can move a feature, for signatures and cache keys."""
        grid = "half-pixel" if self.half_pixel else "tf1"
        return {
            "extractor": self.name,
            "weights": self.sha256[:8],
            "resize": f"bilinear-{grid}-{self.size}",
            "input": f"grey8-as-rgb-minus-{self.offset:g}-over-{self.divisor:g}",
            "pad": "square-0",
            "batch": BATCH,
        }


EXTRACTORS = {
    extractor.name: extractor
    for extractor in (
        Extractor(
            name="effnet-lite0",
            network="mribench.metrics.features.effnet:build",
            arguments=(),
            dimension=1280,
            size=224,
            half_pixel=True,
            offset=127.0,
            divisor=128.0,
            file="efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            packaged="mribench.metrics.features.effnet:packaged_weights",
        ),
        Extractor(
            name="inception-2015",
            network="mribench.metrics.features.inception:build",
            arguments=("2015",),
            dimension=2048,
            size=299,
            half_pixel=False,
            offset=128.0,
            divisor=128.0,
            file="pt_inception-2015-12-05-6726825d.pth",
            sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        ),
        Extractor(
            name="inception-torchvision",
            network="mribench.metrics.features.inception:build",
            arguments=("torchvision",),
            dimension=2048,
            size=299,
            half_pixel=True,
            offset=127.5,
            divisor=127.5,
            file="inception_v3_google-0cc3c7bd.pth",
            sha256="0cc3c7bd",
        ),
    )
}


EXTRACTOR_REGISTRY: Registry[Extractor] = Registry(
    "extractor", EXTRACTORS, "mribench.metrics.features.slices:Extractor"
)
get_extractor = EXTRACTOR_REGISTRY.get


def spread_indices(side: int, smallest: int) -> tuple[int, ...]:
    """Indices of the slices that represent a `side` of a volume whose smallest side is `smallest`.

    They lie symmetrically about side // 2, up to a third of the side away: more of them in larger volumes.
    """
    step = next(step for limit, step in _STEPS if smallest < limit)
    reach, steps = (
        (side - 1) // 2,
        range(-_OUTERMOST, _OUTERMOST + 1, step),
    )  # two slices have only one position
    return tuple(side // 2 + max(-reach, min(round(k * side / _PARTS), reach)) for k in steps)


def slices_within(view: str, shape: tuple[int, ...], slab: Slab | None, full_depth: int) -> tuple[int, ...]:
    """`spread_indices` of a view of volumes `[D,H,W]`; of a slab those inside it, counted from its first slice.

    Of a slab that holds none of them, its own central slice.
    """
    smallest = min(full_depth, *shape[1:])
    if view != "axial" or slab is None:
        return spread_indices(shape[VIEWS[view]], smallest)
    inside = tuple(i - slab[0] for i in spread_indices(full_depth, smallest) if slab[0] <= i < slab[1])
    return inside or (shape[0] // 2,)


def grey_slice(volume: np.ndarray, view: str, index: int) -> np.ndarray:
    """One slice of `[D,H,W]` in [0,1] as uint8 `[S,S]`: round(255 x), then zeros around it up to a square."""
    plane = np.round(np.clip(np.take(volume, index, axis=VIEWS[view]), 0, 1) * 255).astype(np.uint8)
    side = max(plane.shape)
    before = [(side - length) // 2 for length in plane.shape]
    return np.pad(plane, [(b, side - length - b) for b, length in zip(before, plane.shape, strict=True)])


@cache
def resize_matrix(source: int, target: int, half_pixel: bool) -> Tensor:
    """Bilinear interpolation along one axis as a matrix `[target,source]`, without antialiasing."""
    position = torch.arange(target, dtype=torch.float64)
    scale = source / target
    position = ((position + 0.5) * scale - 0.5).clamp(min=0) if half_pixel else position * scale
    low = position.floor().long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    weight = position - low
    matrix = torch.zeros(target, source, dtype=torch.float64)
    rows = torch.arange(target)
    matrix.index_put_((rows, low), 1 - weight, accumulate=True)
    matrix.index_put_((rows, high), weight, accumulate=True)
    return matrix


def network_input(slices: np.ndarray, extractor: Extractor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 `[B,S,S]` -> float32 `[B,1,size,size]`, resized in float64 and scaled as the network expects."""
    matrix = resize_matrix(slices.shape[-1], extractor.size, extractor.half_pixel).to(device)
    grey = matrix @ torch.from_numpy(slices).to(device).double() @ matrix.T
    grey.sub_(extractor.offset).div_(extractor.divisor)
    return grey.float()[:, None]


def find_weights(extractor: Extractor, weights: Path | None) -> Path:
    """The weights' file: the one given, else an installed package's; verified by sha256, never downloaded.

    Raises MribenchError naming the extractor, the file and the digest when it is absent or another file.
    """
    path = weights or _packaged_weights(extractor)
    wanted = f"{extractor.file} (sha256 {extractor.sha256}{'...' if len(extractor.sha256) < 64 else ''})"
    if path is None or not path.is_file():
        where = f"; {path} is not a file" if path else ""
        raise MribenchError(
            f"The extractor {extractor.name} needs its weights {wanted}{where}. "
            "Nothing is downloaded: give the file with --weights PATH."
        )
    digest = digest_file(path)
    if not digest.startswith(extractor.sha256):
        raise MribenchError(
            f"The extractor {extractor.name} needs {wanted}, but {path} has sha256 {digest}. "
            "Give the right file with --weights PATH."
        )
    return path


def _packaged_weights(extractor: Extractor) -> Path | None:
    try:
        return Path(imported(extractor.packaged)()) if extractor.packaged else None
    except ImportError:
        return None


def load_network(extractor: Extractor, weights: Path | None, device: torch.device | str = "cpu") -> nn.Module:
    """The extractor's network with verified weights, for grey slices; MribenchError as in `find_weights`."""
    path = find_weights(extractor, weights)
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    build = imported(extractor.network)
    return for_grey(build(*extractor.arguments, state)).to(device)


def for_grey(network: nn.Module) -> nn.Module:
    """A 2D network changed in place to take one channel `[B,1,H,W]` for three equal ones, and made fast.

    Its first convolution sums its weights over the channels; norms are folded; channels come last. Features
    move by about 1e-6 of the largest.
    """
    fold_norms(network)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.weight = nn.Parameter(first.weight.sum(dim=1, keepdim=True))
    first.in_channels = 1
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def fold_norms(network: nn.Module) -> None:
    """Put every batch norm that is registered right after a convolution into its weights, in place."""
    for module in list(network.modules()):
        for (name, before), (norm_name, after) in pairwise(list(module.named_children())):
            if isinstance(before, nn.Conv2d | nn.Conv3d) and isinstance(
                after, nn.BatchNorm2d | nn.BatchNorm3d
            ):
                setattr(module, name, fuse_conv_bn_eval(before, after))
                setattr(module, norm_name, nn.Identity())
