"""Volumes through a network in one pass: each is read once, finished parts survive a kill."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mribench.files import read_array, write_array
from mribench.metrics.arrays.workers import workers
from mribench.metrics.features.slices import BATCH, Extractor, network_input

_Job = Callable[[], np.ndarray]
_Device = torch.device | str
_Report = Callable[[int], None]  # volumes done


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

    A batch holds one view of 16 volumes that follow each other, the last filled up with zeros, so that a
    feature depends on nothing but its slice, whatever the device makes of a batch's size.
    """

    def jobs(start: int, stop: int) -> list[_Job]:
        views = zip(*(cut(index) for index in range(start, stop)), strict=True)
        return [partial(_batch_features, view, network, extractor, device) for view in views]

    return _in_parts(jobs, count, BATCH, device, parts, progress)


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
    """`[N,J,F]`: the rows of volumes start..stop are the results `[stop-start,F]` of the J jobs(start, stop).

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
        part = np.stack([result.result() for result in results], axis=1)
        if folder:
            write_array(_part(folder, start, stop), part)
        keep(start, part)

    with workers(device) as pool:
        try:
            for start in range(0, count, size):
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
    return np.concatenate([parts[start] for start in sorted(parts)])


def _part(folder: Path, start: int, stop: int) -> Path:
    return folder / f"{start:06d}-{stop:06d}.npy"
