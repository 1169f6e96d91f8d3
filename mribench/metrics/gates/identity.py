"""What tells one brain from all others, and how much of it two volumes share, in the whole brain and in parts of it.

A volume's voxels in the frame, less the mean of real volumes, over their spread; without what many people share (the
first principal components) and without what blur or a pull to the mean does to any volume; brought to equal strength in
cells of about 6 voxels. Two volumes are compared by the correlation of what is left, in 15 parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mribench.metrics.arrays.alignment import Frame, blurred

_COMPONENTS = 5
_PEOPLE_PER_COMPONENT = 8
_CELL_SIDE = 6  # voxels
_LEAST_SPREAD = 0.3  # of the mean spread: voxels that hardly differ between people are not blown up
_LEAST_STRENGTH = 0.3  # of the median cell
_FLAWED = 24  # volumes that show what blur and a pull to the mean do
_BLUR, _PULL = 1.0, 0.5
_FLAWS = 2

DEFINITION = (
    f"residual-correlation/1|components:{_COMPONENTS}|cell:{_CELL_SIDE}|spread:{_LEAST_SPREAD}"
    f"|strength:{_LEAST_STRENGTH}|without:blur-{_BLUR}+pull-{_PULL}"
)

_SIDES = (("bottom", "top"), ("back", "front"), ("left", "right"))  # along the axes of [D,H,W]
PARTS = (
    "whole",
    *(f"{side} half" for sides in _SIDES for side in sides),
    *(f"{z} {y} {x} eighth" for z in _SIDES[0] for y in _SIDES[1] for x in _SIDES[2]),
)
SIZES = (slice(0, 1), slice(1, 7), slice(7, 15))  # of PARTS: the whole, halves, eighths


@dataclass(frozen=True)
class Identity:
    """Fitted to real volumes of one form; `order` sorts the V voxels of the brain by eighths."""

    order: Tensor  # [V]
    sizes: tuple[int, ...]  # voxels of the 8 eighths
    cells: Tensor  # [V] number of each voxel's cell, in that order
    mean: Tensor  # [V]
    spread: Tensor  # [V]
    shared: Tensor  # [V,K] orthonormal directions that say nothing of who it is

    @classmethod
    def of(cls, frame: Frame, people: Tensor) -> Identity:
        """Of the voxels `[T,V]` of real volumes in the frame."""
        return cls.fitted(frame, fit(frame, people))

    @classmethod
    def fitted(cls, frame: Frame, rows: Tensor) -> Identity:
        """From the rows that `fit` gives."""
        return cls(*_partition(frame.mask), rows[0], rows[1], rows[2:].T)

    def residuals(self, voxels: Tensor) -> Tensor:
        """Voxels in the brain `[N,V]` -> what is left of them `[N,V]`, sorted by eighths."""
        rest = (voxels[:, self.order] - self.mean) / self.spread
        rest = rest - rest @ self.shared @ self.shared.T
        return self._levelled(rest)

    def _levelled(self, rest: Tensor) -> Tensor:
        """Mean 0 and equal strength in every cell; a cell where nearly nothing is left stays weak."""
        where = self.cells.expand(len(rest), -1)
        counts = self.cells.bincount()
        empty = rest.new_zeros(len(rest), len(counts))
        rest = rest - (empty.scatter_add(1, where, rest) / counts).gather(1, where)
        strength = (empty.scatter_add(1, where, rest**2) / counts).sqrt()
        least = _LEAST_STRENGTH * strength.median(dim=1, keepdim=True).values
        return rest / torch.maximum(strength, least).clamp(min=1e-6).gather(1, where)

    def agreement(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Fisher's z of the correlation of all pairs of residuals `[N,V]` and `[M,V]` in each part, `[15,N,M]`."""
        products, row_squares, column_squares = [], [], []
        for x, y in zip(rows.split(self.sizes, 1), columns.split(self.sizes, 1), strict=True):
            products.append(x @ y.T)
            row_squares.append((x**2).sum(1))
            column_squares.append((y**2).sum(1))
        total = _sums(torch.stack(products))
        scale = _sums(torch.stack(row_squares))[:, :, None] * _sums(torch.stack(column_squares))[:, None]
        return torch.atanh((total / scale.sqrt().clamp(min=1e-6)).clamp(-0.9995, 0.9995))


def fit(frame: Frame, people: Tensor) -> Tensor:
    """Mean, spread and shared directions of the voxels `[T,V]` of real volumes, `[2+K,V]`, sorted by eighths."""
    order, _, _ = _partition(frame.mask)
    voxels = people[:, order]
    mean = voxels.mean(dim=0)
    spread = voxels.std(dim=0)
    spread = (spread**2 + (_LEAST_SPREAD * spread.mean()) ** 2).sqrt()
    basis, _ = torch.linalg.qr((_flaws(frame, people)[:, order] / spread).T)
    rest = (voxels - mean) / spread
    rest = rest - rest @ basis @ basis.T
    return torch.cat([mean[None], spread[None], basis.T, _components(rest).T])


def fit_rows(people: int) -> int:
    """How many rows `fit` gives for so many people."""
    return 2 + _FLAWS + _component_count(people)


def _sums(eighths: Tensor) -> Tensor:
    """Sums over the eighths of each part, `[8,...]` -> `[15,...]`, in the order of PARTS."""
    cube = eighths.reshape(2, 2, 2, *eighths.shape[1:])
    halves = [cube.select(axis, side).sum(dim=(0, 1)) for axis in range(3) for side in (0, 1)]
    return torch.stack([cube.sum(dim=(0, 1, 2)), *halves, *eighths])


def _partition(mask: Tensor) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Voxels sorted by eighths of the brain, sizes of the eighths, and each voxel's cell."""
    places = mask.nonzero()
    low, high = places.min(dim=0).values, places.max(dim=0).values + 1
    middle = places.float().median(dim=0).values
    bits = (places >= middle).long()
    eighths = bits[:, 0] * 4 + bits[:, 1] * 2 + bits[:, 2]
    order = torch.argsort(eighths, stable=True)
    counts = ((high - low).float() / _CELL_SIDE).round().clamp(min=1).long()
    cell = (places - low) * counts // (high - low)
    number = ((eighths * counts[0] + cell[:, 0]) * counts[1] + cell[:, 1]) * counts[2] + cell[:, 2]
    _, cells = number[order].unique(return_inverse=True)
    return order, tuple(eighths.bincount(minlength=8).tolist()), cells


def _flaws(frame: Frame, people: Tensor) -> Tensor:
    """What blur and a pull to the mean do to volumes on average, `[2,V]`: no person is recognised by it."""
    some = people[:: max(1, len(people) // _FLAWED)][:_FLAWED]
    volumes, mean = frame.filled(some), frame.filled(people.mean(dim=0, keepdim=True))
    flawed = (blurred(volumes, _BLUR), (1 - _PULL) * volumes + _PULL * mean)
    return torch.stack([(frame.matched(each) - some).mean(dim=0) for each in flawed])


def _component_count(people: int) -> int:
    return min(_COMPONENTS, people // _PEOPLE_PER_COMPONENT)


def _components(rest: Tensor) -> Tensor:
    """The first principal components `[V,K]` of `[T,V]`, by the smaller Gram matrix, in float64."""
    count = _component_count(len(rest))
    if count == 0:
        return rest.new_zeros(rest.shape[1], 0)
    centred = (rest - rest.mean(dim=0)).double()
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    return (centred.T @ vectors[:, -count:] / values[-count:].clamp(min=1e-9).sqrt()).float()
