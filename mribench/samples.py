"""Volumes written as the samples of a run: only what is missing, shared between the processes of the command."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mribench import __version__, processes
from mribench.bench.folder import Run
from mribench.bench.records import SampleFile, SamplesRecord
from mribench.data.cohort import Cohort
from mribench.data.foreign.recipe import Passage
from mribench.data.grid import Grid, quantise
from mribench.data.nifti import write_nifti
from mribench.data.volume_set import Slab
from mribench.files import digest_file, digest_volume, write_json
from mribench.runtime import Context, DeviceRecord

Make = Callable[[Sequence[int]], np.ndarray]  # volume numbers -> [B,D,H,W] in [0,1]
BATCH = 8  # volumes made together, where a batch does not change them


@dataclass(frozen=True)
class Source:
    """What samples are made of: `make` is a function of the volume numbers, `made_from` the digest of its inputs."""

    make: Make
    made_from: str
    seed: int = 0
    slab: Slab | None = None
    device: DeviceRecord | None = None
    sampler: dict[str, Any] | None = None
    origin: str = "synthetic"  # of the volumes, as their headers and dataset_description.json say it
    passage: Callable[[int], Passage] | None = None  # of an adopted volume that was made


def control_origin(cohort: Cohort, name: str, made_of_people: bool = True) -> str:
    """The `origin` of a control: one may hold real people, and then its files must not pass for synthetic ones."""
    if cohort.source == "simulated" or not made_of_people:
        return f"synthetic, control {name}"
    return f"NOT synthetic: made of real volumes, control {name}"


def write_samples(
    run: Run, source: Source, grid: Grid, count: int, context: Context, batch: int = BATCH
) -> None:
    """Write volumes 0..count-1 as NIfTI, samples.json after every batch, and dataset_description.json.

    Makes only what is missing. A file counts as made when samples.json records it under the same `made_from` and its
    bytes are those recorded.
    """
    record, files = processes.from_first(lambda: _start_samples(run, source, grid, count))
    affine = slab_affine(grid, source.slab)
    context.progress(f"generate {run.name}", len(files), count)
    # Always the same numbers together: rounding depends on the batch, and a resumed run must not differ.
    batches = [range(start, min(start + batch, count)) for start in range(0, count, batch)]
    missing = [numbers for numbers in batches if not all(number in files for number in numbers)]
    with processes.agreement():
        for numbers in processes.divided(missing):
            begun, made = time.monotonic(), []
            volumes = source.make(numbers)
            seconds = (time.monotonic() - begun) / len(numbers)
            for number, volume in zip(numbers, volumes, strict=True):
                if number not in files:
                    passage = source.passage(number) if source.passage else None
                    made.append(_write(run, source, number, volume, affine, seconds, passage))
            _keep(run, record, files, made)
            context.progress(f"generate {run.name}", len(files), count)
    if processes.size() > 1:
        _keep(run, record, files, [])
        context.progress(f"generate {run.name}", len(files), count)
        processes.gather(None, "samples")


def _keep(run: Run, record: SamplesRecord, files: dict[int, SampleFile], made: list[SampleFile]) -> None:
    """Record in samples.json what this process has made, and what the others have by now."""
    if not processes.is_first():
        processes.tell_first(made)
        return
    for file in itertools.chain(made, *processes.told()):
        files[file.index] = file
    _record_files(run, record, files)


def _start_samples(
    run: Run, source: Source, grid: Grid, count: int
) -> tuple[SamplesRecord, dict[int, SampleFile]]:
    """Write the description, and a samples.json of those files alone that are intact; returns both."""
    write_json(run.samples_description, _description(run, source))
    described = {"description_digest": digest_file(run.samples_description)}
    record = _open_record(run, source, grid).model_copy(update=described)
    files = {file.index: file for file in record.files if file.index < count and run.is_intact(file)}
    if files:
        _record_files(run, record, files)
    return record, files


def _record_files(run: Run, record: SamplesRecord, files: dict[int, SampleFile]) -> None:
    ordered = tuple(files[i] for i in sorted(files))
    record.model_copy(update={"files": ordered}).write(run.samples_record)


def _description(run: Run, source: Source) -> dict[str, Any]:
    """dataset_description.json of a derivative (Brain Imaging Data Structure 1.10.0)."""
    made = {"Name": "mribench", "Version": __version__, "Description": source.origin}
    return {
        "Name": f"Samples of {run.name}: {source.origin}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [made],
    }


def _write(
    run: Run,
    source: Source,
    number: int,
    volume: np.ndarray,
    affine: np.ndarray,
    seconds: float,
    passage: Passage | None,
) -> SampleFile:
    """Write one volume; returns its entry of samples.json."""
    path = run.samples_folder / f"{number:06d}.nii.gz"
    write_nifti(path, volume, affine, source.origin)
    return SampleFile(
        index=number,
        name=path.name,
        digest=digest_volume(quantise(volume), affine),
        file_digest=digest_file(path),
        seconds=round(seconds, 4),
        passage=passage,
    )


def _open_record(run: Run, source: Source, grid: Grid) -> SamplesRecord:
    """The record on disk where it is of the same source, else an empty one."""
    depth, height, width = grid.shape
    if source.slab is not None:
        depth = source.slab[1] - source.slab[0]
    fresh = SamplesRecord(
        made_from=source.made_from,
        seed=source.seed,
        slab=source.slab,
        shape=(depth, height, width),
        device=source.device,
        sampler=source.sampler or {},
    )
    if run.samples_record.exists():
        present = run.read_samples()
        if present.made_from == source.made_from:
            return fresh.model_copy(update={"files": present.files})
    return fresh


def slab_affine(grid: Grid, slab: Slab | None) -> np.ndarray:
    """The affine of a volume that holds the axial slices `slab` of the grid."""
    affine = grid.affine
    if slab is not None:
        affine[2, 3] += slab[0] * grid.spacing_mm[2]
    return affine


def are_complete(run: Run, made_from: str, count: int) -> bool:
    """Whether samples.json records `count` volumes made from this, all intact on disk."""
    if not run.samples_record.exists():
        return False
    record = run.read_samples()
    return (
        record.made_from == made_from
        and run.is_described(record)
        and len(record.files) == count
        and all(run.is_intact(file) for file in record.files)
    )
