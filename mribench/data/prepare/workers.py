"""Tasks in worker processes: one that dies takes only its own scan with it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from mribench.data.prepare.builder import Outcomes, Product, Refusal, Task
from mribench.errors import MribenchError

log = logging.getLogger(__name__)

_TASKS_A_WORKER = 2  # handed over at a time: enough to keep it busy, few finished volumes in memory
_GIB_OF_A_WORKER = 2.5  # measured by benchmarks/raw.py: 2.36 with its own making of heads, 12 million voxels
_DIED = Refusal("it must not end its worker process, but did, also alone. Look at the scan.", passing=True)


def default_workers() -> int:
    """One worker a core, as far as the machine's memory goes where the system says how large it is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    except (ValueError, OSError):
        return cores
    return max(1, min(cores, int(memory / _GIB_OF_A_WORKER)))


def in_workers(tasks: Iterable[Task], count: int) -> Outcomes:
    """Each task with its outcome, in the order in which they finish; tasks are taken when a worker is ready.

    When a worker dies, the tasks that were in work are tried one at a time: the one that dies alone is refused.
    Raises MribenchError when every one of several dies alone.
    """
    waiting = _Waiting(iter(tasks))
    while waiting.first():
        in_work: dict[Future[Product | Refusal], Task] = {}
        try:
            yield from _pooled(waiting, in_work, count)
        except BrokenProcessPool:
            log.warning("A worker died; the scans that were in work are tried one at a time.")
            alone = [(task, _alone(task)) for task in in_work.values()]
            died = [task for task, outcome in alone if outcome is _DIED]
            if len(died) == len(alone) != 1:
                raise MribenchError(
                    f"A worker process needs about {_GIB_OF_A_WORKER} GiB of memory, but every one died, also with "
                    "one scan at a time. Free some memory and run the same command again; it goes on where it "
                    "stopped."
                ) from None
            yield from alone
            if not died:  # memory was short for all of them together
                count = max(1, count // 2)


@dataclass
class _Waiting:
    """Tasks that are not in work; the next one is taken from `rest` when it is asked for."""

    rest: Iterator[Task]
    taken: Task | None = None

    def first(self) -> Task | None:
        """The next task, which stays."""
        self.taken = self.taken or next(self.rest, None)
        return self.taken


def _pooled(waiting: _Waiting, in_work: dict[Future[Product | Refusal], Task], count: int) -> Outcomes:
    """Outcomes of the tasks taken off `waiting`; `in_work` holds those without one when the pool breaks."""
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start_worker)
    try:
        while waiting.first() or in_work:
            while len(in_work) < _TASKS_A_WORKER * count and (task := waiting.first()):
                in_work[pool.submit(task.make)] = task
                waiting.taken = None
            done = wait_for(in_work, return_when=FIRST_COMPLETED).done
            for future in [future for future in in_work if future in done]:
                outcome = future.result()
                yield in_work.pop(future), outcome
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(task: Task) -> Product | Refusal:
    try:
        ((_, outcome),) = _pooled(_Waiting(iter([task])), {}, 1)
    except BrokenProcessPool:
        return _DIED
    return outcome


def _start_worker() -> None:
    """One thread for every library, so that sums are added in one order; and no life after the parent's."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once and in silence
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
