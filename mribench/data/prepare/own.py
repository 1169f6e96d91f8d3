"""The cohort of one's own scans, stripped or raw: find them, make volumes, judge them, give subjects their roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mribench import processes
from mribench.data.cohort import Cohort, CohortPlan
from mribench.data.grid import Grid
from mribench.data.prepare.builder import (
    LedgerLine,
    Product,
    Refusal,
    Task,
    in_this_process,
    make_volumes,
    write_cohort,
)
from mribench.data.prepare.layouts import Scan
from mribench.data.prepare.quality import failures
from mribench.data.prepare.recipe import RawRecipe, StrippedRecipe
from mribench.data.prepare.roles import assign_roles
from mribench.data.prepare.scans import Input, digest_inputs, discover, identify, without_paths
from mribench.data.prepare.stages import process_raw
from mribench.data.prepare.stripped import process_stripped
from mribench.data.prepare.workers import default_workers, in_workers
from mribench.data.records import RawRecord, RefusedScan, ScanRecord, VolumeEntry
from mribench.data.volume_set import Progress
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_json


@dataclass(frozen=True)
class Request:
    """Which scans become a cohort, and how; `workers` None: as many as cores and memory allow, for raw scans."""

    source: Path | None
    manifest: Path | None = None
    recipe: StrippedRecipe | RawRecipe = field(default_factory=StrippedRecipe)
    masks: Path | None = None
    workers: int | None = None

    def scans(self) -> list[Scan]:
        """All scans, chosen or skipped; raises UsageError when there are none."""
        return discover(self.source, self.manifest, registered=self.recipe.registered)


def own_cohort(folder: Path, plan: CohortPlan, request: Request, progress: Progress) -> Cohort:
    """Make a volume of every subject's scan, judge it, give subjects their roles, write volumes.json.

    A killed preparation loses the scans that were in work and goes on with the others. Scans that cannot be
    used, end their worker, or miss a threshold of the recipe's quality, are listed with their reasons. Raises
    UsageError when too few subjects are usable for the plan's roles.
    """
    scans, recipe, grid = request.scans(), request.recipe, plan.spec.voxels
    inputs = processes.from_first(lambda: identify(scans, request.masks))
    _check_masks(inputs)
    refused = [_refused(scan, f"{scan.name} is {scan.skipped}.") for scan in scans if scan.skipped]
    refused += [_refused(each.scan, each.reason) for each in inputs if each.reason]
    tasks = _tasks([each for each in inputs if not each.reason], grid, recipe)
    _roles([(scan.subject, scan.source) for scan in tasks], plan, refused)  # before hours of work
    run = in_this_process  # a stripped scan takes about a second, a raw one 14 to 23
    if isinstance(recipe, RawRecipe):
        run = partial(in_workers, count=request.workers or default_workers())
    lines = make_volumes(folder, grid, list(tasks.values()), progress, run)
    usable, unusable = _judged([(scan, lines[task.name]) for scan, task in tasks.items()], recipe)
    refused += unusable
    volumes = _in_roles(usable, plan, refused)
    return processes.from_first(
        lambda: write_cohort(folder, plan, recipe.recorded(), volumes, refused, digest_inputs(inputs))
    )


def _tasks(inputs: Sequence[Input], grid: Grid, recipe: StrippedRecipe | RawRecipe) -> dict[Scan, Task]:
    settings = digest_json([recipe.voxels(), grid.model_dump(mode="json")])
    return {
        each.scan: Task(
            each.scan.id,
            digest_json([settings, each.identity()]),
            partial(_make, each.scan, each.mask, grid, recipe),
        )
        for each in inputs
    }


def _check_masks(inputs: Sequence[Input]) -> None:
    """A mask that is found by its file name alone may fit the files of several people."""
    owners: dict[Path, Scan] = {}
    for scan, mask in ((each.scan, each.mask) for each in inputs if each.mask is not None):
        if (other := owners.setdefault(mask, scan)) is not scan:
            raise UsageError(
                f"A mask must belong to one scan, but {mask.name} fits {other.name} ({other.subject}) and "
                f"{scan.name} ({scan.subject}). Name masks after the scans' relative paths or subjects."
            )


def _make(scan: Scan, mask: Path | None, grid: Grid, recipe: StrippedRecipe | RawRecipe) -> Product | Refusal:
    """The volume of one scan; whatever the scan raises is a refusal, so that the others are made."""
    try:
        if isinstance(recipe, RawRecipe):
            return process_raw(scan, mask, grid, recipe)
        return process_stripped(scan, grid, recipe)
    except MribenchError as error:
        return Refusal(without_paths(str(error), scan, mask))
    except MemoryError:
        return Refusal(
            f"{scan.name} must fit into memory, but did not. Use fewer --workers, and --overwrite if the "
            "cohort is finished.",
            passing=True,
        )
    except Exception as error:  # a library's or our own mistake, which the next version may not make
        reason = (
            f"it must go through every stage, but raised {type(error).__name__}: {error}. Look at the scan."
        )
        return Refusal(without_paths(reason, scan, mask), passing=True)


def _judged(
    made: Sequence[tuple[Scan, LedgerLine]], recipe: StrippedRecipe | RawRecipe
) -> tuple[list[LedgerLine], list[RefusedScan]]:
    """The lines whose volumes are used, and the scans that are left out."""
    usable, refused = [], []
    first_of: dict[str, Scan] = {}
    for scan, line in made:
        reasons, record = [line.reason] if line.reason else [], None
        if isinstance(line.record, ScanRecord):
            record = line.record
            if isinstance(record, RawRecord) and recipe.quality is not None:
                reasons = failures(record, recipe.quality)
            twins = [first_of.setdefault(digest, scan) for digest in (record.digest, record.sha256)]
            if twin := next((twin for twin in twins if twin is not scan), None):
                reasons.append(
                    f"it must be another person than {twin.name} ({twin.subject}), but both are the same scan. "
                    "Leave one out, or give them one subject in a manifest"
                )
        if reasons:
            refused.append(_refused(scan, "; ".join(reasons), record))
        else:
            usable.append(line)
    if isinstance(recipe, StrippedRecipe):  # their order is part of the digest of cohorts that are finished
        usable.sort(key=lambda line: line.name)
    return usable, refused


def _refused(scan: Scan, reason: str, record: ScanRecord | None = None) -> RefusedScan:
    reason = reason if scan.name in reason else f"{scan.name}: {reason}"
    return RefusedScan(name=scan.name, reason=reason, record=record)


def _in_roles(
    usable: Sequence[LedgerLine], plan: CohortPlan, refused: Sequence[RefusedScan]
) -> list[VolumeEntry]:
    """The volumes that play a role; raises UsageError, naming what was left out, when too few are left."""
    subjects = [
        (line.record.subject, line.record.source) for line in usable if isinstance(line.record, ScanRecord)
    ]
    roles = _roles(subjects, plan, refused)
    return [
        line.as_volume(roles[subject])
        for line, (subject, _) in zip(usable, subjects, strict=True)
        if subject in roles
    ]


def _roles(
    subjects: Sequence[tuple[str, str]], plan: CohortPlan, refused: Sequence[RefusedScan]
) -> dict[str, tuple[str, ...]]:
    try:
        return assign_roles(subjects, plan)
    except UsageError as error:
        left_out = "".join(f"\n  {scan.name}: {scan.reason}" for scan in refused[:10])
        raise UsageError(f"{error} {len(refused)} scans were left out.{left_out}") from error
