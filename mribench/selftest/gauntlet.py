"""The gauntlet: each adversary alone beside the honest entrants, scored and ranked like any bench.

Cheats must have no rank or stand below every honest entrant; defects and minorities of copies too, from 64^3 on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mribench.bench.folder import Bench, versions
from mribench.data.cohort import Cohort
from mribench.files import Record
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.gates.judge import judge
from mribench.metrics.gates.result import GateResult
from mribench.metrics.score import Score
from mribench.reports.leaderboard import from_scores
from mribench.reports.records import Entrant
from mribench.reports.rows import Row
from mribench.runtime import Context, DeviceRecord, no_progress
from mribench.selftest.adversaries import ADVERSARIES, HONEST
from mribench.selftest.entrants import Adversary, Kind
from mribench.selftest.real_volumes import split
from mribench.selftest.run import Scorer, Scores

FULL_RULE_SIDE = 64  # voxels, from which on defects and minorities must be held back like cheats


Judge = Callable[[Arrays], tuple[GateResult, ...]]


@dataclass(frozen=True)
class Examined:
    """What an evaluation says of an entrant."""

    scores: Scores
    gates: tuple[GateResult, ...] = ()


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(_Part):
    """One score of an entrant; `excess`: its loss less the largest loss of the honest entrants."""

    value: float
    target: float | None
    excess: float | None = None


class EntrantResult(_Part):
    """An entrant, its scores by metric, and the verdicts of the gates without the samples that they name."""

    name: str
    title: str
    kind: Kind
    dose: str
    wrong: str
    scores: dict[str, Measured]
    gates: tuple[GateResult, ...] = ()


class HonestResult(EntrantResult):
    """An honest entrant; `not_ranked` says why it has no rank beside some adversary, "" when it always has one."""

    not_ranked: str


class AdversaryResult(EntrantResult):
    """An adversary's place on its board.

    `place` is that of the leaderboard, of `ranked` entrants that have one; `excess` is the headline, `decisive` the
    family that it comes from. `not_below` names the honest entrants that have no smaller place. `required`: whether
    `passed` must hold on this cohort.
    """

    place: int | None
    ranked: int
    excess: float | None
    decisive: str
    first: float | None  # probability of being the best
    not_ranked: str
    not_below: tuple[str, ...]
    required: bool
    passed: bool


class GauntletRecord(Record):
    """gauntlet.json."""

    SCHEMA: ClassVar[str] = "mribench/gauntlet/1"
    REMEDY: ClassVar[str] = "Run: mribench selftest --gauntlet"

    command: str
    protocol: str
    seed: int
    source: str
    cohort_digest: str
    shape: tuple[int, int, int]
    n: dict[str, int]  # volumes per role
    extractor: str
    metrics: tuple[str, ...]
    honest: tuple[HonestResult, ...]
    adversaries: tuple[AdversaryResult, ...]
    not_possible: tuple[str, ...] = ()  # adversaries that this cohort does not allow
    failures: tuple[str, ...]  # metrics that could not be computed
    versions: dict[str, str]
    device: DeviceRecord
    seconds: float


def run(
    bench: Bench,
    cohort: Cohort,
    context: Context,
    *,
    most: int,
    adversaries: Mapping[str, Adversary] = ADVERSARIES,
    judge: Judge = judge,
) -> GauntletRecord:
    """Score every adversary and every honest entrant, of at most `most` volumes, by the protocol's metrics; rank them.

    The bench keeps the expensive arrays, so that a second run is fast. Raises UsageError when the cohort is too small.
    """
    begun, protocol = time.perf_counter(), bench.protocol
    real = split(cohort, most, bench.arrays)
    roles = {"reference": real.reference, "train": real.train, "holdout": real.holdout}
    extractor, metrics = protocol.evaluation.extractor, protocol.evaluation.metrics
    quiet = replace(context, progress=no_progress)
    scorer = Scorer(roles, cohort.grid, bench.arrays, extractor, quiet, metrics=metrics)
    possible = {
        name: entrant
        for name, entrant in adversaries.items()
        if real.simulated_again or not entrant.needs_simulator
    }
    entrants, examined = HONEST | possible, {}
    for done, (name, entrant) in enumerate(entrants.items(), 1):
        samples = scorer.samples(entrant.volumes(real, protocol.seed))
        examined[name] = Examined(scorer.score(samples), judge(scorer.arrays(samples)))
        context.progress("entrants", done, len(entrants))
    honest, placed = place(examined, possible, min(cohort.grid.shape))
    return GauntletRecord(
        command="mribench selftest --gauntlet",
        protocol=protocol.name,
        seed=protocol.seed,
        source=cohort.source,
        cohort_digest=cohort.digest,
        shape=cohort.grid.shape,
        n={"samples": len(real.fresh)} | {role: len(volumes) for role, volumes in roles.items()},
        extractor=extractor,
        metrics=metrics,
        honest=honest,
        adversaries=placed,
        not_possible=tuple(name for name in adversaries if name not in possible),
        failures=tuple(f"{metric}: {reason}" for metric, reason in scorer.failures.items()),
        versions=versions(),
        device=context.described("fp32"),
        seconds=round(time.perf_counter() - begun, 1),
    )


def place(
    examined: Mapping[str, Examined], adversaries: Mapping[str, Adversary], side: int
) -> tuple[tuple[HonestResult, ...], tuple[AdversaryResult, ...]]:
    """Rank each adversary with the honest entrants, all of which were examined; `side` of a volume in voxels."""
    boards = {name: _board(examined, entrant) for name, entrant in adversaries.items()}
    worst = _worst_losses([examined[name].scores for name in HONEST])
    honest = tuple(
        HonestResult(**_facts(entrant, examined[name], {}), not_ranked=_unranked_beside(name, boards))
        for name, entrant in HONEST.items()
    )
    placed = tuple(
        _place(adversaries[name], examined[name], board, worst, side) for name, board in boards.items()
    )
    return honest, placed


def _board(examined: Mapping[str, Examined], adversary: Adversary) -> dict[str, Row]:
    """The rows of the honest entrants and one adversary, ranked."""
    entrants = {**HONEST, adversary.name: adversary}
    listed = [_entrant(entrant, examined[name]) for name, entrant in entrants.items()]
    return {row.entrant.name: row for row in from_scores(listed).rows}


def _entrant(adversary: Adversary, examined: Examined) -> Entrant:
    """As the report gets it."""
    return Entrant(name=adversary.name, title=adversary.title, scores=examined.scores, gates=examined.gates)


def _place(
    adversary: Adversary,
    examined: Examined,
    board: Mapping[str, Row],
    worst: Mapping[str, float],
    side: int,
) -> AdversaryResult:
    row = board[adversary.name]
    places = {name: other.place for name, other in board.items() if other.place is not None}
    rivals = {name: place for name, place in places.items() if name in HONEST}
    not_below = tuple(name for name, place in rivals.items() if row.place is not None and place >= row.place)
    return AdversaryResult(
        **_facts(adversary, examined, worst),
        place=row.place,
        ranked=len(places),
        excess=row.excess,
        decisive=row.decisive,
        first=row.chances[0] if row.chances else None,
        not_ranked=_why(row),
        not_below=not_below,
        required=adversary.kind in ("perfect", "cheat") or side >= FULL_RULE_SIDE,
        # Where no honest entrant is ranked, nothing has been compared.
        passed=bool(rivals) and (row.place is not None if adversary.kind == "perfect" else not not_below),
    )


def _facts(entrant: Adversary, examined: Examined, worst: Mapping[str, float]) -> dict[str, Any]:
    """The fields that every entrant has."""
    return {
        **{key: getattr(entrant, key) for key in ("name", "title", "kind", "dose", "wrong")},
        "scores": {metric: _measured(score, worst) for metric, score in examined.scores.items()},
        "gates": tuple(gate.model_copy(update={"suspects": (), "seconds": 0.0}) for gate in examined.gates),
    }


def _why(row: Row) -> str:
    """Why a row has no rank; "" when it has one."""
    if row.place is not None:
        return ""
    return row.unranked or "fewer than two entrants can be ranked"


def _unranked_beside(name: str, boards: Mapping[str, Mapping[str, Row]]) -> str:
    """The first adversary beside which an honest entrant has no rank, and why; "" when there is none."""
    reasons = {adversary: _why(board[name]) for adversary, board in boards.items()}
    return next((f"beside {adversary}: {reason}" for adversary, reason in reasons.items() if reason), "")


def _worst_losses(honest: Iterable[Scores]) -> dict[str, float]:
    """Metric -> the largest loss of the honest entrants."""
    worst: dict[str, float] = {}
    for scores in honest:
        for metric, score in scores.items():
            worst[metric] = max(score.rank_key, worst.get(metric, score.rank_key))
    return worst


def _measured(score: Score, worst: Mapping[str, float]) -> Measured:
    excess = score.rank_key - worst[score.metric] if score.metric in worst else None
    return Measured(value=score.value, target=score.target, excess=excess)


def problems(record: GauntletRecord) -> list[str]:
    """What does not hold, one sentence each: cheats that are not held back come first."""
    sentences = []
    for kind, plural in (("cheat", "cheats"), ("defect", "defects"), ("minority", "minorities of copies")):
        asked = [result for result in record.adversaries if result.kind == kind and result.required]
        failed = [result.name for result in asked if not result.passed]
        if failed:
            sentences.append(f"{len(failed)} of {len(asked)} {plural} are not held back: {', '.join(failed)}")
    sentences += [
        f"{result.name} is not ranked {result.not_ranked}" for result in record.honest if result.not_ranked
    ]
    sentences += [
        f"{result.name} is not ranked: {result.not_ranked}"
        for result in record.adversaries
        if result.kind == "perfect" and not result.passed
    ]
    return sentences + [f"not computed: {reason}" for reason in record.failures]
