"""Where and with which random numbers to compute: devices, the switches that can move a number, seeds and noise."""

from __future__ import annotations

import hashlib
import platform
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from mribench import processes
from mribench.data.volume_set import Progress
from mribench.errors import UsageError

DEFAULT_MEMORY = 2_000_000_000
CPU = torch.device("cpu")


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" -> a device, with deterministic algorithms and TF32 off.

    Raises UsageError when CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda needs a CUDA device, and torch sees none here. Use --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and processes.local_rank() >= torch.cuda.device_count():
        raise UsageError(
            f"Every process needs a GPU of its own, but process {processes.local_rank()} of this machine finds "
            f"{torch.cuda.device_count()}. Start fewer (--nproc-per-node, --ntasks-per-node), or use --device cpu."
        )
    # TF32 moves MS-SSIM by 3e-3 (docs/metrics.md); training and sampling switch it on for themselves.
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
    if name == "cuda" and processes.size() > 1:
        torch.cuda.set_device(processes.local_rank())
        return torch.device(name, processes.local_rank())
    return torch.device(name)


class DeviceRecord(BaseModel):
    """What is recorded of the device beside every product."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device: str = ""
    name: str = ""
    threads: int | None = None
    precision: str = ""
    tf32: bool | None = None
    processes: int = 1

    def __str__(self) -> str:
        """For example "cpu x86_64, 2 threads, fp32"."""
        threads = ""
        if self.device == "cpu" and self.threads is not None:
            threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        kind = " ".join(part for part in (self.device, self.name) if part)
        count = f"{self.processes} processes" if self.processes > 1 else ""
        return ", ".join(part for part in (kind, count, threads, self.precision) if part)


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Context:
    """Where and how one command computes: made once by `make_context` and passed to every step."""

    device: torch.device = CPU
    memory: int = DEFAULT_MEMORY  # bytes for volumes prepared for comparison
    weights: Path | None = None  # of the slice extractor, where no package carries them
    weights_3d: Path | None = None  # of the volume extractor
    progress: Progress = no_progress

    @property
    def bf16(self) -> bool:
        """Whether networks are trained and sampled in bfloat16: on CUDA only."""
        return self.device.type == "cuda"

    @contextmanager
    def mixed_precision(self) -> Iterator[None]:
        """Where `bf16`: networks under autocast, and TF32 in the convolutions that are float32 whatever it says.

        Autocast's cache is off: a step may update a network and use it again, and the cache holds old weights.
        """
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = before or self.bf16
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
                yield
        finally:
            torch.backends.cudnn.allow_tf32 = before

    def described(self, precision: str = "") -> DeviceRecord:
        """The device as it is recorded; `precision` defaults to that of training and sampling."""
        cuda = self.device.type == "cuda"
        return DeviceRecord(
            device=self.device.type,
            name=torch.cuda.get_device_name(self.device) if cuda else platform.machine(),
            threads=torch.get_num_threads(),
            precision=precision or ("bf16" if self.bf16 else "fp32"),
            tf32=torch.backends.cudnn.allow_tf32 or (self.bf16 and not precision),
            processes=processes.size(),
        )

    def named(self, name: str) -> Context:
        """The same, with `name` before everything that is reported as progress."""

        def report(what: str, done: int, total: int) -> None:
            self.progress(f"{name}: {what}", done, total)

        return replace(self, progress=report)


def make_context(
    device: str = "auto",
    *,
    memory: int = DEFAULT_MEMORY,
    weights: Path | None = None,
    weights_3d: Path | None = None,
    progress: Progress = no_progress,
) -> Context:
    """The context of one command on the device "auto", "cpu" or "cuda"; raises UsageError as `choose_device`."""
    return Context(choose_device(device), memory, weights, weights_3d, progress)


def derive(*names: str | int) -> int:
    """A 63-bit seed that is a function of the names alone, e.g. `derive(run_seed, "sample", i)`."""
    digest = hashlib.sha256(repr(names).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Whatever draws random numbers inside: those of Python, NumPy and torch go on afterwards as they would have."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def without_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Computes as the inputs are, whatever the autocast type; the meta device, which counts only, has no autocast."""
    kind = like.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU tensor on `device`; the program does not wait for it."""
    source = tensor.pin_memory() if device.type == "cuda" else tensor
    return source.to(device, non_blocking=True)


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
        return to_device(torch.stack(rows), self.device)
