"""Two questions about a training step: where two runs first differ, and where it waits for the device."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WIDTHS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Sums(TorchDispatchMode):
    """Keeps a sum of the bits of everything that each operation returns, on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sums: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if "empty" in str(func):
            return out
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.numel() and not tensor.is_complex():
                bits = tensor.detach().contiguous().view(WIDTHS[tensor.element_size()])
                shapes = [tuple(a.shape) for a in tree_leaves(args) if isinstance(a, torch.Tensor)]
                self.names.append(f"{func} {shapes} {tensor.dtype}")
                self.sums.append(bits.sum(dtype=torch.int64))
        return out


def first_difference(prepare: Callable[[], Callable[[], None]]) -> str:
    """The first operation whose result differs between two runs of the prepared step; empty where none does."""
    runs = []
    for _ in range(2):
        run, sums = prepare(), Sums()
        with sums:
            run()
        runs.append((sums.names, [int(s) for s in sums.sums]))
    (names, one), (_, other) = runs
    for name, a, b in zip(names, one, other, strict=False):
        if a != b:
            return name
    return ""


def waits_of(run: Callable[[], None]) -> list[str]:
    """Where the run waits for the device, by torch's own warnings: place and how often; empty without a GPU."""
    if not torch.cuda.is_available():
        return []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{w.filename.split('/')[-1]}:{w.lineno}" for w in seen if "synchroni" in str(w.message))
    return [f"{place} x {count}" for place, count in places.items()]
