"""A cohort from the user's own skull-stripped, registered volumes: prepare each, then split by subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mribench.bench.protocol import Protocol
from mribench.data.cohort import Cohort, intact, read_ledger, write_cohort
from mribench.data.grid import quantise
from mribench.data.prepare.scans import digest_inputs, discover
from mribench.data.prepare.stripped import (
    Recipe,
    Refusal,
    ScanRecord,
    prepare,
    reference_subset,
    split_subjects,
)
from mribench.data.volume_set import Progress
from mribench.errors import UsageError
from mribench.files import append_json_line, digest_volume, write_array


def prepared_cohort(
    folder: Path, protocol: Protocol, source: Path | None, manifest: Path | None, progress: Progress
) -> Cohort:
    """Prepare every scan onto the protocol's grid, then give each subject its role and write volumes.json.

    A killed preparation goes on where it stopped; scans that cannot be used are listed with their reasons.
    Raises UsageError when too few subjects are usable for the protocol's roles.
    """
    recipe, grid = Recipe(), protocol.cohort.voxels
    ledger = folder / "volumes.partial.jsonl"
    entries = {
        name: entry
        for name, entry in read_ledger(ledger).items()
        if entry.get("recipe") == recipe.model_dump(mode="json")
        and intact(folder / "volumes" / f"{name}.npy", entry["digest"], grid)
    }

    def store(record: ScanRecord, volume: np.ndarray) -> None:
        voxels = quantise(volume)
        write_array(folder / "volumes" / f"{record.id}.npy", voxels)
        entry = {
            "name": record.id,
            "digest": digest_volume(voxels, grid.affine),
            "recipe": recipe.model_dump(mode="json"),
            "record": record.model_dump(mode="json"),
        }
        append_json_line(ledger, entry)
        entries[record.id] = entry

    scans = discover(source, manifest)
    done = [ScanRecord.model_validate(entry["record"]) for entry in entries.values()]
    refusals = prepare(
        scans, grid, recipe, store, done=done, progress=lambda _, i, n: progress("prepare", i, n)
    )
    usable_ids = {scan.id for scan in scans} - {refusal.id for refusal in refusals if refusal.chosen}
    usable = [entries[name] for name in sorted(entries) if name in usable_ids]
    volumes = with_roles(usable, protocol, refusals)
    problems = [{"name": refusal.name, "reason": refusal.reason} for refusal in refusals]
    cohort = write_cohort(
        folder, protocol, recipe.model_dump(mode="json"), volumes, problems, digest_inputs(scans)
    )
    ledger.unlink(missing_ok=True)
    return cohort


def with_roles(
    entries: Sequence[dict[str, Any]], protocol: Protocol, refusals: Sequence[Refusal]
) -> list[dict[str, Any]]:
    """The volumes that play a role; `train` gets every subject that the others leave.

    Raises UsageError, naming what was kept out, when too few are left for the roles.
    """
    spec = protocol.cohort
    subjects = [(entry["record"]["subject"], entry["record"]["source"]) for entry in entries]
    exact: dict[str, int | None] = {"holdout": spec.holdout}
    if not spec.reference_from_train:
        exact["reference"] = spec.reference
    try:
        role_of = split_subjects(subjects, {**exact, "train": None}, protocol.seed)
        train = [pair for pair in subjects if role_of.get(pair[0]) == "train"]
        also_reference = (
            set(reference_subset(train, spec.reference, protocol.seed))
            if spec.reference_from_train
            else set()
        )
    except UsageError as error:
        kept_out = "".join(f"\n  {r.name}: {r.reason}" for r in refusals[:10])
        raise UsageError(f"{error} {len(refusals)} scans were kept out.{kept_out}") from error
    return [
        {
            "name": entry["name"],
            "roles": _roles(
                role_of[entry["record"]["subject"]], entry["record"]["subject"] in also_reference
            ),
            "digest": entry["digest"],
            "record": entry["record"],
        }
        for entry in entries
        if entry["record"]["subject"] in role_of
    ]


def _roles(role: str, also_reference: bool) -> list[str]:
    return [role, "reference"] if also_reference else [role]
