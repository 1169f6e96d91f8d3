"""How far the runs of a bench are, from the files alone, and the command that comes next."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from mribench.bench.folder import Bench, Run
from mribench.bench.records import RunRecord, TrainingStep
from mribench.errors import MribenchError
from mribench.files import read_json_lines


@dataclass(frozen=True)
class RunStatus:
    """One run; `next` is "" when it has scores, `problem` says why nothing more is known."""

    name: str
    kind: str = ""
    step: int | None = None
    seen: int | None = None
    budget: int | None = None
    losses: dict[str, float] | None = None
    trained: bool = False
    samples: int = 0
    samples_wanted: int | None = None
    scored: bool = False
    next: str = ""
    problem: str = ""


def run_statuses(bench: Bench) -> list[RunStatus]:
    """Every run of the bench, by name. Digests are not checked: `mribench verify` does that."""
    return [_status(bench, run) for run in bench.runs()]


def _status(bench: Bench, run: Run) -> RunStatus:
    try:
        record = run.read_record()
    except MribenchError as error:
        return RunStatus(run.name, problem=str(error))
    model = record.kind == "model"
    last = _last_step(run) if model else None
    trained = run.weights_record.exists() and run.weights.exists()
    samples = sum(1 for _ in run.samples_folder.glob("*.nii*"))
    wanted = bench.protocol.evaluation.samples if model else None
    scored = run.scores.exists()
    return RunStatus(
        run.name,
        record.kind,
        step=last.step if last else None,
        seen=last.seen if last else None,
        budget=_budget(record),
        losses=last.losses if last else None,
        trained=trained,
        samples=samples,
        samples_wanted=wanted,
        scored=scored,
        next="" if scored else run.command(_verb(model and not trained, run.samples_record.exists())),
    )


def _verb(untrained: bool, sampled: bool) -> str:
    return "train" if untrained else "evaluate" if sampled else "generate"


def _budget(record: RunRecord) -> int | None:
    budget = record.config.get("budget")
    return budget if isinstance(budget, int) else None


def _last_step(run: Run) -> TrainingStep | None:
    """The newest line of training.jsonl that can be read."""
    with suppress(MribenchError):
        for line in reversed(read_json_lines(run.progress)[0] if run.progress.exists() else []):
            with suppress(ValueError):
                return TrainingStep.model_validate_json(line)
    return None
