"""Threads that work on independent pieces and never wait on each other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers(device: torch.device | str) -> Iterator[ThreadPoolExecutor]:
    """One single-threaded worker per thread that torch may use on a CPU; a single worker for a GPU."""
    threads = torch.get_num_threads()
    count = threads if torch.device(device).type == "cpu" else 1
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool
    torch.set_num_threads(
        threads
    )  # the workers' setting also reaches the linear-algebra library of this thread
