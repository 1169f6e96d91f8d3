"""Cohort -> weights: the plan of a training and the one loop. The model owns its recipe."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mribench import processes
from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench, Run, check_same_run, start_run, versions
from mribench.bench.records import (
    BudgetRaise,
    RunRecord,
    StartRecord,
    StepScore,
    TrainingStep,
    WeightsRecord,
)
from mribench.checkpoints import read_checkpoint, resume, save_checkpoint
from mribench.data.batches import Batches
from mribench.data.cohort import Cohort
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError, UsageError
from mribench.files import append_json_line, digest_file
from mribench.models import MODEL_REGISTRY, get_model
from mribench.models.generator import Generator, GeneratorConfig
from mribench.models.joint_batch import joint_batch, joint_losses, rows_of
from mribench.models.start import PRETRAINED, SCRATCH, check_start, find_start, start_from
from mribench.runtime import Context, derive, random_state_kept, seed_everything
from mribench.settings import resolve_settings

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
CHEAP_SECONDS = 2.0  # a checkpoint that takes longer to write is written that much less often
RECORD_SECONDS = 1.0  # at most one line of training.jsonl per this time

Outcome = Literal["done", "up to date", "kept"]  # "kept": cannot be made again here


@dataclass(frozen=True)
class Scorer:
    """Scores during a training: every `every` volumes and at its end, of the generator as it is then.

    `score(generator, seed)` may sample it, with the statistics of BatchNorm that its weights would be given now.
    """

    every: int
    score: Callable[[Generator, int], Mapping[str, StepScore]]

    def is_due(self, seen: int, before: int, finished: bool) -> bool:
        """Whether a multiple of `every` was passed since `before` volumes."""
        return finished or seen // self.every > before // self.every


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
    name: str | None = None,
    *,
    start: str = SCRATCH,
) -> Plan:
    """The training of a model on the bench's cohort. Precedence: preset < protocol < overrides.

    `name` (default: the model's) is what the run is called; `start`: "scratch", "pretrained" or a file of weights.
    Raises UsageError for an unknown model or setting, for volumes of another size than the protocol's, and for a name
    that says something else; MribenchError for weights that do not fit.
    """
    kind = get_model(model)
    chosen, config = resolve_settings(bench, model, preset, overrides)
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
    return Plan(named_run(bench, model, name, seed), record, config, weights)


def _start_record(weights: Path, start: str, kind: type[Generator], config: GeneratorConfig) -> StartRecord:
    networks = check_start(kind, config, weights)
    name = start if start == PRETRAINED else weights.name
    return StartRecord(name=name, digest=digest_file(weights), networks=networks)


def named_run(bench: Bench, model: str, name: str | None, seed: int) -> Run:
    """The run of a model under a name (default: the model's); a seed other than 0 is added to it.

    Raises UsageError for the name of a control or of another model, and for one that ends as if it had a seed.
    """
    name = name or model
    if name in CONTROLS or (name != model and name in MODEL_REGISTRY.names()):
        raise UsageError(f"{name} is the name of another model or control. Choose another --name.")
    if re.search(r"-s\d+$", name):
        raise UsageError(
            f"{name} ends like a seed, which is added to the name by itself. Choose another --name."
        )
    return bench.run(name if seed == 0 else f"{name}-s{seed}")


def train(
    bench: Bench,
    cohort: Cohort,
    plan: Plan,
    context: Context,
    *,
    overwrite: bool = False,
    raise_budget: bool = False,
    scorer: Scorer | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> Outcome:
    """Train until the budget is spent and write the weights; goes on from the checkpoint of a killed training.

    `raise_budget`: a run that exists with a smaller budget goes on to the plan's. Raises UsageError when the run exists
    with other settings, MribenchError when a loss stops being finite.
    """
    run = plan.run
    _check_shared(plan)
    with bench.run_lock(run):
        if processes.from_first(lambda: _open_run(plan, context, overwrite, raise_budget)):
            return "up to date"
        generator = load_generator(run)
        _start(generator, plan)
        for step in training_steps(generator, cohort.set("train"), run, context, scorer=scorer):
            if on_step:
                on_step(step)
    return "done"


def _check_shared(plan: Plan) -> None:
    """Whether as many processes as there are can train this model."""
    rows_of(plan.config.batch_size)
    if processes.size() > 1 and not get_model(str(plan.record.model)).shares_batches:
        raise UsageError(
            f"{plan.record.title} must say that several processes can share its batches, with shares_batches = True "
            "in its class (docs/cluster.md). Train it in one process."
        )


def _open_run(plan: Plan, context: Context, overwrite: bool, raise_budget: bool) -> bool:
    """Write run.json or check that it is the plan's; whether the run is trained already."""
    run = plan.run
    _check_is_training(run)
    if run.folder.exists() and overwrite:
        shutil.rmtree(run.folder)
    if raise_budget:
        _raise_budget(plan)
    start_run(run, _as_on_disk(plan).model_copy(update={"device": context.described()}), "train")
    if not (trained := run.is_trained()):
        _check_checkpoint_of_weights(run)
    return trained


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


def _check_is_training(run: Run) -> None:
    """A training must not take the place of samples that were made otherwise."""
    if not run.record.exists():
        return
    record = run.read_record()
    if record.kind != "model" or record.weights_of is not None:
        what = f"samples the weights of {record.weights_of}" if record.weights_of else f"is a {record.kind}"
        raise UsageError(f"{run.name} is a run of this bench already and {what}. Choose another --name.")


def _raise_budget(plan: Plan) -> None:
    """Note in run.json where the training stands and give it the plan's budget; its weights are no longer the end.

    What the learning rates do is decided by the new budget from here on; averaged weights go on, and the statistics of
    BatchNorm are those of training, because the checkpoint is older than their renewal at the end.
    """
    run = plan.run
    if not run.record.exists():
        raise UsageError(
            f"{run.name} must exist for its budget to be raised. Train it without --raise-budget."
        )
    record = run.read_record()
    before, after = int(record.config.get("budget", 0)), plan.config.budget
    check_same_run(
        run, plan.record.model_copy(update={"config": {**plan.record.config, "budget": before}}), "train"
    )
    if after < before:
        raise UsageError(
            f"The budget of {run.name} can be raised, not lowered: it is {before}, and {after} was given."
        )
    if after == before:
        return
    if run.weights_record.exists() and not run.checkpoint.exists():
        raise MribenchError(
            f"{run.checkpoint} must be there for a training to go on, but is not. "
            f"Train from the start: {run.command('train')} --overwrite"
        )
    state = read_checkpoint(run) if run.checkpoint.exists() else None
    raised = BudgetRaise(
        budget=before,
        step=state.step if state else 0,
        seen=state.seen if state else 0,
        weights_digest=WeightsRecord.read(run.weights_record).digest if run.is_trained() else "",
        restarted=plan.config.rates_follow_budget and state is not None,
    )
    if raised.restarted:
        log.warning("The learning rates of %s follow the budget, so they rise again.", run.name)
    record.model_copy(update={"config": plan.record.config, "raised": (*record.raised, raised)}).write(
        run.record
    )
    run.weights_record.unlink(missing_ok=True)
    run.weights.unlink(missing_ok=True)


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
    kind.check_sampler_settings(settings or {})
    seed_everything(derive(record.seed or 0, "weights"))
    return kind(kind.read_config(kind.merge(record.config, settings or {})))


def training_steps(
    generator: Generator,
    volumes: VolumeSet,
    run: Run,
    context: Context,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    scorer: Scorer | None = None,
) -> Iterator[TrainingStep]:
    """The loop: train until the budget of volumes seen is spent, yielding a record a step; then write the weights.

    Resumes from the checkpoint when there is one. Raises MribenchError naming loss and step when a loss or
    gradient stops being finite; the last good checkpoint stays. A `scorer` changes no weight.
    """
    seed, device = run.read_record().seed or 0, context.device
    generator.to(device).train()
    batch_size = generator.config.batch_size
    rows = rows_of(batch_size)
    batches = Batches(volumes, batch_size, seed, device, slice(rows.start, rows.stop))
    number, before = resume(generator, run, batches)
    started = saved = time.monotonic()
    step, cost, recorded = TrainingStep(step=number, seen=batches.seen, seconds=before), 0.0, 0.0
    while batches.seen < generator.config.budget:
        seen_before = batches.seen
        seed_everything(derive(seed, "step", number))
        generator.begin_step(number, batches.seen)
        with context.mixed_precision(), joint_batch(batch_size):
            losses = joint_losses(generator.training_step(batches.next))
        number += 1
        finished = batches.seen >= generator.config.budget
        due = scorer is not None and scorer.is_due(batches.seen, seen_before, finished)
        if device.type == "cpu" or number % 50 == 0 or finished or due:
            _check_finite(generator, losses, number)
            values = {name: float(value) for name, value in losses.items()}
            seconds = before + time.monotonic() - started
            step = TrainingStep(step=number, seen=batches.seen, seconds=seconds, losses=values)
            if scorer is not None and due and processes.is_first():
                step = step.model_copy(update={"scores": _scores_now(scorer, generator, seed)})
                started = time.monotonic() - (seconds - before)
            if processes.is_first() and (seconds - recorded > RECORD_SECONDS or finished or due):
                append_json_line(run.progress, step.model_dump())
                recorded = seconds
            if processes.is_first() and time.monotonic() - saved > checkpoint_seconds * max(
                1.0, cost / CHEAP_SECONDS
            ):
                begun = time.monotonic()
                save_checkpoint(generator, run, step)
                saved = time.monotonic()
                cost = saved - begun
            yield step
    if processes.is_first():
        save_checkpoint(generator, run, step)
        generator.refresh_batchnorm(seed)
        _save_weights(generator, run, step, context)
    processes.gather(None)


@torch.no_grad()
def _scores_now(scorer: Scorer, generator: Generator, seed: int) -> Mapping[str, StepScore]:
    """What the scorer says of the generator, which trains on afterwards as if nothing had happened."""
    buffers = {name: buffer.clone() for name, buffer in generator.named_buffers()}
    try:
        with processes.alone(), random_state_kept(next(generator.parameters()).device):
            generator.refresh_batchnorm(seed)
            return scorer.score(generator, seed)
    finally:
        generator.train()
        for name, buffer in generator.named_buffers():
            buffer.copy_(buffers[name])


def _check_finite(generator: Generator, losses: dict[str, Tensor], step: int) -> None:
    bad = [update for update, count in generator.unfinite.items() if int(count)]
    if not bad:
        return
    values = ", ".join(f"{name} = {float(value):g}" for name, value in losses.items())
    error = MribenchError(
        f"Losses and gradients must stay finite, but by step {step} those of {', '.join(bad)} did not ({values}). "
        "The last checkpoint is kept. Lower the learning rate (--set learning_rate=...) and train with --overwrite."
    )
    error.agreed = True  # gradients and losses are those of all processes
    raise error


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
