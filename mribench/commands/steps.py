"""What each command does to a bench. cli.py parses and prints; nothing here prints."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mribench import generation, scoring, training
from mribench.bench.controls import CONTROLS, Control, available, make_volumes
from mribench.bench.folder import Bench, Run, check_same_run, create_bench, open_bench, versions
from mribench.bench.protocol import load_protocol
from mribench.data.cohort import Cohort, open_cohort, simulated_cohort
from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_json, read_json, write_json
from mribench.metrics.arrays.pairs import DEFAULT_MEMORY
from mribench.metrics.features.weights import Weights
from mribench.metrics.score import Missing
from mribench.models import get_model
from mribench.models.generator import Generator
from mribench.runtime import choose_device, derive, describe, seed_everything

DEFAULT_PROTOCOL = "demo"
GENERATION_BATCH = 8


def start_bench(folder: Path, protocol: str | None, simulated: bool) -> Bench:
    """Open the bench in `folder`, or make one (default protocol: demo); refuses a bench of another protocol."""
    if protocol is None and (folder / "bench.json").exists():
        return open_bench(folder)
    return create_bench(folder, load_protocol(protocol or DEFAULT_PROTOCOL, simulated=simulated))


def start_cohort(bench: Bench, progress: Progress) -> Cohort:
    """The bench's cohort; a simulated one is made if need be, a prepared one must be there already."""
    if (bench.cohort_folder / "volumes.json").exists():
        return open_cohort(bench.cohort_folder)
    if bench.protocol.cohort.source != "simulated":
        raise UsageError(
            f"Protocol {bench.protocol.name} needs your own volumes, and this bench has none yet. "
            f"Run: mribench prepare SRC --bench {bench.folder} "
            "(or start another bench with --simulated to try it on simulated brains)."
        )
    with bench.lock("cohort"):
        return simulated_cohort(bench.cohort_folder, bench.protocol, progress)


def plan_training(
    bench: Bench, cohort: Cohort, model: str, preset: str | None, overrides: dict[str, Any], seed: int
) -> tuple[Run, dict[str, Any]]:
    """The run that training this would make, and its run.json. Precedence: preset < protocol < overrides."""
    kind = get_model(model)
    defaults = bench.protocol.training_for(model)
    chosen = preset or defaults.pop("preset", "tiny")
    defaults.pop("preset", None)
    config = kind.build_config(chosen, **{**defaults, **overrides})
    if config.size != bench.protocol.cohort.size:
        fitting = [p for p, values in kind.PRESETS.items() if values["size"] == bench.protocol.cohort.size]
        raise UsageError(
            f"{kind.title} must make volumes of {bench.protocol.cohort.size} voxels a side, as protocol "
            f"{bench.protocol.name} asks, but preset {chosen} makes {config.size}. "
            f"Presets of that size: {', '.join(fitting) or 'none'}."
        )
    run = bench.run(model if seed == 0 else f"{model}-s{seed}")
    record = {
        "kind": "model",
        "model": model,
        "title": kind.title,
        "preset": chosen,
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "cohort_digest": cohort.digest,
        "protocol_digest": bench.protocol.digest,
        "parameters": parameter_count(model, config),
        "versions": versions(),
    }
    return run, record


def parameter_count(model: str, config: Any) -> dict[str, int]:
    """Parameters per sub-network, counted without allocating them."""
    import torch

    with torch.device("meta"):
        return get_model(model)(config).parameter_count()


def train(
    bench: Bench, cohort: Cohort, run: Run, record: dict[str, Any], *, device: str, overwrite: bool
) -> Iterator[training.Record]:
    """Train a planned run, yielding progress; yields nothing when its weights are up to date."""
    where = choose_device(device)
    bf16 = where.type == "cuda"
    with bench.run_lock(run):
        if run.folder.exists() and overwrite:
            shutil.rmtree(run.folder)
        if run.record.exists():
            check_same_run(run, record, "train")
        else:
            write_json(run.record, {**record, "device": describe(where, "bf16" if bf16 else "fp32")})
        if training.is_trained(run):
            return
        yield from training.train(
            load_generator(run), cohort.set("train"), run, seed=record["seed"], device=where, bf16=bf16
        )


def load_generator(run: Run, settings: dict[str, Any] | None = None) -> Generator:
    """A generator with the settings of run.json and, until trained, fresh seeded weights.

    `settings` overrides settings of the sampler; raises UsageError for any other.
    """
    record = run.read_record()
    kind = get_model(record["model"])
    if fixed := set(settings or {}) - set(kind.sampler_settings):
        kind.check_names(fixed)
        raise UsageError(
            f"{', '.join(sorted(fixed))} cannot change after training; of {kind.title} only "
            f"{', '.join(kind.sampler_settings)} can."
        )
    seed_everything(derive(record["seed"], "weights"))
    return kind(kind.read_config({**record["config"], **(settings or {})}))


def generate(
    bench: Bench, run: Run, settings: dict[str, Any] | None, *, device: str, batch: int, overwrite: bool
) -> Iterator[int]:
    """Sample a trained run, yielding how many volumes are done; yields nothing when up to date.

    `settings` changes settings of the sampler (`Generator.sampler_settings`) without training again; None
    keeps those of the samples there are.
    """
    record = run.read_record()
    if record["kind"] != "model":
        raise UsageError(f"{run.name} is no trained model ({record['kind']}); its samples are not generated.")
    if not training.is_trained(run):
        raise MribenchError(
            f"{run.name} must be trained before it can be sampled. Run: {run.command('train')}"
        )
    where = choose_device(device)
    bf16 = where.type == "cuda"
    with bench.run_lock(run):
        present = _present_sampler(run)
        chosen = present or {} if settings is None else settings
        stamp, count = generation.model_stamp(run, chosen), bench.protocol.evaluation.samples
        if not overwrite and generation.are_complete(run, stamp, count):
            return
        generator = load_generator(run, chosen)
        generator.load(run.weights)
        if overwrite:
            _forget_samples(run)
        elif present is not None and present != chosen:
            raise UsageError(
                f"{run.name} has samples made with sampler settings {present or 'of its training'}. "
                f"To replace them: {run.command('generate')} --overwrite (with the --set you want)"
            )
        yield from generation.generate(
            run,
            generation.sampler(generator, record["seed"], where, bf16),
            count=count,
            batch=batch,
            grid=bench.protocol.cohort.voxels,
            slab=generator.slab,
            made_from=stamp,
            seed=record["seed"],
            device=describe(where, "bf16" if bf16 else "fp32"),
            settings=chosen,
        )


def _present_sampler(run: Run) -> dict[str, Any] | None:
    """Sampler settings of the samples there are, if they were made by the present weights."""
    if not run.samples_record.exists():
        return None
    record = read_json(run.samples_record, "made_from", "sampler")
    current = record["made_from"] == generation.model_stamp(run, record["sampler"])
    return record["sampler"] if current else None


def make_control(
    bench: Bench, cohort: Cohort, control: Control, count: int, *, overwrite: bool
) -> Iterator[int]:
    """Make a control's volumes, yielding how many are done; yields nothing when up to date."""
    seed, run = bench.protocol.seed, bench.run(control.name)
    record = {
        "kind": "control",
        "model": control.name,
        "title": control.title,
        "what": control.what,
        "config": {},
        "seed": seed,
        "cohort_digest": cohort.digest,
        "protocol_digest": bench.protocol.digest,
        "parameters": {},
        "versions": versions(),
    }
    stamp = digest_json({"control": control.name, "seed": seed, "cohort": cohort.digest})
    with bench.run_lock(run):
        if overwrite:
            _forget_samples(run)
        if run.record.exists():
            check_same_run(run, record, "generate")
        else:
            write_json(run.record, record)
        if generation.are_complete(run, stamp, count):
            return
        yield from generation.generate(
            run,
            make_volumes(cohort, control, seed),
            count=count,
            batch=GENERATION_BATCH,
            grid=bench.protocol.cohort.voxels,
            slab=None,
            made_from=stamp,
            seed=seed,
            device={"device": "cpu"},
        )


def possible_controls(bench: Bench, cohort: Cohort) -> list[tuple[Control, int]]:
    """The controls this cohort has volumes for, and how many of each."""
    counts = [(c, available(cohort, c, bench.protocol.evaluation.samples)) for c in CONTROLS.values()]
    return [(control, count) for control, count in counts if count >= 2]


def add_folder(bench: Bench, name: str, volumes: VolumeSet, *, overwrite: bool) -> Iterator[int]:
    """Make a folder of NIfTI an entrant of the bench; its first volumes, as many as the protocol asks for."""
    run, wanted = bench.run(name), bench.protocol.evaluation.samples
    if name in CONTROLS:
        raise UsageError(f"{name} is the name of a control. Give the folder another --name.")
    if run.record.exists() and (kind := run.read_record()["kind"]) != "folder":
        raise UsageError(f"{name} is a run of this bench already ({kind}). Give the folder another --name.")
    record = {
        "kind": "folder",
        "model": None,
        "title": name,
        "config": {},
        "seed": None,
        "cohort_digest": volumes.digest,
        "protocol_digest": bench.protocol.digest,
        "parameters": {},
        "versions": versions(),
    }
    with bench.run_lock(run):
        if run.folder.exists() and overwrite:
            shutil.rmtree(run.folder)
        if run.record.exists():
            check_same_run(run, record, "evaluate")
        else:
            write_json(run.record, record)
        count = min(wanted, len(volumes))
        if generation.are_complete(run, volumes.digest, count):
            return
        yield from generation.generate(
            run,
            lambda numbers: volumes.subset(numbers).stack(),
            count=count,
            batch=GENERATION_BATCH,
            grid=bench.protocol.cohort.voxels,
            slab=None,
            made_from=volumes.digest,
            seed=0,
            device={},
        )


def _forget_samples(run: Run) -> None:
    run.samples_record.unlink(missing_ok=True)
    if run.samples_folder.exists():
        shutil.rmtree(run.samples_folder)


def evaluate(
    bench: Bench,
    cohort: Cohort,
    run: Run,
    *,
    weights: Weights | None,
    device: str,
    overwrite: bool,
    progress: Progress,
    memory: int = DEFAULT_MEMORY,
) -> tuple[bool, list[Missing]]:
    """Score one entrant unless that is done; returns whether it was scored now and what is missing."""
    _check_samples(bench, run)
    extractor = bench.protocol.evaluation.extractor
    where = str(choose_device(device))
    wanted = scoring.made_from(bench, cohort, run, extractor, weights)
    if not overwrite and scoring.is_scored(run, wanted):
        return False, []
    with bench.run_lock(run):
        _, missing = scoring.score_run(
            bench,
            cohort,
            run,
            extractor=extractor,
            weights=weights,
            device=where,
            memory=memory,
            progress=progress,
        )
    return True, missing


def _check_samples(bench: Bench, run: Run) -> None:
    """Samples must be as recorded; those of a model also all there are, made by its present weights."""
    kind = run.read_record()["kind"]
    record, wanted = run.read_samples(), bench.protocol.evaluation.samples
    if kind == "model":
        found = len(record["files"])
        current = record["made_from"] == generation.model_stamp(run, record.get("sampler") or {})
        if found != wanted or not current:
            raise MribenchError(
                f"{run.name} must have {wanted} samples of its present weights to be scored, but has {found}"
                f"{'' if current else ' of others'}. Run: {run.command('generate')}"
            )
    generation.check_intact(run)


def embed(
    bench: Bench,
    cohort: Cohort,
    runs: Sequence[Run],
    *,
    weights: Weights | None,
    device: str,
    progress: Progress,
) -> None:
    """The joint t-SNE of all entrants that have samples and scores."""
    extractor = bench.protocol.evaluation.extractor
    where = str(choose_device(device))
    with bench.lock("embedding"):
        scoring.embed(
            bench, cohort, runs, extractor=extractor, weights=weights, device=where, progress=progress
        )


def entrants(bench: Bench) -> list[Run]:
    """Runs that have samples."""
    return [run for run in bench.runs() if run.samples_record.exists()]
