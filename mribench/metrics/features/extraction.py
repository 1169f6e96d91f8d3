"""Volumes through a network or a segmentation in one pass: each is read once, finished parts survive a kill."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mribench import processes
from mribench.data.anatomy import Lattice
from mribench.files import read_array, write_array
from mribench.metrics.arrays.workers import workers
from mribench.metrics.features.anatomy import region_volumes
from mribench.metrics.features.slices import BATCH, Extractor, network_input

_Job = Callable[[], np.ndarray]
_Device = torch.device | str
_Report = Callable[[int], None]  # volumes done

_PART = 16  # volumes whose features are kept together when a command is killed


def slice_features(
    cut: Callable[[int], Sequence[np.ndarray]],
    count: int,
    network: nn.Module,
    extractor: Extractor,
    device: _Device = "cpu",
    parts: Path | None = None,
    progress: _Report | None = None,
) -> np.ndarray:
    """Features `[N,V,F]` float32 of V uint8 slices `[S,S]` per volume; `cut(i)` reads volume i and cuts it.

    A batch holds 4 slices of one size from volumes that follow each other, the last filled up with zeros, so
    that a feature depends on nothing but its slice, whatever the device makes of a batch's size.
    """

    def jobs(start: int, stop: int) -> list[_Job]:
        columns = zip(*(cut(index) for index in range(start, stop)), strict=True)
        slices = itertools.chain.from_iterable(columns)
        batches = [
            batch for _, of_size in itertools.groupby(slices, key=np.shape) for batch in _batches(of_size)
        ]
        return [partial(_batch_features, batch, network, extractor, device) for batch in batches]

    return _in_parts(jobs, count, _PART, device, parts, progress)


def _batches(slices: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    while batch := list(itertools.islice(slices, BATCH)):
        yield batch


def _batch_features(
    slices: Sequence[np.ndarray], network: nn.Module, extractor: Extractor, device: _Device
) -> np.ndarray:
    full = np.zeros((BATCH, *slices[0].shape), dtype=np.uint8)
    full[: len(slices)] = slices
    return infer(network, network_input(full, extractor, device))[: len(slices)]


def volume_features(
    read: Callable[[int], Tensor],
    count: int,
    network: nn.Module,
    device: _Device = "cpu",
    parts: Path | None = None,
    progress: _Report | None = None,
) -> np.ndarray:
    """Features `[N,F]` float32 of whole volumes, one at a time; `read(i)` is the network's input `[1,1,D,H,W]`."""

    def jobs(start: int, stop: int) -> list[_Job]:
        return [lambda: infer(network, read(start).to(device))]

    return _in_parts(jobs, count, 1, device, parts, progress)[:, 0]


def brain_regions(
    read: Callable[[int], np.ndarray],
    lattice: Lattice,
    count: int,
    parts: Path | None = None,
    progress: _Report | None = None,
) -> np.ndarray:
    """Volumes in ml of `REGIONS` `[N,R]` float64; `read(i)` is the brain `[D,H,W]` in [0,1], 0 outside."""

    def jobs(start: int, stop: int) -> list[_Job]:
        return [lambda: region_volumes(read(start), lattice)[None]]

    return _in_parts(jobs, count, 1, "cpu", parts, progress)[:, 0]


def infer(network: nn.Module, pixels: Tensor) -> np.ndarray:
    """float32 features of one batch; TF32 is off, which would change their third digit on recent GPUs."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        features: np.ndarray = network(pixels).float().cpu().numpy()
    return features


def _in_parts(
    jobs: Callable[[int, int], list[_Job]],
    count: int,
    size: int,
    device: _Device,
    folder: Path | None,
    progress: _Report | None,
) -> np.ndarray:
    """`[N,V,F]`: the results of jobs(start, stop), one after the other, are V rows of every volume, column by column.

    Jobs are made in order, while those made before run; each part of `size` volumes is written to `folder`.
    """
    running: deque[tuple[int, int, list[Future[np.ndarray]]]] = deque()
    parts: dict[int, np.ndarray] = {}

    def keep(start: int, part: np.ndarray) -> None:
        parts[start] = part
        if progress:
            progress(sum(map(len, parts.values())))

    def finish() -> None:
        start, stop, results = running.popleft()
        rows = np.concatenate([result.result() for result in results])
        part = rows.reshape(-1, stop - start, rows.shape[-1]).swapaxes(0, 1)
        if folder:
            write_array(_part(folder, start, stop), part)
        keep(start, part)

    with processes.agreement("features"), workers(device) as pool:
        try:
            for start in processes.divided(range(0, count, size)):
                stop = min(count, start + size)
                part = read_array(_part(folder, start, stop), stop - start) if folder else None
                if part is not None:
                    keep(start, part)
                    continue
                running.append((start, stop, [pool.submit(job) for job in jobs(start, stop)]))
                if len(running) > torch.get_num_threads():
                    finish()
            while running:
                finish()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return np.concatenate([part for _, part in sorted(processes.exchange(parts, "features").items())])


def _part(folder: Path, start: int, stop: int) -> Path:
    return folder / f"{start:06d}-{stop:06d}.npy"
