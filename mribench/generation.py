"""Weights and seeds -> samples: volume i is a function of (run seed, i) alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mribench import __version__
from mribench.bench.controls import CONTROLS, Control, make_volumes
from mribench.bench.folder import Bench, Run, start_run, versions
from mribench.bench.records import RunRecord, SampleFile, SamplesRecord
from mribench.data.cohort import Cohort
from mribench.data.folder import open_folder
from mribench.data.foreign.recipe import Passage
from mribench.data.grid import Grid, from_model_range, quantise
from mribench.data.nifti import Rescale, write_nifti
from mribench.data.volume_set import Slab, check_brightness
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_file, digest_json, digest_volume, write_json
from mribench.models import get_model
from mribench.models.generator import Generator
from mribench.runtime import Context, DeviceRecord, Noise, derive
from mribench.training import Outcome, load_generator, named_run

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


def generate(
    bench: Bench,
    run: Run,
    context: Context,
    *,
    settings: dict[str, Any] | None = None,
    batch: int = BATCH,
    overwrite: bool = False,
) -> Outcome:
    """Sample a trained run into as many NIfTI files as the protocol asks for; makes only what is missing.

    `settings` changes settings of the sampler (`Generator.sampler_settings`) without a new training; None takes
    those of the samples that exist. Raises UsageError for a run that is no model and for samples made with other
    settings, MribenchError when the run is not trained.
    """
    kind = run.read_record().kind
    if kind != "model":
        raise UsageError(f"{run.name} is no trained model ({kind}); its samples are not generated.")
    home = _trained_home(run)
    with bench.run_lock(run):
        record = _current_record(run)
        present = _present_sampler(run)
        chosen = present or {} if settings is None else settings
        stamp, count = run.samples_stamp(chosen), bench.protocol.evaluation.samples
        if not overwrite and are_complete(run, stamp, count):
            return "up to date"
        generator = load_generator(run, chosen)
        generator.load(home.weights)
        if not run.is_trained():  # those of another run are not under this run's lock
            raise MribenchError(
                f"The weights of {home.name} were replaced meanwhile. Run the same command again."
            )
        if overwrite:
            run.forget_samples()
        elif present is not None and present != chosen:
            raise UsageError(
                f"{run.name} has samples made with sampler settings {present or 'of its training'}. "
                f"To replace them: {run.command('generate')} --overwrite (with the --set you want)"
            )
        seed = record.seed or 0
        make = sampler(generator, seed, context)
        origin = f"synthetic, made by {record.model}"
        source = Source(make, stamp, seed, generator.slab, context.described(), chosen, origin)
        write_samples(run, source, bench.protocol.cohort.voxels, count, context, batch)
    return "done"


def start_sampler_run(
    bench: Bench, source: Run, name: str, settings: Mapping[str, Any], *, overwrite: bool = False
) -> Run:
    """A run of its own name for the weights of `source` with other sampler settings, which `generate` then samples.

    `settings` are added to those of `source`. Raises UsageError for settings that are no sampler's or change nothing,
    and for a name that is taken; MribenchError when `source` is not trained.
    """
    given = source.read_record()
    if given.kind != "model":
        raise UsageError(
            f"{source.name} is no trained model ({given.kind}), so there are no weights to sample."
        )
    home = _trained_home(source)
    run = named_run(bench, str(given.model), name, given.seed or 0)
    record = _sampler_record(home, {**given.sampler, **settings})
    if record.config == home.read_record().config:
        raise UsageError(
            f"{run.name} must differ from {home.name}. Give the settings of its sampler with --set."
        )
    with bench.run_lock(run):
        if run.record.exists() and run.read_record().weights_of is None:
            raise UsageError(f"{run.name} is a run of this bench already. Choose another --name.")
        if run.folder.exists() and overwrite:
            shutil.rmtree(run.folder)
        start_run(run, record, "generate")
    return run


def _trained_home(run: Run) -> Run:
    """The run whose weights `run` samples; raises MribenchError when it is not trained."""
    home = run.weights_run
    if not home.record.exists():
        raise MribenchError(
            f"{run.name} samples the weights of {home.name}, but this bench has no such run. Train it again, or remove "
            f"{run.folder}."
        )
    if not run.is_trained():
        raise MribenchError(
            f"{home.name} must be trained before it can be sampled. Run: {home.command('train')}"
        )
    return home


def _sampler_record(home: Run, settings: Mapping[str, Any]) -> RunRecord:
    """run.json of a run that samples the weights of `home` with these other settings."""
    record = home.read_record()
    kind = get_model(str(record.model))
    kind.check_sampler_settings(settings)
    config = kind.read_config(kind.merge(record.config, settings)).model_dump(mode="json")
    changed = {name: config[name] for name in settings}
    return record.model_copy(update={"config": config, "weights_of": home.name, "sampler": changed})


def _current_record(run: Run) -> RunRecord:
    """run.json, written anew where the run whose weights it uses has been trained with other settings since."""
    record = run.read_record()
    if record.weights_of is None:
        return record
    current = _sampler_record(run.weights_run, record.sampler)
    if current.identity != record.identity:
        current.write(run.record)
    return current


def make_control(
    bench: Bench, cohort: Cohort, control: Control, count: int, context: Context, *, overwrite: bool = False
) -> Outcome:
    """Make a control's volumes."""
    seed, run = bench.protocol.seed, bench.run(control.name)
    record = RunRecord(
        kind="control",
        model=control.name,
        title=control.title,
        what=control.what,
        seed=seed,
        cohort_digest=cohort.digest,
        protocol_digest=bench.protocol.digest,
        versions=versions(),
    )
    stamp = digest_json({"control": control.name, "seed": seed, "cohort": cohort.digest})
    with bench.run_lock(run):
        if overwrite:
            run.forget_samples()
        start_run(run, record, "generate")
        if are_complete(run, stamp, count):
            return "up to date"
        cpu, origin = DeviceRecord(device="cpu"), _control_origin(cohort, control)
        source = Source(make_volumes(cohort, control, seed), stamp, seed, device=cpu, origin=origin)
        write_samples(run, source, bench.protocol.cohort.voxels, count, context)
    return "done"


def _control_origin(cohort: Cohort, control: Control) -> str:
    """A control may hold real people: then its files must not pass for synthetic ones."""
    if cohort.source == "simulated" or not control.made_of_people:
        return f"synthetic, control {control.name}"
    return f"NOT synthetic: made of real volumes, control {control.name}"


def add_folder(
    bench: Bench,
    name: str,
    folder: Path,
    rescale: Rescale | None,
    context: Context,
    *,
    overwrite: bool = False,
) -> Outcome:
    """Make a folder of NIfTI an entrant of the bench: its first volumes, as many as the protocol asks for.

    Raises UsageError for a name that is taken, MribenchError when the volumes have another grid or range.
    """
    run, grid = bench.run(name), bench.protocol.cohort.voxels
    if name in CONTROLS:
        raise UsageError(f"{name} is the name of a control. Give the folder another --name.")
    if run.record.exists() and (kind := run.read_record().kind) != "folder":
        raise UsageError(f"{name} is a run of this bench already ({kind}). Give the folder another --name.")
    volumes = open_folder(
        folder,
        name=name,
        rescale=rescale,
        expect_grid=grid,
        progress=lambda _, done, total: context.progress(f"read {name}", done, total),
    )
    check_brightness(volumes)
    record = RunRecord(
        kind="folder",
        title=name,
        cohort_digest=volumes.digest,
        protocol_digest=bench.protocol.digest,
        versions=versions(),
    )
    with bench.run_lock(run):
        if run.folder.exists() and overwrite:
            shutil.rmtree(run.folder)
        start_run(run, record, "evaluate")
        count = min(bench.protocol.evaluation.samples, len(volumes))
        if are_complete(run, volumes.digest, count):
            return "up to date"
        origin = "synthetic, from outside: how they were made is not recorded"
        source = Source(lambda numbers: volumes.subset(numbers).stack(), volumes.digest, origin=origin)
        write_samples(run, source, grid, count, context)
    return "done"


def sampler(generator: Generator, seed: int, context: Context) -> Make:
    """A function that makes the volumes of the given numbers from a loaded generator.

    In bf16 the networks are computed under autocast; noise and the volume in the making stay float32.
    """
    device = context.device
    generator.to(device).eval()

    def make(numbers: Sequence[int]) -> np.ndarray:
        noise = Noise([derive(seed, "sample", i) for i in numbers], device)
        with torch.inference_mode(), context.mixed_precision():
            return from_model_range(generator.sample(noise)[:, 0]).float().cpu().numpy()

    return make


def write_samples(
    run: Run, source: Source, grid: Grid, count: int, context: Context, batch: int = BATCH
) -> None:
    """Write volumes 0..count-1 as NIfTI, samples.json after every batch, and dataset_description.json.

    Makes only what is missing. A file counts as made when samples.json records it under the same `made_from` and its
    bytes are those recorded.
    """
    write_json(run.samples_description, _description(run, source))
    described = {"description_digest": digest_file(run.samples_description)}
    record = _open_record(run, source, grid).model_copy(update=described)
    files = {file.index: file for file in record.files if file.index < count and run.is_intact(file)}
    affine = slab_affine(grid, source.slab)
    if files:
        _record_files(run, record, files)
    context.progress(f"generate {run.name}", len(files), count)
    for start in range(0, count, batch):
        # Always the same numbers together: rounding depends on the batch, and a resumed run must not differ.
        numbers = range(start, min(start + batch, count))
        if all(number in files for number in numbers):
            continue
        begun = time.monotonic()
        volumes = source.make(numbers)
        seconds = (time.monotonic() - begun) / len(numbers)
        for number, volume in zip(numbers, volumes, strict=True):
            if number not in files:
                passage = source.passage(number) if source.passage else None
                files[number] = _write(run, source, number, volume, affine, seconds, passage)
        _record_files(run, record, files)
        context.progress(f"generate {run.name}", len(files), count)


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


def _present_sampler(run: Run) -> dict[str, Any] | None:
    """Sampler settings of the samples that exist, if they were made by the present weights."""
    if not run.samples_record.exists():
        return None
    record = run.read_samples()
    return record.sampler if record.made_from == run.samples_stamp(record.sampler) else None
