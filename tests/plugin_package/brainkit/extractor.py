"""A small extractor whose weights come with the package: random filters, averaged over the slice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from mribench.metrics.features.slices import Extractor

WEIGHTS = Path(__file__).with_name("filters.pth")


def build(state: Mapping[str, Tensor]) -> nn.Module:
    """`[B,3,32,32]` to `[B,8]`."""
    network = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.load_state_dict(state)
    return network.eval()


def weights() -> Path:
    """The file of the weights."""
    return WEIGHTS


FILTERS = Extractor(
    name="brainkit_filters",
    network="brainkit.extractor:build",
    arguments=(),
    dimension=8,
    size=32,
    half_pixel=True,
    offset=127.5,
    divisor=127.5,
    file=WEIGHTS.name,
    sha256="2718fed6dcaf2fc1d1209d789e973b1470372dc5fd266b1c19320e35584c3bf7",
    packaged="brainkit.extractor:weights",
)
