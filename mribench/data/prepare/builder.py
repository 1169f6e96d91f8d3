"""The builder of every cohort: volume by volume, resumable; `volumes.json`, written last, makes it a cohort."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from mribench import processes
from mribench.data.cohort import Cohort, CohortPlan, is_intact, volume_path
from mribench.data.grid import Grid
from mribench.data.records import CohortRecord, RefusedScan, VolumeEntry, VolumeRecord
from mribench.data.volume_set import Progress
from mribench.files import append_json_line, digest_json, digest_volume, read_json_lines, write_array

LEDGER = "ledger.jsonl"  # stays, so that making the cohort again makes only what must differ


@dataclass(frozen=True, eq=False)
class Product:
    """A volume: uint16 voxels `[D,H,W]` on the grid, its record, and the seconds of each stage."""

    voxels: np.ndarray
    record: VolumeRecord
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """Why there is no volume. `passing`: by this machine or program and not by the scan, so it is tried again."""

    reason: str
    passing: bool = False


@dataclass(frozen=True)
class Task:
    """One volume to make. `made_from` identifies its inputs; `make` must be picklable if workers call it."""

    name: str
    made_from: str
    make: Callable[[], Product | Refusal]


Outcomes = Iterator[tuple[Task, Product | Refusal]]


class LedgerLine(BaseModel):
    """What became of one task: a volume, whose voxels were on disk before this was written, or a refusal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    made_from: str
    digest: str = ""
    record: VolumeRecord | None = None
    reason: str = ""

    def as_volume(self, roles: tuple[str, ...]) -> VolumeEntry:
        """The volume in its roles; only of a line that is no refusal."""
        assert self.record is not None
        return VolumeEntry(name=self.name, roles=roles, digest=self.digest, record=self.record)


def in_this_process(tasks: Iterable[Task]) -> Outcomes:
    """Each task with its outcome, one after the other."""
    return ((task, task.make()) for task in tasks)


def make_volumes(
    folder: Path,
    grid: Grid,
    tasks: Sequence[Task],
    progress: Progress,
    run: Callable[[Iterable[Task]], Outcomes] = in_this_process,
) -> dict[str, LedgerLine]:
    """Make every volume that is missing; a line for each task, by its name. Several processes divide the tasks.

    Killed, it goes on where it stopped: a task is finished when the ledger says that its volume was made from
    the same inputs and the voxels still have that digest.
    """
    lines = processes.from_first(lambda: _finished(folder, grid, tasks))
    progress("volumes", len(lines), len(tasks))
    missing = [task for task in tasks if task.name not in lines]
    with processes.agreement("volumes"):
        for task, outcome in run(processes.divided(missing)):
            line, stays = _stored(folder, grid, task, outcome)
            lines[task.name] = line
            _enter(folder, [line] if stays else [], lines)
            progress("volumes", len(lines), len(tasks))
    if processes.size() > 1:
        _enter(folder, [], lines)
        progress("volumes", len(lines), len(tasks))
    return processes.exchange(lines, "volumes")


def _enter(folder: Path, made: Sequence[LedgerLine], lines: dict[str, LedgerLine]) -> None:
    """Write into the ledger what this process has made, and what the others have by now; the first process does."""
    if not processes.is_first():
        processes.tell_first(made)
        return
    for line in itertools.chain(made, *processes.told()):
        lines[line.name] = line
        append_json_line(folder / LEDGER, line.model_dump(mode="json"))


def _finished(folder: Path, grid: Grid, tasks: Sequence[Task]) -> dict[str, LedgerLine]:
    made_from = {task.name: task.made_from for task in tasks}
    return {
        name: line
        for name, line in _read_ledger(folder / LEDGER).items()
        if line.made_from == made_from.get(name)
        and (line.reason or is_intact(folder, name, line.digest, grid))
    }


def _read_ledger(path: Path) -> dict[str, LedgerLine]:
    """The last line of each volume; one that is torn or damaged is passed over, and its volume made again."""
    lines: dict[str, LedgerLine] = {}
    for text in read_json_lines(path)[0] if path.exists() else ():
        try:
            line = LedgerLine.model_validate_json(text)
        except ValueError:
            continue
        lines[line.name] = line
    return lines


def _stored(folder: Path, grid: Grid, task: Task, outcome: Product | Refusal) -> tuple[LedgerLine, bool]:
    """What became of a task, with its voxels on disk; and whether that stays so."""
    if isinstance(outcome, Refusal):
        line = LedgerLine(name=task.name, made_from=task.made_from, reason=outcome.reason)
        return line, not outcome.passing
    write_array(volume_path(folder, task.name), outcome.voxels)
    line = LedgerLine(
        name=task.name,
        made_from=task.made_from,
        digest=digest_volume(outcome.voxels, grid.affine),
        record=outcome.record,
    )
    return line, True


def write_cohort(
    folder: Path,
    plan: CohortPlan,
    recipe: dict[str, Any],
    volumes: Sequence[VolumeEntry],
    refused: Sequence[RefusedScan] = (),
    inputs: str = "",
) -> Cohort:
    """Write volumes.json, which makes the arrays beside it a cohort; arrays that it does not name are removed.

    Across machines a simulated cohort is identified by its recipe, since its bytes differ between
    processors; a prepared one by its volumes. `inputs` identifies the files that a prepared one was made from.
    """
    simulated, grid = plan.spec.source == "simulated", plan.spec.voxels
    content = recipe if simulated else [volume.model_dump(mode="json") for volume in volumes]
    record = CohortRecord(
        source=plan.spec.source,
        recipe=recipe,
        recipe_digest=digest_json(recipe),
        protocol_digest=plan.protocol_digest,
        grid=grid,
        volumes=tuple(volumes),
        problems=tuple(refused),
        inputs=inputs,
        digest=digest_json([content, grid.model_dump(mode="json")]),
    )
    record.write(folder / "volumes.json")
    named = {volume.name for volume in volumes} | {scan.record.id for scan in refused if scan.record}
    for path in (folder / "volumes").glob("*.npy"):
        if path.stem not in named:
            path.unlink()
    return Cohort(folder, record)
