"""A cheap way for neighbouring slices of a stack to tell each other about fine detail; beyond the published cDPM."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 16  # of the network of time and distance


class Neighbour(NamedTuple):
    """Of each of N slices, the next one on one side; all `[N]`."""

    place: Tensor  # among the N
    distance: Tensor  # in slices, negative on the lower side, 0 where there is none
    exists: Tensor  # bool


Sides = tuple[Neighbour, Neighbour]  # lower, higher


def neighbours(index: Tensor, stack: Tensor) -> Sides:
    """The next lower and the next higher slice of each of N, among those with the same number in `stack [N]`."""
    far = torch.iinfo(index.dtype).max
    difference = index[None, :] - index[:, None]  # of slice j to slice i, at (i, j)
    found = []
    for sign in (-1, 1):
        steps = (sign * difference).masked_fill(stack[:, None] != stack[None, :], 0)
        nearest, place = steps.masked_fill(steps <= 0, far).min(dim=1)
        exists = nearest < far
        found.append(Neighbour(place, sign * nearest.masked_fill(~exists, 0), exists))
    return found[0], found[1]


class NeighbourMixing(nn.Module):
    """At each pixel, every slice takes from the next lower and the next higher one, gated by time and distance.

    Two convolutions of one pixel; the second is zero at the start, so that nothing is added.
    """

    def __init__(self, norm: nn.Module, channels: int, inner: int, embedding: int) -> None:
        super().__init__()
        self.norm = norm
        self.inward = nn.Conv2d(channels, 3 * inner, 1)
        self.time = nn.Linear(embedding, HIDDEN)
        self.distance = nn.Linear(2, HIDDEN)
        self.gate = nn.Linear(HIDDEN, inner)
        self.project = nn.Conv2d(inner, channels, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, time: Tensor, sides: Sides) -> Tensor:
        """`x [N,C,H,W]`, time embedding `[N,E]` of each slice."""
        own, *others = self.inward(self.norm(x)).chunk(3, dim=1)
        for other, side in zip(others, sides, strict=True):
            features = torch.stack([side.distance.clamp(min=0), (-side.distance).clamp(min=0)], 1)
            hidden = F.silu(self.time(time) + self.distance(features.to(time.dtype).log1p()))
            gate = self.gate(hidden) * side.exists[:, None]
            own = own + gate[:, :, None, None] * other[side.place]
        return x + self.project(F.silu(own))
