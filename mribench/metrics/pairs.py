"""The all-pairs engine: every volume's share of the work once, then only what depends on both.

A kernel's `prepare` is the costly part that depends on one volume (smoothed means and variances, say);
`compare` is the cross term. Rows are held in memory in blocks; columns stream past in tiles. Each
finished block of rows is a file, so that a killed matrix continues where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mribench.errors import MribenchError
from mribench.files import write_array
from mribench.metrics.workers import workers

log = logging.getLogger(__name__)

State = tuple[Tensor, ...]  # every tensor has the volumes as its first axis

BLOCK_VOXELS = 2**26  # 32 volumes of 128^3: about 0.9 GB of MS-SSIM statistics
BLOCK_ROWS = 64
TILE_SHARE = 8  # a tile of columns is this many times smaller than a block of rows


class Kernel(Protocol):
    """A symmetric function of two volumes, split into what depends on one of them and what on both."""

    @property
    def name(self) -> str: ...

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise MribenchError when volumes `[D,H,W]` of this shape cannot be compared."""

    def prepare(self, volumes: Tensor) -> State:
        """`[N,D,H,W]` float32 in [0,1] -> tensors `[N,...]`."""

    def compare(self, rows: State, columns: State) -> Tensor:
        """`[R,C]` float64."""


class Volumes(Protocol):
    """Anything that yields `[D,H,W]` volumes by index, e.g. a VolumeSet or an array `[N,D,H,W]`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> np.ndarray: ...


def checked(volume: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """`volume` as float32; raises MribenchError when it is not of `shape`, not finite, or outside [0,1]."""
    if volume.shape != tuple(shape) or volume.ndim != 3:
        raise MribenchError(
            f"{name} must have the shape [D,H,W] = {list(shape)}, but has {list(volume.shape)}."
        )
    low, high = float(volume.min()), float(volume.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MribenchError(f"{name} must be finite, but holds NaN or infinity. Regenerate or remove it.")
    if low < -1e-6 or high > 1 + 1e-6:
        raise MribenchError(
            f"{name} must lie in [0,1], but spans [{low:.4g}, {high:.4g}]. Rescale all sets by the same rule."
        )
    return np.array(volume, dtype=np.float32, order="C")  # torch takes no flipped or read-only arrays


def pair_matrix(
    rows: Volumes,
    columns: Volumes | None,
    kernel: Kernel,
    *,
    device: torch.device | str = "cpu",
    parts: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`kernel` of every row with every column, `[N,M]` float64; `columns=None`: the rows themselves.

    With `parts`, every finished block of rows is kept in that folder and never computed again. `progress`
    is told the rows done and their number.
    """
    shape = rows[0].shape
    if len(shape) != 3:
        raise MribenchError(f"Volumes must be [D,H,W], but have the shape {list(shape)}.")
    kernel.check(shape)
    job = _Job(rows, columns, kernel, shape, torch.device(device))
    matrix = np.zeros((len(rows), len(job.others)))
    with workers(job.device) as pool:
        for start, stop in row_blocks(len(rows), int(np.prod(shape))):
            part = parts / f"{start:06d}-{stop:06d}.npy" if parts else None
            block = _read_part(part, (stop - start, len(job.others)))
            if block is None:
                block = _block(job, start, stop, pool)
                if part:
                    write_array(part, block)
            matrix[start:stop] = block
            if progress:
                progress(stop, len(rows))
    return matrix if columns is not None else np.triu(matrix) + np.triu(matrix, 1).T


@dataclass(frozen=True)
class _Job:
    rows: Volumes
    columns: Volumes | None
    kernel: Kernel
    shape: tuple[int, ...]
    device: torch.device

    @property
    def others(self) -> Volumes:
        return self.rows if self.columns is None else self.columns

    def states(
        self, volumes: Volumes, start: int, stop: int, pool: ThreadPoolExecutor | None = None
    ) -> State:
        """The prepared states of volumes start..stop, built one volume at a time to bound memory."""
        first = self._state(volumes, start)
        stacked = tuple(_empty_like(tensor, stop - start) for tensor in first)

        def place(index: int) -> None:
            state = first if index == start else self._state(volumes, index)
            for target, source in zip(stacked, state, strict=True):
                target[index - start] = source[0]

        list((pool.map if pool else map)(place, range(start, stop)))
        return stacked

    def _state(self, volumes: Volumes, index: int) -> State:
        return self.kernel.prepare(volume_tensor(volumes, index, self.shape, self.device))


def volume_tensor(volumes: Volumes, index: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """One volume, `[1,D,H,W]` float32; raises as `checked` does."""
    volume = checked(volumes[index], shape, _name_of(volumes, index))
    return torch.from_numpy(volume)[None].to(device)


def _empty_like(tensor: Tensor, count: int) -> Tensor:
    """Room for `count` volumes; numpy asks for huge pages, without which 1 GB costs 250 000 page faults."""
    shape = (count, *tensor.shape[1:])
    if tensor.device.type == "cpu":
        return torch.from_numpy(np.empty(shape, tensor.numpy().dtype))
    return tensor.new_empty(shape)


def row_blocks(n: int, voxels: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the blocks of rows that are held in memory together."""
    size = max(1, min(BLOCK_ROWS, BLOCK_VOXELS // voxels))
    return ((start, min(n, start + size)) for start in range(0, n, size))


def _read_part(path: Path | None, shape: tuple[int, int]) -> np.ndarray | None:
    if path is None or not path.exists():
        return None
    try:
        block: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s); computing it again", path, error)
        return None
    return block if block.shape == shape else None


def _block(job: _Job, start: int, stop: int, pool: ThreadPoolExecutor) -> np.ndarray:
    """Rows start..stop of the matrix; in the symmetric case only the columns from `start` on."""
    size = max(1, (stop - start) // TILE_SHARE)
    held = job.states(job.rows, start, stop, pool)
    block = np.zeros((stop - start, len(job.others)))
    symmetric = job.columns is None

    def fill(left: int) -> None:
        right = min(len(job.others), left + size)
        if symmetric and right <= stop:
            passing = _cut(held, left - start, right - start)
        else:
            passing = job.states(job.others, left, right)
        needed = min(stop, right) - start if symmetric else stop - start
        values = job.kernel.compare(_cut(held, 0, needed), passing)
        block[:needed, left:right] = values.cpu().numpy()

    list(pool.map(fill, range(start if symmetric else 0, len(job.others), size)))
    return block


def _cut(state: State, start: int, stop: int) -> State:
    return tuple(tensor[start:stop] for tensor in state)


def _name_of(volumes: Volumes, index: int) -> str:
    names = getattr(volumes, "names", None)
    where = getattr(volumes, "name", "")
    return f"Volume {names[index] if names else index}{f' of {where}' if where else ''}"
