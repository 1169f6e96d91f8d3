"""Do samples repeat each other? Each sample's best match among the others, compared with as many real people.

What all samples share (a generator's common flaws, a pull to the mean) is taken away first: the mean of the set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from mribench.metrics.arrays.alignment import blurred
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.gates.search import Matches, identity_of

DEFINITION = "own-mean-aligned/1"
_VARIETY_BLUR = 1.0  # voxels: noise is no variety


class _People(NamedTuple):
    """Aligned voxels `[N,V]` of volumes as they are and mirrored: a position that two samples share is no identity."""

    plain: torch.Tensor
    mirrored: torch.Tensor

    def chunk(self, start: int, stop: int) -> _People:
        return _People(self.plain[start:stop], self.mirrored[start:stop])


class Repeats:
    """The comparison of volumes of one set with each other; fitted to the set that the frame comes from."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.identity = identity_of(arrays, arrays.framing, form=1)

    def of_samples(self) -> Matches:
        """Each sample's best match among the other samples."""
        return self._matches(self._people(["samples"]))

    def of_people(self, sets: Sequence[str], size: int) -> Matches:
        """Each real person's best match among as many others as there are samples, where there are so many."""
        people = self._people(sets)
        count = len(people.plain)
        size = min(size, count)
        chunks = [
            self._matches(people.chunk(start, start + size)) for start in range(0, count - size + 1, size)
        ]
        return Matches(*(np.concatenate(arrays) for arrays in zip(*chunks, strict=True)))

    def variety(self, sets: Sequence[str]) -> float:
        """The variance of the blurred, aligned samples over that of real people."""
        samples, people = (self._variance(names) for names in (["samples"], sets))
        return samples / people

    def _variance(self, sets: Sequence[str]) -> float:
        volumes = self.arrays.frame.filled(self._people(sets).plain)
        return float(blurred(volumes, _VARIETY_BLUR).var(dim=0).mean())

    def _people(self, sets: Sequence[str]) -> _People:
        sides = [
            np.concatenate([self.arrays.forms(name, mirrored)[:, 1] for name in sets])
            for mirrored in (False, True)
        ]
        return _People(*(torch.from_numpy(side) for side in sides))

    def _matches(self, people: _People) -> Matches:
        plain, mirrored = (self.identity.residuals(side) for side in people)
        columns = plain - plain.mean(dim=0)
        itself = torch.eye(len(plain), dtype=torch.bool)
        tables = [
            self.identity.agreement(rows - rows.mean(dim=0), columns).masked_fill(itself, -torch.inf)
            for rows in (plain, mirrored)
        ]
        best, side = torch.stack(tables).max(dim=0)
        statistic, match = best.max(dim=2)
        form = 2 * side.gather(2, match[:, :, None])[:, :, 0] + 1
        return Matches(statistic.T.double().numpy(), match.T.numpy(), form.T.numpy())
