"""Threads that work on independent pieces and never wait on each other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def worker_count(device: torch.device | str) -> int:
    """One worker per thread that torch may use on a CPU; a single one for a GPU."""
    return torch.get_num_threads() if torch.device(device).type == "cpu" else 1


@contextmanager
def workers(device: torch.device | str, most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """`worker_count` single-threaded workers, or `most` if that is fewer."""
    threads = torch.get_num_threads()
    count = min(worker_count(device), most or threads)
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
    # The workers' setting also reaches the linear-algebra library of this thread.
    torch.set_num_threads(threads)
