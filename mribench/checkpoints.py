"""The state that a killed training goes on from: written sealed, checked when it is read."""

from __future__ import annotations

import logging

import torch
from pydantic import ValidationError

from mribench import processes
from mribench.bench.folder import Run
from mribench.bench.records import Checkpoint, ProcessCount, TrainingStep
from mribench.data.batches import Batches
from mribench.errors import MribenchError, is_out_of_memory
from mribench.files import check_seal, first_error, sealed
from mribench.models.generator import Generator
from mribench.models.joint_batch import join_statistics

log = logging.getLogger(__name__)


def save_checkpoint(generator: Generator, run: Run, step: TrainingStep) -> None:
    """Write the state after `step`, sealed."""
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


def resume(generator: Generator, run: Run, batches: Batches) -> tuple[int, float]:
    """Load the checkpoint, if any, into generator and batches; returns (step, seconds so far).

    Several processes begin with equal weights. Raises MribenchError when they do not read the same checkpoint.
    """
    number, before = _load(generator, run, batches)
    if len(stands := set(processes.gather((number, batches.seen)))) > 1:
        raise MribenchError(
            f"Every process must read the same {run.checkpoint}, but they are at steps "
            f"{', '.join(str(step) for step, _ in sorted(stands))}. The bench must lie in a folder that all "
            "machines share."
        )
    if processes.size() > 1:
        processes.copy_from_first([*generator.parameters(), *generator.buffers()])
        join_statistics(generator)
    if processes.is_first():
        _note_processes(run, number)
    return number, before


def _note_processes(run: Run, step: int) -> None:
    """Write into run.json from which step on another number of processes than before shares the batches."""
    record = run.read_record()
    count = record.shared[-1].processes if record.shared else 1
    if count != processes.size():
        change = ProcessCount(step=step, processes=processes.size())
        record.model_copy(update={"shared": (*record.shared, change)}).write(run.record)


def _load(generator: Generator, run: Run, batches: Batches) -> tuple[int, float]:
    """Load the checkpoint, if any, into generator and batches; returns (step, seconds so far)."""
    if not run.checkpoint.exists():
        return 0, 0.0
    state = read_checkpoint(run)
    if state.run_digest not in run.read_record().digests:
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


def read_checkpoint(run: Run) -> Checkpoint:
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
