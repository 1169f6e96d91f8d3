"""What stands behind the numbers: protocol, definitions, a card per entrant, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.errors import MribenchError
from mribench.files import read_json
from mribench.metrics import METRICS
from mribench.metrics.metric import Score
from mribench.models import MODELS, get_model
from mribench.models.generator import Generator
from mribench.reports.page import words
from mribench.reports.records import Entrant, device_name
from mribench.reports.rows import COLUMNS, Leaderboard, Row, significant, usual_scores
from mribench.reports.tables import counts

SHORT = 12  # characters of a digest that are shown


def facts(bench: Bench, cohort: Cohort | None) -> list[tuple[str, str]]:
    """Protocol and cohort as (what, value)."""
    protocol = bench.protocol
    spec, grid = protocol.cohort, protocol.cohort.voxels
    found = [
        ("Protocol", f"{protocol.name}, version {protocol.version}"),
        ("Protocol digest", protocol.digest),
        ("Seed", str(protocol.seed)),
        (
            "Volumes",
            f"{grid.size} x {grid.size} x {grid.size} voxels of {_numbers(grid.spacing_mm)} mm (x, y, z)",
        ),
        ("Origin", f"{_numbers(grid.origin_mm)} mm, the world position of the first voxel's centre, RAS+"),
        ("Asked of every entrant", f"{protocol.evaluation.samples} samples"),
        ("Feature extractor", protocol.evaluation.extractor),
    ]
    if cohort is None:
        roles = f"{spec.train} train, {spec.reference} reference, {spec.holdout} holdout (as asked)"
        return [*found, ("Roles", roles), *_version_facts(bench)]
    roles = ", ".join(f"{len(cohort.set(role))} {role}" for role in ("train", "reference", "holdout"))
    shared = "; the reference is part of train" if spec.reference_from_train else "; no volume has two roles"
    found += [
        ("Cohort", cohort.source),
        ("Roles", roles + shared),
        ("Cohort digest", cohort.digest),
        ("Recipe", json.dumps(cohort.record.get("recipe", {}), sort_keys=True)),
    ]
    return [*found, *_version_facts(bench)]


def _version_facts(bench: Bench) -> list[tuple[str, str]]:
    return [("Versions (bench)", ", ".join(f"{k} {v}" for k, v in versions(bench).items()))]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def versions(bench: Bench) -> dict[str, str]:
    """What the bench was made with; empty when bench.json does not say."""
    try:
        found = read_json(bench.folder / "bench.json").get("versions", {})
    except MribenchError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


@dataclass(frozen=True)
class MetricFacts:
    """One metric as the page explains it."""

    name: str
    title: str
    detects: str
    blind: str
    settings: tuple[str, ...]
    interval: str
    version: str


def metric_facts(entrants: Sequence[Entrant]) -> list[MetricFacts]:
    """Every metric that anybody has, in the package's order, under its usual definition."""
    usual = usual_scores(entrants)
    names = [n for n in METRICS if n in usual] + sorted(set(usual) - set(METRICS))
    return [_metric(usual[n]) for n in names]


def _metric(score: Score) -> MetricFacts:
    detects, blind = words.SEES.get(score.metric, words.UNKNOWN_METRIC)
    settings = tuple(part.replace(":", ": ", 1) for part in score.signature.split("|")[1:])
    return MetricFacts(score.metric, score.title, detects, blind, settings, score.interval, score.version)


@dataclass(frozen=True)
class ScoreLine:
    """One score in full, as a card shows it."""

    title: str
    value: str
    interval: str
    p_value: str
    signature: str


@dataclass(frozen=True)
class Card:
    """One entrant: what it is, what it was trained on, what it cost, how to make it again, what it cannot do."""

    row: Row
    facts: tuple[tuple[str, str], ...]
    scores: tuple[ScoreLine, ...]
    settings: tuple[str, ...]

    @property
    def entrant(self) -> Entrant:
        return self.row.entrant


def card(row: Row, bench: Bench, cohort: Cohort | None, usual_versions: Mapping[str, str]) -> Card:
    """The model card of a row, or what a control or a folder from outside has of one."""
    entrant, run = row.entrant, row.entrant.run
    known = [("What it is", _what(entrant))]
    if entrant.kind == "model":
        known += _training(entrant, bench, cohort)
    known += [
        ("Seed", _seed(entrant)),
        ("Device", entrant.devices or device_name(entrant.samples.device if entrant.samples else None)),
        ("Weights digest", entrant.weights.digest[:SHORT] if entrant.weights else ""),
        ("Samples digest", _samples_digest(entrant)),
        ("Scored with", counts(entrant)),
        ("Versions other than the bench's", _other_versions(entrant, usual_versions)),
    ]
    known += [("Licence", words.LICENCES[_terms(entrant, cohort)]), ("Limits", _limits(entrant, bench))]
    config = run.config if run else {}
    return Card(
        row=row,
        facts=tuple((what, value) for what, value in known if value),
        scores=tuple(_line(score) for score in entrant.scores.values()),
        settings=tuple(f"{key}: {json.dumps(value)}" for key, value in config.items()),
    )


def _what(entrant: Entrant) -> str:
    if entrant.kind == "model":
        kind = _generator(entrant)
        return kind.card() if kind else "A generator that is not installed here."
    if entrant.kind == "folder":
        return "Volumes from outside; mribench knows nothing of how they were made."
    return f"A control. {entrant.what}".strip() if entrant.kind == "control" else "Unknown: no run.json."


def _generator(entrant: Entrant) -> type[Generator] | None:
    """The class of a model, None where it is not installed."""
    model = entrant.run.model if entrant.run and entrant.run.model else entrant.name
    return get_model(model) if model in MODELS else None


def _training(entrant: Entrant, bench: Bench, cohort: Cohort | None) -> list[tuple[str, str]]:
    train = len(cohort.set("train")) if cohort else bench.protocol.cohort.train
    source = cohort.source if cohort else bench.protocol.cohort.source
    run, seen, seconds = entrant.run, entrant.seen, entrant.training_seconds
    other = cohort and run and run.cohort_digest not in (None, cohort.digest)
    cost = [f"{seen:,} volumes seen"] if seen is not None else []
    cost += [f"{seconds:,.0f} s of training"] if seconds is not None else []
    cost += [f"{entrant.parameters:,} parameters"] if entrant.parameters is not None else []
    if entrant.seconds_per_volume is not None:
        cost.append(f"{significant(entrant.seconds_per_volume)} s per volume sampled")
    return [
        ("Trained on", "another cohort than this bench's" if other else f"{train} {source} volumes (train)"),
        ("Preset", run.preset or "" if run else ""),
        ("Cost", ", ".join(cost)),
    ]


def _seed(entrant: Entrant) -> str:
    run = entrant.run
    seed = run.seed if run and run.seed is not None else entrant.samples.seed if entrant.samples else None
    return "" if seed is None else str(seed)


def _samples_digest(entrant: Entrant) -> str:
    return next((score.digests.get("samples", "") for score in entrant.scores.values()), "")[:SHORT]


def _other_versions(entrant: Entrant, usual: Mapping[str, str]) -> str:
    found = entrant.run.versions if entrant.run else {}
    return ", ".join(f"{key} {value}" for key, value in found.items() if usual.get(key) != value)


def _terms(entrant: Entrant, cohort: Cohort | None) -> str:
    if entrant.kind not in ("model", "control"):
        return "outside"
    return "simulated" if cohort and cohort.source == "simulated" else "own data"


def _limits(entrant: Entrant, bench: Bench) -> str:
    grid = bench.protocol.cohort.voxels
    said = [f"Volumes of {grid.size}³ voxels of {_numbers(grid.spacing_mm)} mm, nothing finer."]
    if entrant.slab:
        said.append(f"Makes axial slices {entrant.slab[0]} to {entrant.slab[1] - 1} only.")
    if entrant.kind == "model":
        said.append((_generator(entrant) or Generator).limits)
    return " ".join([*said, words.NO_CLINICAL_USE])


def _line(score: Score) -> ScoreLine:
    column = next(
        (column for column in COLUMNS if column.metric == score.metric and column.key != "gap"), None
    )
    _, low, high = column.numbers(score) if column else (score.value, score.low, score.high)
    scale = column.scale if column else 1.0
    return ScoreLine(
        title=f"{score.title} ({score.unit})" if score.unit else score.title,
        value=significant(score.value),
        interval=f"[{significant(low / scale)}, {significant(high / scale)}]",
        p_value="" if score.p_value is None else significant(score.p_value),
        signature=score.signature,
    )


def refused(cohort: Cohort | None, board: Leaderboard) -> list[tuple[str, str]]:
    """(what, why) of everything that is left out: volumes, files, scores."""
    found: list[tuple[str, str]] = []
    problems: Any = cohort.record.get("problems", []) if cohort else []
    for problem in problems if isinstance(problems, list) else []:
        if isinstance(problem, dict):
            found.append(
                (f"volume {problem.get('name', '?')}", str(problem.get("reason", "no reason recorded")))
            )
    for row in board.rows:
        entrant = row.entrant
        found += [(entrant.name, problem) for problem in (*entrant.problems, *entrant.doubts)]
        found += [(f"{entrant.name}, {metric}", reason) for metric, reason in entrant.missing.items()]
    return found
