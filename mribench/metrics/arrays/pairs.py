"""The all-pairs engine: what depends on one volume is computed once, then only what depends on both.

A kernel's `prepare` is the costly part that depends on one volume (smoothed means and variances, say); `compare` is
the cross term. A group of rows is held in memory while the columns are read in tiles, as many of both as a budget of
memory allows. Each finished group is a file, so that a killed matrix continues where it stopped. For a kernel whose
`compare` gives a pair the same bits in every group and tile, as MS-SSIM's does, the matrix depends neither on the
budget nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mribench import processes
from mribench.errors import MribenchError, TooLittleMemory
from mribench.files import read_array, write_array
from mribench.metrics.arrays.workers import worker_count, workers
from mribench.runtime import DEFAULT_MEMORY

State = tuple[Tensor, ...]  # every tensor has the volumes as its first axis

GROUP_ROWS = 64  # more would hardly save time: a column's state costs as much as about five pairs
_GROUP_ROWS_GPU = 512  # there it costs as much as hundreds
NARROW = 4  # columns of a tile where a pair costs more than fetching a volume
VOLUMES_IN_WORK = 3  # what a worker holds of a volume that is being read and prepared, in float32


class Kernel(Protocol):
    """A symmetric function of two volumes, split into what depends on one of them and what on both."""

    @property
    def name(self) -> str: ...
    @property
    def tile(self) -> int: ...  # columns that are compared with a group of rows at a time, at most

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
    memory: int = DEFAULT_MEMORY,
) -> np.ndarray:
    """`kernel` of every row with every column, `[N,M]` float64; `columns=None`: the rows themselves.

    With `parts`, every finished group of rows is stored in that folder and never computed again. Several processes
    divide the groups. `progress` is told the rows done and their number. `memory`: bytes of prepared volumes held at
    once, on `device`; raises TooLittleMemory when they do not hold one pair.
    """
    shape = rows[0].shape
    if len(shape) != 3:
        raise MribenchError(f"Volumes must be [D,H,W], but have the shape {list(shape)}.")
    kernel.check(shape)
    job = _Job(rows, columns, kernel, shape, torch.device(device))
    most, threads = min(len(rows), group_rows(device)), worker_count(device)
    budget = allot(memory, job.state_bytes(), shape, most, len(job.others), threads, kernel.tile)
    found: dict[int, np.ndarray] = {}
    with processes.agreement("pairs"), workers(job.device, budget.workers) as pool:
        for start in processes.divided(range(0, len(rows), budget.rows)):
            stop = min(len(rows), start + budget.rows)
            part = parts / f"{start:06d}-{stop:06d}.npy" if parts else None
            group = _read_part(part, (stop - start, len(job.others)))
            if group is None:
                group = _row_group(job, start, stop, budget.columns, pool)
                if part:
                    write_array(part, group)
            found[start] = group
            if progress:
                progress(stop, len(rows))
    matrix = np.zeros((len(rows), len(job.others)))
    for start, group in processes.exchange(found, "pairs").items():
        matrix[start : start + len(group)] = group
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

    def state_bytes(self) -> int:
        """Of one prepared volume."""
        return sum(tensor.nbytes for tensor in self._state(self.rows, 0))

    def states(
        self, volumes: Volumes, start: int, stop: int, pool: ThreadPoolExecutor | None = None
    ) -> State:
        """The prepared states of volumes start..stop, built one volume at a time to bound memory."""
        first = self._state(volumes, start)
        if stop == start + 1:
            return first
        stacked = tuple(_empty_like(tensor, stop - start) for tensor in first)
        _place(stacked, first, 0)
        del first
        rest = range(start + 1, stop)
        list((pool.map if pool else map)(lambda i: _place(stacked, self._state(volumes, i), i - start), rest))
        return stacked

    def _state(self, volumes: Volumes, index: int) -> State:
        return self.kernel.prepare(volume_tensor(volumes, index, self.shape, self.device))


def volume_tensor(volumes: Volumes, index: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """One volume, `[1,D,H,W]` float32; raises as `checked` does."""
    volume = checked(volumes[index], shape, _name_of(volumes, index))
    return torch.from_numpy(volume)[None].to(device)


def _place(stacked: State, state: State, index: int) -> None:
    for target, source in zip(stacked, state, strict=True):
        target[index] = source[0]


def _empty_like(tensor: Tensor, count: int) -> Tensor:
    """Room for `count` volumes; numpy asks for huge pages, without which 1 GB costs 250 000 page faults."""
    shape = (count, *tensor.shape[1:])
    if tensor.device.type == "cpu":
        return torch.from_numpy(np.empty(shape, tensor.numpy().dtype))
    return tensor.new_empty(shape)


def group_rows(device: torch.device | str) -> int:
    """The most rows of a group."""
    return GROUP_ROWS if torch.device(device).type == "cpu" else _GROUP_ROWS_GPU


class Budget(NamedTuple):
    """What the memory allows: so many rows and, for each of the workers, so many columns."""

    rows: int
    columns: int
    workers: int


def allot(
    memory: int,
    state: int,
    shape: tuple[int, ...],
    rows: int,
    columns: int,
    threads: int,
    tile: int = NARROW,
) -> Budget:
    """Divides `memory` bytes, `state` of which hold one prepared volume `[D,H,W]` of `shape`.

    At most `rows` rows and `tile` columns a worker are held. A tile of several columns needs one state more, for the
    volume being prepared. Raises TooLittleMemory naming the least memory when one pair does not fit.
    """
    in_work = VOLUMES_IN_WORK * 4 * int(np.prod(shape))
    if memory < 2 * state + in_work:
        least = -(-(2 * state + in_work) // 10**6)
        raise TooLittleMemory(
            f"--memory must hold one pair of volumes {list(shape)} with what is computed of each, {least}M, "
            f"but is {memory / 10**6:.0f}M. Give at least --memory {least}M."
        )
    for count in range(threads, 0, -1):
        held = (memory - count * in_work) // state
        if held > count:
            break
    size = max(1, min(tile, columns // (NARROW * count)))
    while size > 1 and held < count * (size + 1) + min(rows, 4 * size):
        size -= 1
    other = count * (size + 1) if size > 1 else count
    return Budget(max(1, min(rows, held - other)), size, count)


def _read_part(path: Path | None, shape: tuple[int, int]) -> np.ndarray | None:
    part = read_array(path, shape[0]) if path else None
    return part if part is not None and part.shape == shape else None


def _row_group(job: _Job, start: int, stop: int, size: int, pool: ThreadPoolExecutor) -> np.ndarray:
    """Rows start..stop of the matrix; in the symmetric case only the columns from `start` on."""
    held = job.states(job.rows, start, stop, pool)
    group = np.zeros((stop - start, len(job.others)))

    def put(rows: range, columns: range, states: State) -> None:
        """The comparison of some of the rows with columns, whose `states` are prepared."""
        values = job.kernel.compare(_cut(held, rows.start, rows.stop), states)
        group[rows.start : rows.stop, columns.start : columns.stop] = values.cpu().numpy()

    def fill(tile: range) -> None:
        if job.columns is not None or tile.stop > stop:
            put(range(stop - start), tile, job.states(job.others, tile.start, tile.stop))
            return
        top = tile.start - start
        if top:
            put(range(top), tile, _cut(held, top, tile.stop - start))
        step = 1 if size <= NARROW else size  # a narrow tile computes half of its square only
        for left in range(tile.start, tile.stop, step):
            right = min(left + step, tile.stop)
            columns = _cut(held, left - start, right - start)
            put(range(top, right - start), range(left, right), columns)

    if job.columns is None:  # the longest first
        tiles = [*_tiles(stop, len(job.others), size), *reversed(_tiles(start, stop, size))]
    else:
        tiles = _tiles(0, len(job.others), size)
    list(pool.map(fill, tiles))
    return group


def _tiles(start: int, stop: int, size: int) -> list[range]:
    return [range(left, min(stop, left + size)) for left in range(start, stop, size)]


def _cut(state: State, start: int, stop: int) -> State:
    return tuple(tensor[start:stop] for tensor in state)


def _name_of(volumes: Volumes, index: int) -> str:
    names = getattr(volumes, "names", None)
    where = getattr(volumes, "name", "")
    return f"Volume {names[index] if names else index}{f' of {where}' if where else ''}"
