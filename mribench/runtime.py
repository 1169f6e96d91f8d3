"""Where and with which random numbers to compute: devices, the switches that can move a number, seeds and noise."""

from __future__ import annotations

import hashlib
import platform
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mribench.errors import UsageError


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" -> a device, with deterministic algorithms and TF32 off.

    Raises UsageError when CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda needs a CUDA device, and torch sees none here. Use --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # TF32 moves MS-SSIM by 3e-3 (docs/metrics.md) and is not wanted in training either: bf16 is faster.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Every buffer is written before it is read.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if name == "cuda":
        # The fused kernels have non-deterministic backward passes; attention is under 4 % of cDPM's arithmetic.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(name)


def describe(device: torch.device, precision: str = "fp32") -> dict[str, Any]:
    """What is recorded beside every product."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "tf32": torch.backends.cudnn.allow_tf32,
    }


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
