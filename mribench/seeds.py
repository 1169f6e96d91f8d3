"""Named derivation of seeds, and one random generator per volume."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def derive(*names: str | int) -> int:
    """A 63-bit seed that is a function of the names alone, e.g. `derive(run_seed, "sample", i)`."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Noise:
    """One random generator per volume, in float32 on the CPU, so that volume i never depends on its batch-mates.

    `noise.normal(8, 8)` is `[B,8,8]`; the b-th row is drawn from the b-th volume's generator alone.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal `[B,*shape]` on the device."""
        return self._stack([torch.randn(shape, generator=g) for g in self._generators])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0,1) `[B,*shape]` on the device."""
        return self._stack([torch.rand(shape, generator=g) for g in self._generators])

    def _stack(self, rows: list[Tensor]) -> Tensor:
        batch = torch.stack(rows)
        if self.device.type == "cuda":
            return batch.pin_memory().to(self.device, non_blocking=True)
        return batch.to(self.device)
