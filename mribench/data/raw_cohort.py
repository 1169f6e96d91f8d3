"""A cohort from raw scans: every scan through the recipe in worker processes, resumable scan by scan."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mribench.data.cohort import Cohort, intact, read_ledger, write_cohort
from mribench.data.formats import digest_scan
from mribench.data.grid import Grid
from mribench.data.own_cohort import with_roles
from mribench.data.prepare import Refusal
from mribench.data.quality import RawRecord, failures
from mribench.data.raw import Product, process
from mribench.data.recipe import RawRecipe, require_backends
from mribench.data.scans import Scan, discover, mask_of
from mribench.data.volume_set import Progress
from mribench.errors import MribenchError
from mribench.files import append_json_line, digest_json, write_array
from mribench.protocol import Protocol

GIB_OF_A_WORKER = 2.5  # measured: 1.7 GiB for 12 million voxels, most of it deepbet's


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


def raw_cohort(folder: Path, protocol: Protocol, plan: RawPlan, progress: Progress) -> Cohort:
    """Take every subject's scan through the recipe, judge it, give subjects their roles, write volumes.json.

    A killed preparation loses the scans that were in work and goes on with the others. Scans that cannot be
    used, or miss a threshold of the recipe's quality, are listed with their reasons. Raises UsageError when a
    library is missing or too few subjects are usable for the protocol's roles.
    """
    require_backends(plan.recipe)
    grid, ledger = protocol.cohort.voxels, folder / "volumes.partial.jsonl"
    scans = discover(plan.source, plan.manifest, registered=plan.recipe.registration is None)
    tasks, refusals = _tasks(scans, plan, grid)
    entries = _finished(folder, ledger, tasks, grid)
    waiting = [task for task in tasks if task.scan.id not in entries]
    progress("prepare", len(tasks) - len(waiting), len(tasks))
    for task, outcome in _worked(waiting, grid, plan):
        entry = _stored(folder, task, outcome)
        append_json_line(ledger, entry)
        entries[task.scan.id] = entry
        progress("prepare", len(entries), len(tasks))
    usable, kept_out = _judged(tasks, entries, plan.recipe)
    refusals += kept_out
    volumes = with_roles(usable, protocol, refusals)
    recipe = {**plan.recipe.model_dump(mode="json"), "versions": plan.recipe.voxels()["versions"]}
    problems = [_problem(refusal, entries) for refusal in refusals]
    cohort = write_cohort(folder, protocol, recipe, volumes, problems)
    ledger.unlink(missing_ok=True)
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
            refusals.append(_refusal(scan, _plain(error, scan, mask)))
    return tasks, refusals


def _plain(error: MribenchError, scan: Scan, mask: Path | None) -> str:
    """What to write down: no absolute path."""
    text = str(error).replace(str(scan.path), scan.name)
    return text.replace(str(mask), mask.name) if mask else text


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


def _worked(tasks: Sequence[_Task], grid: Grid, plan: RawPlan) -> Iterator[tuple[_Task, Product | str]]:
    """Each task with its product, or the reason why there is none, in the order in which they finish."""
    if not tasks:
        return
    count = min(plan.workers or default_workers(), len(tasks))
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start_worker)
    try:
        futures: dict[Future[Product | str], _Task] = {
            pool.submit(_work, task, grid, plan.recipe): task for task in tasks
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise MribenchError(
            f"A worker process died, perhaps for lack of memory: each of the {count} needs about "
            f"{GIB_OF_A_WORKER} GiB. Run the same command again with fewer --workers; it goes on where it stopped."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


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


def _work(task: _Task, grid: Grid, recipe: RawRecipe) -> Product | str:
    try:
        return process(task.scan, task.mask, grid, recipe)
    except MribenchError as error:
        return _plain(error, task.scan, task.mask)


def _stored(folder: Path, task: _Task, outcome: Product | str) -> dict[str, Any]:
    """The ledger's entry of a finished scan, whose voxels are on disk before it is written."""
    entry = {"name": task.scan.id, "made_from": task.made_from, "digest": None, "record": None, "reason": ""}
    if isinstance(outcome, str):
        return {**entry, "reason": outcome}
    write_array(folder / "volumes" / f"{task.scan.id}.npy", outcome.voxels)
    return {**entry, "digest": outcome.record.digest, "record": outcome.record.model_dump(mode="json")}


def _judged(
    tasks: Sequence[_Task], entries: Mapping[str, Any], recipe: RawRecipe
) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """The entries to use, in the order of the scans, and the scans that are kept out."""
    usable, refusals = [], []
    first_of: dict[str, str] = {}
    for task in tasks:
        entry = entries[task.scan.id]
        reasons = [entry["reason"]] if entry["reason"] else []
        if entry["record"] is not None:
            reasons = failures(RawRecord.model_validate(entry["record"]), recipe.quality)
            twin = first_of.setdefault(entry["digest"], task.scan.name)
            if twin != task.scan.name:
                reasons.append(
                    f"it must be another person than {twin}, but both give the same voxels. Leave one out, or "
                    "give them one subject in a manifest"
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
