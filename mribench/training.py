"""The one training loop: seeds, batches by position, checkpoints, records. The model owns its recipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mribench.bench.folder import Run, run_digest
from mribench.data.grid import to_model_range
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError
from mribench.files import append_json_line, atomic, digest_file, read_json, write_json
from mribench.models.generator import Generator
from mribench.runtime import derive, describe, seed_everything

CHECKPOINT_SECONDS = 60.0
CHEAP_SECONDS = 2.0  # a checkpoint that takes longer to write is written that much less often


@dataclass(frozen=True)
class Record:
    """One progress record: after `step` steps and `seen` volumes, `seconds` of training in all."""

    step: int
    seen: int
    seconds: float
    losses: dict[str, float]


class Batches:
    """An endless stream of training volumes, addressed by position: a resumed run sees what an unbroken one would.

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
        return torch.from_numpy(to_model_range(stack)).to(self.device)

    def _index(self, position: int) -> int:
        number, offset = divmod(position, len(self.volumes))
        if self._pass[0] != number:
            order = np.random.default_rng(derive(self.seed, "pass", number)).permutation(len(self.volumes))
            self._pass = (number, order)
        return int(self._pass[1][offset])


def train(
    generator: Generator,
    volumes: VolumeSet,
    run: Run,
    *,
    seed: int,
    device: torch.device,
    bf16: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Iterator[Record]:
    """Train until the budget of volumes seen is spent, yielding a record a step; then write the weights.

    Resumes from the checkpoint when there is one. Raises MribenchError naming loss and step when a loss or
    gradient stops being finite; the last good checkpoint stays.
    """
    generator.to(device).train()
    batches = Batches(volumes, generator.config.batch_size, seed, device)
    step, before = _resume(generator, run, batches)
    started = saved = time.monotonic()
    record, cost = Record(step, batches.seen, before, {}), 0.0
    while batches.seen < generator.config.budget:
        seed_everything(derive(seed, "step", step))
        # Without autocast's cache: a step may update a network and use it again, and the cache holds old weights.
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            losses = generator.training_step(batches.next)
        step += 1
        if device.type == "cpu" or step % 50 == 0 or batches.seen >= generator.config.budget:
            _check_finite(generator, losses, step)
            values = {name: float(value) for name, value in losses.items()}
            record = Record(step, batches.seen, before + time.monotonic() - started, values)
            if time.monotonic() - saved > checkpoint_seconds * max(1.0, cost / CHEAP_SECONDS):
                begun = time.monotonic()
                _save_checkpoint(generator, run, record)
                saved = time.monotonic()
                cost = saved - begun
            yield record
    _save_checkpoint(generator, run, record)
    generator.refresh_batchnorm(seed)
    _save_weights(generator, run, record, device, "bf16" if bf16 else "fp32")


def append_record(run: Run, record: Record) -> None:
    """Add one line to training.jsonl."""
    append_json_line(run.progress, asdict(record))


def is_trained(run: Run) -> bool:
    """Whether the weights on disk are those of this run's settings, whole and unaltered."""
    if not run.weights_record.exists() or not run.weights.exists():
        return False
    record = read_json(run.weights_record, "run_digest", "digest")
    return record["run_digest"] == run_digest(run) and record["digest"] == digest_file(run.weights)


def _check_finite(generator: Generator, losses: dict[str, Tensor], step: int) -> None:
    bad = [update for update, count in generator.unfinite.items() if int(count)]
    if not bad:
        return
    values = ", ".join(f"{name} = {float(value):g}" for name, value in losses.items())
    raise MribenchError(
        f"Losses and gradients must stay finite, but by step {step} those of {', '.join(bad)} did not ({values}). "
        "The last checkpoint is kept. Lower the learning rate (--set learning_rate=...) and train with --overwrite."
    )


def _save_checkpoint(generator: Generator, run: Run, record: Record) -> None:
    state = {
        "run_digest": run_digest(run),
        "step": record.step,
        "seen": record.seen,
        "seconds": record.seconds,
        "model": generator.state_dict(),
        "optimizers": {name: o.state_dict() for name, o in generator.optimizers.items()},
    }
    with atomic(run.checkpoint) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


def _resume(generator: Generator, run: Run, batches: Batches) -> tuple[int, float]:
    """Load the checkpoint, if any, into generator and batches; returns (step, seconds so far)."""
    if not run.checkpoint.exists():
        return 0, 0.0
    state = _read_checkpoint(run)
    if state["run_digest"] != run_digest(run):
        raise MribenchError(
            f"{run.checkpoint} must belong to the settings in run.json, but was made with others. "
            f"Run: {run.command('train')} --overwrite"
        )
    generator.load_state_dict(state["model"])
    for name, optimizer in generator.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    batches.seen = state["seen"]
    return state["step"], state["seconds"]


def _read_checkpoint(run: Run) -> dict[str, Any]:
    try:
        return torch.load(run.checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a torn or foreign file
        raise MribenchError(
            f"{run.checkpoint} must be a whole checkpoint, but: {str(error).splitlines()[0]} "
            f"Run: {run.command('train')} --overwrite"
        ) from error


def _save_weights(
    generator: Generator, run: Run, record: Record, device: torch.device, precision: str
) -> None:
    generator.save(run.weights)
    write_json(
        run.weights_record,
        {
            "digest": digest_file(run.weights),
            "run_digest": run_digest(run),
            "step": record.step,
            "seen": record.seen,
            "seconds": record.seconds,
            "device": describe(device, precision),
        },
    )
