"""A cohort from raw scans: every scan through the recipe in worker processes, resumable scan by scan."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mribench.bench.protocol import Protocol
from mribench.data.cohort import Cohort, intact, read_ledger, write_cohort
from mribench.data.formats import digest_scan
from mribench.data.grid import Grid
from mribench.data.prepare.own_cohort import with_roles
from mribench.data.prepare.quality import RawRecord, failures
from mribench.data.prepare.recipe import RawRecipe, require_backends
from mribench.data.prepare.scans import Scan, digest_inputs, discover, mask_of, without_paths
from mribench.data.prepare.stages import Product, process
from mribench.data.prepare.stripped import Refusal
from mribench.data.volume_set import Progress
from mribench.errors import MribenchError, UsageError
from mribench.files import append_json_line, digest_json, write_array

LEDGER = "volumes.raw.jsonl"  # stays, so that --overwrite makes anew only what must differ
log = logging.getLogger(__name__)

_TASKS_A_WORKER = 2  # handed over at a time: enough to keep it busy, few finished volumes in memory
GIB_OF_A_WORKER = 2.5  # measured by benchmarks/raw.py: 2.36 with its own making of heads, 12 million voxels


@dataclass(frozen=True)
class RawPlan:
    """What `prepare --raw` was asked for; `workers` None: as many as cores and memory allow."""

    source: Path | None
    manifest: Path | None
    masks: Path | None
    recipe: RawRecipe
    workers: int | None = None


@dataclass(frozen=True)
class _Task:
    scan: Scan
    mask: Path | None
    made_from: str


@dataclass(frozen=True)
class _Failure:
    """Why there is no product. `passing`: by this machine or program and not by the scan, so it is tried again."""

    reason: str
    passing: bool = False


_DIED = _Failure("it must not end its worker process, but did, also alone. Look at the scan.", passing=True)


def raw_cohort(folder: Path, protocol: Protocol, plan: RawPlan, progress: Progress) -> Cohort:
    """Take every subject's scan through the recipe, judge it, give subjects their roles, write volumes.json.

    A killed preparation loses the scans that were in work and goes on with the others. Scans that cannot be
    used, end their worker, or miss a threshold of the recipe's quality, are listed with their reasons. Raises
    UsageError when a library is missing or too few subjects are usable for the protocol's roles.
    """
    require_backends(plan.recipe)
    grid, ledger = protocol.cohort.voxels, folder / LEDGER
    scans = discover(plan.source, plan.manifest, registered=plan.recipe.registration is None)
    tasks, refusals = _tasks(scans, plan, grid)
    entries = _finished(folder, ledger, tasks, grid)
    waiting = [task for task in tasks if task.scan.id not in entries]
    progress("prepare", len(tasks) - len(waiting), len(tasks))
    for task, outcome in _worked(waiting, grid, plan):
        entry = _stored(folder, task, outcome)
        if not (isinstance(outcome, _Failure) and outcome.passing):
            append_json_line(ledger, entry)
        entries[task.scan.id] = entry
        progress("prepare", len(entries), len(tasks))
    usable, kept_out = _judged(tasks, entries, plan.recipe)
    refusals += kept_out
    volumes = with_roles(usable, protocol, refusals)
    recipe = {**plan.recipe.model_dump(mode="json"), "versions": plan.recipe.voxels()["versions"]}
    problems = [_problem(refusal, entries) for refusal in refusals]
    inputs = digest_inputs(scans, plan.masks)
    cohort = write_cohort(folder, protocol, recipe, volumes, problems, inputs)
    for stray in (folder / "volumes").glob("*.npy"):
        if stray.stem not in entries:
            stray.unlink()
    return cohort


def _tasks(scans: Sequence[Scan], plan: RawPlan, grid: Grid) -> tuple[list[_Task], list[Refusal]]:
    """One task per scan that can be read at all and has its mask; the others with their reasons."""
    tasks, refusals = [], []
    settings = plan.recipe.voxels()
    for scan in scans:
        mask = None
        try:
            if scan.skipped:
                raise MribenchError(f"{scan.name} is {scan.skipped}.")
            mask = mask_of(scan, plan.masks) if plan.masks else None
            labels = [scan.name, scan.subject, scan.session, scan.source, *scan.done]
            sources = [digest_scan(scan.path), digest_scan(mask) if mask else None]
            made_from = digest_json([labels, sources, settings, grid.model_dump(mode="json")])
            tasks.append(_Task(scan, mask, made_from))
        except MribenchError as error:
            refusals.append(_refusal(scan, without_paths(str(error), scan, mask)))
    _check_masks(tasks)
    return tasks, refusals


def _check_masks(tasks: Sequence[_Task]) -> None:
    """A mask that is found by its file name alone may fit the files of several people."""
    owners: dict[Path, Scan] = {}
    for mask, scan in ((task.mask, task.scan) for task in tasks if task.mask is not None):
        other = owners.setdefault(mask, scan)
        if other is not scan:
            raise UsageError(
                f"A mask must belong to one scan, but {mask.name} fits {other.name} ({other.subject}) and "
                f"{scan.name} ({scan.subject}). Name masks after the scans' relative paths or subjects."
            )


def _refusal(scan: Scan, reason: str) -> Refusal:
    named = reason if scan.name in reason else f"{scan.name}: {reason}"
    return Refusal(scan.name, named, scan.id, chosen=not scan.skipped)


def _finished(folder: Path, ledger: Path, tasks: Sequence[_Task], grid: Grid) -> dict[str, Any]:
    """Ledger entries that were made from the same inputs and whose voxels are still intact."""
    expected = {task.scan.id: task.made_from for task in tasks}
    return {
        name: entry
        for name, entry in read_ledger(ledger).items()
        if name in expected
        and entry.get("made_from") == expected[name]
        and (entry["digest"] is None or intact(folder / "volumes" / f"{name}.npy", entry["digest"], grid))
    }


def _worked(tasks: Sequence[_Task], grid: Grid, plan: RawPlan) -> Iterator[tuple[_Task, Product | _Failure]]:
    """Each task with its product, or the reason why there is none, in the order in which they finish.

    When a worker dies, the scans that were in work are tried one at a time: the one that dies alone is refused.
    """
    waiting, count = deque(tasks), min(plan.workers or default_workers(), len(tasks))
    while waiting:
        in_work: dict[Future[Product | _Failure], _Task] = {}
        try:
            yield from _pooled(waiting, in_work, count, grid, plan.recipe)
        except BrokenProcessPool:
            log.warning("A worker died; the scans that were in work are tried one at a time.")
            alone = [(task, _alone(task, grid, plan.recipe)) for task in in_work.values()]
            died = [task for task, outcome in alone if outcome is _DIED]
            if len(died) == len(alone) != 1:
                raise MribenchError(
                    f"A worker process needs about {GIB_OF_A_WORKER} GiB of memory, but every one died, also with "
                    "one scan at a time. Free some memory and run the same command again; it goes on where it "
                    "stopped."
                ) from None
            yield from alone
            if not died:  # memory was short for all of them together
                count = max(1, count // 2)


def _pooled(
    waiting: deque[_Task],
    in_work: dict[Future[Product | _Failure], _Task],
    count: int,
    grid: Grid,
    recipe: RawRecipe,
) -> Iterator[tuple[_Task, Product | _Failure]]:
    """Outcomes of the tasks taken off `waiting`; `in_work` holds those without one when the pool breaks."""
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start_worker)
    try:
        while waiting or in_work:
            while waiting and len(in_work) < _TASKS_A_WORKER * count:
                in_work[pool.submit(_work, waiting[0], grid, recipe)] = waiting[0]
                waiting.popleft()
            done = wait_for(in_work, return_when=FIRST_COMPLETED).done
            for future in [one for one in in_work if one in done]:
                outcome = future.result()
                yield in_work.pop(future), outcome
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(task: _Task, grid: Grid, recipe: RawRecipe) -> Product | _Failure:
    try:
        ((_, outcome),) = _pooled(deque([task]), {}, 1, grid, recipe)
    except BrokenProcessPool:
        return _DIED
    return outcome


def default_workers() -> int:
    """One worker a core, as far as the machine's memory goes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return max(1, min(len(os.sched_getaffinity(0)), int(memory / GIB_OF_A_WORKER)))


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


def _work(task: _Task, grid: Grid, recipe: RawRecipe) -> Product | _Failure:
    """Nothing that one scan raises may cost the others."""
    try:
        return process(task.scan, task.mask, grid, recipe)
    except MribenchError as error:
        return _Failure(without_paths(str(error), task.scan, task.mask))
    except MemoryError:
        return _Failure(
            f"{task.scan.name} must fit into memory, but did not. Use fewer --workers, and --overwrite if the "
            "cohort is finished.",
            passing=True,
        )
    except Exception as error:  # a library's or our own mistake, which the next version may not make
        reason = (
            f"it must go through every stage, but raised {type(error).__name__}: {error}. Look at the scan."
        )
        return _Failure(without_paths(reason, task.scan, task.mask), passing=True)


def _stored(folder: Path, task: _Task, outcome: Product | _Failure) -> dict[str, Any]:
    """The ledger's entry of a finished scan, whose voxels are on disk before it is written."""
    entry = {"name": task.scan.id, "made_from": task.made_from, "digest": None, "record": None, "reason": ""}
    if isinstance(outcome, _Failure):
        return {**entry, "reason": outcome.reason}
    write_array(folder / "volumes" / f"{task.scan.id}.npy", outcome.voxels)
    return {**entry, "digest": outcome.record.digest, "record": outcome.record.model_dump(mode="json")}


def _judged(
    tasks: Sequence[_Task], entries: Mapping[str, Any], recipe: RawRecipe
) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """The entries to use, in the order of the scans, and the scans that are kept out."""
    usable, refusals = [], []
    first_of: dict[str, Scan] = {}
    for task in tasks:
        entry = entries[task.scan.id]
        reasons = [entry["reason"]] if entry["reason"] else []
        if entry["record"] is not None:
            reasons = failures(RawRecord.model_validate(entry["record"]), recipe.quality)
            same = (entry["digest"], entry["record"]["sha256"])
            twin = next((first_of[digest] for digest in same if digest in first_of), task.scan)
            for digest in same:
                first_of.setdefault(digest, task.scan)
            if twin.id != task.scan.id:
                reasons.append(
                    f"it must be another person than {twin.name} ({twin.subject}), but both are the same scan. "
                    "Leave one out, or give them one subject in a manifest"
                )
        if reasons:
            refusals.append(_refusal(task.scan, "; ".join(reasons)))
        else:
            usable.append(entry)
    return usable, refusals


def _problem(refusal: Refusal, entries: Mapping[str, Any]) -> dict[str, Any]:
    """What volumes.json says of a scan that was kept out; with its record where it came so far."""
    problem: dict[str, Any] = {"name": refusal.name, "reason": refusal.reason}
    record = entries.get(refusal.id, {}).get("record") if refusal.chosen else None
    return {**problem, "record": record} if record else problem
