"""Cohort -> weights: the plan of a training and the one loop. The model owns its recipe."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from mribench.bench.folder import Bench, Run, start_run, versions
from mribench.bench.records import Checkpoint, RunRecord, StartRecord, TrainingStep, WeightsRecord
from mribench.data.cohort import Cohort
from mribench.data.grid import to_model_range
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError, UsageError, is_out_of_memory
from mribench.files import append_json_line, check_seal, digest_file, first_error, sealed
from mribench.models import MODEL_REGISTRY, get_model
from mribench.models.generator import Generator, GeneratorConfig
from mribench.models.start import PRETRAINED, SCRATCH, check_start, find_start, start_from
from mribench.runtime import Context, derive, seed_everything, to_device

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
CHEAP_SECONDS = 2.0  # a checkpoint that takes longer to write is written that much less often
RECORD_SECONDS = 1.0  # at most one line of training.jsonl per this time

Outcome = Literal["done", "up to date", "kept"]  # "kept": cannot be made again here


@dataclass(frozen=True)
class Plan:
    """A training that could be run: the folder, what run.json will hold, and the resolved settings."""

    run: Run
    record: RunRecord
    config: GeneratorConfig
    start: Path | None = None  # weights to start from


def plan_training(
    bench: Bench,
    cohort: Cohort,
    model: str,
    preset: str | None,
    overrides: dict[str, Any],
    seed: int,
    *,
    start: str = SCRATCH,
) -> Plan:
    """The training of a model on the bench's cohort. Precedence: preset < protocol < overrides.

    `start`: "scratch", "pretrained" or a file of weights. Raises UsageError for an unknown model or setting, and for
    volumes of another size than the protocol's, MribenchError for weights that do not fit.
    """
    kind = get_model(model)
    defaults = bench.protocol.training_for(model)
    chosen = preset or defaults.get("preset", "tiny")
    defaults.pop("preset", None)
    config = kind.build_config(chosen, **{**defaults, **overrides})
    if config.size != bench.protocol.cohort.size:
        fitting = [p for p, values in kind.PRESETS.items() if values["size"] == bench.protocol.cohort.size]
        raise UsageError(
            f"{kind.title} must make volumes of {bench.protocol.cohort.size} voxels a side, as protocol "
            f"{bench.protocol.name} asks, but preset {chosen} makes {config.size}. "
            f"Presets of that size: {', '.join(fitting) or 'none'}."
        )
    weights = find_start(model, start)
    record = RunRecord(
        kind="model",
        model=model,
        package=MODEL_REGISTRY.package(model),
        title=kind.title,
        preset=chosen,
        config=config.model_dump(mode="json"),
        seed=seed,
        cohort_digest=cohort.digest,
        protocol_digest=bench.protocol.digest,
        parameters=kind.count_parameters(config),
        versions=versions(),
        start=None if weights is None else _start_record(weights, start, kind, config),
    )
    return Plan(bench.run(model if seed == 0 else f"{model}-s{seed}"), record, config, weights)


def _start_record(weights: Path, start: str, kind: type[Generator], config: GeneratorConfig) -> StartRecord:
    networks = check_start(kind, config, weights)
    name = start if start == PRETRAINED else weights.name
    return StartRecord(name=name, digest=digest_file(weights), networks=networks)


def train(
    bench: Bench,
    cohort: Cohort,
    plan: Plan,
    context: Context,
    *,
    overwrite: bool = False,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> Outcome:
    """Train until the budget is spent and write the weights; goes on from the checkpoint of a killed training.

    Raises UsageError when the run exists with other settings, MribenchError when a loss stops being finite.
    """
    run = plan.run
    with bench.run_lock(run):
        if run.folder.exists() and overwrite:
            shutil.rmtree(run.folder)
        start_run(run, _as_on_disk(plan).model_copy(update={"device": context.described()}), "train")
        if run.is_trained():
            return "up to date"
        _check_checkpoint_of_weights(run)
        generator = load_generator(run)
        _start(generator, plan)
        for step in training_steps(generator, cohort.set("train"), run, context):
            if on_step:
                on_step(step)
    return "done"


def _start(generator: Generator, plan: Plan) -> None:
    """Give a training that has no checkpoint yet the weights that run.json says it starts from."""
    record = plan.run.read_record().start
    if record is None or plan.run.checkpoint.exists():
        return
    path = plan.start or (
        find_start(str(plan.record.model), PRETRAINED) if record.name == PRETRAINED else None
    )
    if path is None:
        raise UsageError(
            f"{plan.run.name} starts from weights of the file {record.name}. Run: {plan.run.command('train')}"
        )
    if digest_file(path) != record.digest:
        raise MribenchError(
            f"{path} must hold the weights that {plan.run.name} started from, but has changed."
        )
    start_from(generator, path)


def _as_on_disk(plan: Plan) -> RunRecord:
    """The record of the plan; a run of an earlier version lacks settings that are new, and keeps its own list."""
    if not plan.run.record.exists():
        return plan.record
    present = plan.run.read_record()
    if present.model != plan.record.model or not set(present.config) < set(plan.record.config):
        return plan.record
    filled = get_model(str(present.model)).read_config(present.config).model_dump(mode="json")
    same = filled == plan.record.config
    return plan.record.model_copy(update={"config": present.config}) if same else plan.record


def _check_checkpoint_of_weights(run: Run) -> None:
    """Weights that cannot be proven are written again from the checkpoint; without one the user must decide."""
    if run.weights.exists() and not run.checkpoint.exists():
        raise MribenchError(
            f"{run.weights} must be the weights that weights.json and run.json record, but is not, and there is no "
            f"checkpoint to write it from. Restore it from a copy, or train from the start: {run.command('train')} "
            "--overwrite"
        )


def load_generator(run: Run, settings: dict[str, Any] | None = None) -> Generator:
    """A generator with the settings of run.json and, until trained, fresh seeded weights.

    `settings` overrides settings of the sampler; raises UsageError for any other, MribenchError when the model is
    not installed here.
    """
    record = run.read_record()
    if reason := MODEL_REGISTRY.why_unusable(str(record.model), record.package):
        raise MribenchError(f"The generator {record.model!r} of the run {run.name} cannot be used: {reason}.")
    kind = get_model(str(record.model))
    if fixed := set(settings or {}) - set(kind.sampler_settings):
        kind.check_names(fixed)
        raise UsageError(
            f"{', '.join(sorted(fixed))} cannot change after training; of {kind.title} only "
            f"{', '.join(kind.sampler_settings)} can."
        )
    seed_everything(derive(record.seed or 0, "weights"))
    return kind(kind.read_config(kind.merge(record.config, settings or {})))


class Batches:
    """An endless stream of training volumes, addressed by position: a resumed run gets those of an unbroken one.

    Each pass over the set is a permutation that depends on (seed, pass) alone; no augmentation.
    """

    def __init__(self, volumes: VolumeSet, batch_size: int, seed: int, device: torch.device) -> None:
        self.volumes, self.batch_size, self.seed, self.device = volumes, batch_size, seed, device
        self.seen = 0
        self._pass: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def next(self) -> Tensor:
        """The next `[B,1,D,H,W]` in [-1,1]."""
        positions = range(self.seen, self.seen + self.batch_size)
        self.seen += self.batch_size
        stack = np.stack([self.volumes[self._index(p)] for p in positions])[:, None]
        return to_device(torch.from_numpy(to_model_range(stack)), self.device)

    def _index(self, position: int) -> int:
        number, offset = divmod(position, len(self.volumes))
        if self._pass[0] != number:
            order = np.random.default_rng(derive(self.seed, "pass", number)).permutation(len(self.volumes))
            self._pass = (number, order)
        return int(self._pass[1][offset])


def training_steps(
    generator: Generator,
    volumes: VolumeSet,
    run: Run,
    context: Context,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Iterator[TrainingStep]:
    """The loop: train until the budget of volumes seen is spent, yielding a record a step; then write the weights.

    Resumes from the checkpoint when there is one. Raises MribenchError naming loss and step when a loss or
    gradient stops being finite; the last good checkpoint stays.
    """
    seed, device = run.read_record().seed or 0, context.device
    generator.to(device).train()
    batches = Batches(volumes, generator.config.batch_size, seed, device)
    number, before = _resume(generator, run, batches)
    started = saved = time.monotonic()
    step, cost, recorded = TrainingStep(step=number, seen=batches.seen, seconds=before), 0.0, 0.0
    while batches.seen < generator.config.budget:
        seed_everything(derive(seed, "step", number))
        generator.scale_rates(generator.config.rate_share(number, batches.seen))
        with context.mixed_precision():
            losses = generator.training_step(batches.next)
        number += 1
        finished = batches.seen >= generator.config.budget
        if device.type == "cpu" or number % 50 == 0 or finished:
            _check_finite(generator, losses, number)
            values = {name: float(value) for name, value in losses.items()}
            seconds = before + time.monotonic() - started
            step = TrainingStep(step=number, seen=batches.seen, seconds=seconds, losses=values)
            if seconds - recorded > RECORD_SECONDS or finished:
                append_json_line(run.progress, step.model_dump())
                recorded = seconds
            if time.monotonic() - saved > checkpoint_seconds * max(1.0, cost / CHEAP_SECONDS):
                begun = time.monotonic()
                _save_checkpoint(generator, run, step)
                saved = time.monotonic()
                cost = saved - begun
            yield step
    _save_checkpoint(generator, run, step)
    generator.refresh_batchnorm(seed)
    _save_weights(generator, run, step, context)


def _check_finite(generator: Generator, losses: dict[str, Tensor], step: int) -> None:
    bad = [update for update, count in generator.unfinite.items() if int(count)]
    if not bad:
        return
    values = ", ".join(f"{name} = {float(value):g}" for name, value in losses.items())
    raise MribenchError(
        f"Losses and gradients must stay finite, but by step {step} those of {', '.join(bad)} did not ({values}). "
        "The last checkpoint is kept. Lower the learning rate (--set learning_rate=...) and train with --overwrite."
    )


def _save_checkpoint(generator: Generator, run: Run, step: TrainingStep) -> None:
    checkpoint = Checkpoint(
        run_digest=run.read_record().digest,
        step=step.step,
        seen=step.seen,
        seconds=step.seconds,
        model=generator.state_dict(),
        optimizers={name: o.state_dict() for name, o in generator.optimizers.items()},
    )
    with sealed(run.checkpoint) as file:
        try:
            torch.save(dict(checkpoint), file)
        except RuntimeError as error:  # torch puts it in the place of the full disk or signal that stopped it
            raise error.__context__ or error from None


def _resume(generator: Generator, run: Run, batches: Batches) -> tuple[int, float]:
    """Load the checkpoint, if any, into generator and batches; returns (step, seconds so far)."""
    if not run.checkpoint.exists():
        return 0, 0.0
    state = _read_checkpoint(run)
    if state.run_digest != run.read_record().digest:
        raise MribenchError(
            f"{run.checkpoint} must belong to the settings in run.json, but was made with others. "
            f"Run: {run.command('train')} --overwrite"
        )
    try:
        generator.load_state_dict(state.model)
        for name, optimizer in generator.optimizers.items():
            optimizer.load_state_dict(state.optimizers[name])
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise _no_checkpoint(run, error) from error
    batches.seen = state.seen
    return state.step, state.seconds


def _read_checkpoint(run: Run) -> Checkpoint:
    """The checkpoint, after its seal was checked; raises MribenchError when it is damaged or none."""
    try:
        if not check_seal(run.checkpoint):
            log.warning("%s is of an earlier version and has no seal; it is used unchecked.", run.checkpoint)
        state = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
        return Checkpoint.model_validate(state)
    except MemoryError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        if is_out_of_memory(error):
            raise
        raise _no_checkpoint(run, error) from error


def _no_checkpoint(run: Run, error: Exception) -> MribenchError:
    reason = first_error(error) if isinstance(error, ValidationError) else str(error) or type(error).__name__
    return MribenchError(
        f"{run.checkpoint} must be a whole checkpoint, but: {reason.splitlines()[0]} "
        f"Restore it from a copy, or train from the start: {run.command('train')} --overwrite"
    )


def _save_weights(generator: Generator, run: Run, step: TrainingStep, context: Context) -> None:
    generator.save(run.weights)
    record = WeightsRecord(
        digest=digest_file(run.weights),
        run_digest=run.read_record().digest,
        step=step.step,
        seen=step.seen,
        seconds=step.seconds,
        device=context.described(),
    )
    record.write(run.weights_record)
