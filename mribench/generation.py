"""Weights and seeds -> samples: volume i is a function of (run seed, i) alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mribench import processes
from mribench.bench.controls import CONTROLS, Control, make_volumes
from mribench.bench.folder import Bench, Run, start_run, versions
from mribench.bench.records import RunRecord
from mribench.data.cohort import Cohort
from mribench.data.folder import open_folder
from mribench.data.grid import from_model_range
from mribench.data.nifti import Rescale
from mribench.data.volume_set import check_brightness
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_json
from mribench.models import get_model
from mribench.models.generator import Generator
from mribench.runtime import Context, DeviceRecord, Noise, derive
from mribench.samples import BATCH, Make, Source, are_complete, control_origin, write_samples
from mribench.training import Outcome, load_generator, named_run


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
    with bench.run_lock(run):
        chosen = processes.from_first(lambda: _open_samples(bench, run, settings, overwrite))
        if chosen is None:
            return "up to date"
        generator = load_generator(run, chosen)
        generator.load(run.weights_run.weights)
        processes.from_first(lambda: _make_room(run, chosen, overwrite))
        record = run.read_record()
        seed = record.seed or 0
        make = sampler(generator, seed, context)
        origin = f"synthetic, made by {record.model}"
        stamp = run.samples_stamp(chosen)
        source = Source(make, stamp, seed, generator.slab, context.described(), chosen, origin)
        write_samples(
            run, source, bench.protocol.cohort.voxels, bench.protocol.evaluation.samples, context, batch
        )
    return "done"


def _open_samples(
    bench: Bench, run: Run, settings: dict[str, Any] | None, overwrite: bool
) -> dict[str, Any] | None:
    """The sampler's settings for samples that are to be made; None where they are complete."""
    kind = run.read_record().kind
    if kind != "model":
        raise UsageError(f"{run.name} is no trained model ({kind}); its samples are not generated.")
    _trained_home(run)
    _current_record(run)
    chosen = _present_sampler(run) or {} if settings is None else settings
    if not overwrite and are_complete(run, run.samples_stamp(chosen), bench.protocol.evaluation.samples):
        return None
    return chosen


def _make_room(run: Run, chosen: dict[str, Any], overwrite: bool) -> None:
    """Throw the samples that exist away if asked to; raises UsageError when they are of other settings."""
    if not run.is_trained():  # those of another run are not under this run's lock
        raise MribenchError(
            f"The weights of {run.weights_run.name} were replaced meanwhile. Run the same command again."
        )
    present = _present_sampler(run)
    if overwrite:
        run.forget_samples()
    elif present is not None and present != chosen:
        raise UsageError(
            f"{run.name} has samples made with sampler settings {present or 'of its training'}. "
            f"To replace them: {run.command('generate')} --overwrite (with the --set you want)"
        )


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
        cpu, origin = DeviceRecord(device="cpu"), control_origin(cohort, control.name, control.made_of_people)
        source = Source(make_volumes(cohort, control, seed), stamp, seed, device=cpu, origin=origin)
        write_samples(run, source, bench.protocol.cohort.voxels, count, context)
    return "done"


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


def _present_sampler(run: Run) -> dict[str, Any] | None:
    """Sampler settings of the samples that exist, if they were made by the present weights."""
    if not run.samples_record.exists():
        return None
    record = run.read_samples()
    return record.sampler if record.made_from == run.samples_stamp(record.sampler) else None
