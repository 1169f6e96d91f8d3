"""The order in which a training sees its volumes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mribench.data.grid import to_model_range
from mribench.data.volume_set import VolumeSet
from mribench.runtime import derive, to_device


class Batches:
    """An endless stream of training volumes, addressed by position: a resumed run gets those of an unbroken one.

    Each pass over the set is a permutation that depends on (seed, pass) alone; no augmentation.
    """

    def __init__(
        self,
        volumes: VolumeSet,
        batch_size: int,
        seed: int,
        device: torch.device,
        rows: slice = slice(None),
    ) -> None:
        self.volumes, self.batch_size, self.seed, self.device = volumes, batch_size, seed, device
        self.rows = rows  # of each batch, which are loaded here
        self.seen = 0
        self._pass: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def next(self) -> Tensor:
        """The rows of the next `[B,1,D,H,W]` in [-1,1]."""
        positions = range(self.seen, self.seen + self.batch_size)[self.rows]
        self.seen += self.batch_size
        stack = np.stack([self.volumes[self._index(p)] for p in positions])[:, None]
        return to_device(torch.from_numpy(to_model_range(stack)), self.device)

    def _index(self, position: int) -> int:
        number, offset = divmod(position, len(self.volumes))
        if self._pass[0] != number:
            order = np.random.default_rng(derive(self.seed, "pass", number)).permutation(len(self.volumes))
            self._pass = (number, order)
        return int(self._pass[1][offset])
