"""Arrays by a name that says all they depend on: in memory, else in a folder, else computed and written there."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mribench import processes
from mribench.files import read_array, write_array

log = logging.getLogger(__name__)

Compute = Callable[[Path | None], np.ndarray]  # is given a folder for finished parts, if there is any


class Store:
    """Keeps arrays in memory and, with a `folder`, on disk, where several processes share them."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._arrays: dict[str, np.ndarray] = {}

    def get(self, name: str, compute: Compute, rows: int) -> np.ndarray:
        """The array called `name`; a file that does not have so many rows is computed again."""
        if name not in self._arrays:
            array = processes.from_first(lambda: self._read(name, rows), name)
            if array is None:
                array = self._computed(name, compute, rows, self.folder) if self.folder else compute(None)
            self._arrays[name] = array
        return self._arrays[name]

    def in_memory(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """As `get`, of an array that is not worth a file."""
        if name not in self._arrays:
            self._arrays[name] = compute()
        return self._arrays[name]

    def _computed(self, name: str, compute: Compute, rows: int, folder: Path) -> np.ndarray:
        """Of two commands that need it at the same moment, one computes and the other waits for the file."""
        with _locked(folder / f"{name}.lock") if processes.is_first() else nullcontext():
            array = processes.from_first(lambda: self._read(name, rows), name)
            if array is None:
                parts = folder / f"{name}.parts"
                array = compute(parts)
                if processes.is_first():
                    write_array(folder / f"{name}.npy", array)
                    shutil.rmtree(parts, ignore_errors=True)
            return array

    def _read(self, name: str, rows: int) -> np.ndarray | None:
        return read_array(self.folder / f"{name}.npy", rows) if self.folder else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)  # the system frees it when its process dies
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s is being computed by another process; waiting for it", path.stem)
        lock.acquire()
    try:
        yield
        path.unlink(missing_ok=True)  # a process that still waits for the lock finds the array
    finally:
        lock.release()
