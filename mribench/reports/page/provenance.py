"""Where the numbers come from: protocol, definitions, a card per entrant, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mribench.bench.folder import Bench
from mribench.bench.records import BudgetRaise, StartRecord
from mribench.data.cohort import Cohort
from mribench.data.grid import Grid
from mribench.errors import MribenchError
from mribench.files import read_json
from mribench.metrics import METRIC_REGISTRY, METRICS, get_metric
from mribench.metrics.score import Score
from mribench.models import MODEL_REGISTRY, get_model
from mribench.models.generator import Generator
from mribench.models.start import PRETRAINED
from mribench.reports.fields import counts
from mribench.reports.page import words
from mribench.reports.records import Entrant
from mribench.reports.rows import Leaderboard, Row, significant, usual_scores

_SHORT = 12  # characters of a digest that are shown
_Fact = tuple[str, str]  # what, and its value


def facts(bench: Bench, cohort: Cohort | None) -> list[_Fact]:
    """Protocol and cohort."""
    protocol = bench.protocol
    grid = protocol.cohort.voxels
    return [
        ("Protocol", f"{protocol.name}, version {protocol.version}"),
        ("Protocol digest", protocol.digest),
        ("Seed", str(protocol.seed)),
        ("Volumes", voxels(grid)),
        ("Origin", f"{_numbers(grid.origin_mm)} mm, the world position of the first voxel's centre, RAS+"),
        ("Asked of every entrant", f"{protocol.evaluation.samples} samples"),
        ("Feature extractor", protocol.evaluation.extractor),
        *(
            (what[0].upper() + what[1:], f"a plug-in of {package}")
            for what, package in bench.packages.items()
        ),
        *_cohort_facts(bench, cohort),
        ("Versions (bench)", ", ".join(f"{k} {v}" for k, v in _versions(bench).items())),
    ]


def voxels(grid: Grid) -> str:
    """ "128 x 128 x 128 voxels of 1.375 x 1.375 x 1 mm (x, y, z)"."""
    return f"{grid.described()} (x, y, z)"


def _cohort_facts(bench: Bench, cohort: Cohort | None) -> list[_Fact]:
    spec = bench.protocol.cohort
    if cohort is None:
        asked = f"{spec.train} train, {spec.reference} reference, {spec.holdout} holdout (as asked)"
        return [("Roles", asked)]
    roles = ", ".join(f"{len(cohort.set(role))} {role}" for role in ("train", "reference", "holdout"))
    shared = "the reference is part of train" if spec.reference_from_train else "no volume has two roles"
    return [
        ("Cohort", cohort.source),
        ("Roles", f"{roles}; {shared}"),
        ("Cohort digest", cohort.digest),
        ("Recipe", json.dumps(cohort.record.recipe, sort_keys=True)),
    ]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _versions(bench: Bench) -> dict[str, str]:
    """What the bench was made with; empty when bench.json does not say."""
    try:
        versions = read_json(bench.folder / "bench.json").get("versions", {})
    except MribenchError:
        return {}
    return {str(key): str(value) for key, value in versions.items()} if isinstance(versions, dict) else {}


@dataclass(frozen=True)
class MetricFacts:
    """One metric as the page explains it."""

    name: str
    title: str
    measures: str
    blind_to: str
    settings: tuple[str, ...]
    interval: str
    version: str
    package: str  # of a plug-in


def metric_facts(entrants: Sequence[Entrant]) -> list[MetricFacts]:
    """Every metric that anybody has, in the package's order, under its usual definition."""
    usual = usual_scores(entrants)
    names = [n for n in METRICS if n in usual] + sorted(set(usual) - set(METRICS))
    return [_metric(usual[n]) for n in names]


def _metric(score: Score) -> MetricFacts:
    measures = blind_to = words.UNKNOWN_METRIC
    if reason := METRIC_REGISTRY.why_unusable(score.metric, score.package):
        measures = f"{measures} It {reason}." if score.metric not in METRIC_REGISTRY.names() else reason
    else:
        metric = get_metric(score.metric)
        measures, blind_to = metric.measures, metric.blind_to
    settings = tuple(part.replace(":", ": ", 1) for part in score.signature.split("|")[1:])
    return MetricFacts(
        score.metric, score.title, measures, blind_to, settings, score.interval, score.version, score.package
    )


@dataclass(frozen=True)
class Card:
    """One entrant: what it is, what it was trained on, what it cost, how to make it again, what it cannot do."""

    entrant: Entrant
    facts: tuple[_Fact, ...]
    scores: tuple[tuple[str, str, str, str, str, str], ...]  # metric, title, value, interval, p, signature
    settings: tuple[str, ...]


def cards(bench: Bench, cohort: Cohort | None, board: Leaderboard) -> list[Card]:
    """The card of every row; a control or a folder from outside has less to say than a model."""
    usual = _versions(bench)
    return [_card(row, bench, cohort, usual) for row in board.rows]


def _card(row: Row, bench: Bench, cohort: Cohort | None, usual_versions: Mapping[str, str]) -> Card:
    entrant = row.entrant
    sampled_on = str((entrant.samples and entrant.samples.device) or "")
    facts = [
        ("What it is", _what(entrant)),
        *_adoption(entrant),
        ("Plug-in", entrant.run.package if entrant.run else ""),
        *(_training(entrant, bench, cohort) if entrant.kind == "model" else []),
        ("Seed", _seed(entrant)),
        ("Device", entrant.devices or sampled_on),
        ("Weights digest", entrant.weights.digest[:_SHORT] if entrant.weights else ""),
        ("Samples digest", _samples_digest(entrant)),
        ("Scored with", counts(entrant)),
        ("Versions other than the bench's", _other_versions(entrant, usual_versions)),
        ("Licence", words.LICENCES[_terms(entrant, cohort)]),
        ("Limits", _limits(entrant, bench)),
    ]
    config = entrant.run.config if entrant.run else {}
    return Card(
        entrant,
        facts=tuple((what, value) for what, value in facts if value),
        scores=tuple(_line(score, row) for score in entrant.scores.values()),
        settings=tuple(f"{key}: {json.dumps(value)}" for key, value in config.items()),
    )


def _what(entrant: Entrant) -> str:
    if entrant.kind == "model":
        kind = _generator(entrant)
        return kind.card() if kind else f"A generator that cannot be used here: {_why_no_generator(entrant)}."
    if entrant.kind == "folder":
        return "Volumes from outside; how they were made is not recorded."
    return f"A control. {entrant.what}".strip() if entrant.kind == "control" else "Unknown: no run.json."


def _adoption(entrant: Entrant) -> list[_Fact]:
    """How stored volumes came onto the bench's grid, and what that way cost them."""
    adoption = entrant.run.adoption if entrant.run else None
    if adoption is None:
        return []
    files = entrant.samples.files if entrant.samples else ()
    passages = [file.passage for file in files if file.passage]
    shapes = {" x ".join(map(str, reversed(passage.shape))) for passage in passages}
    return [
        (
            "Recipe",
            f"{adoption.recipe}; linear interpolation"
            if adoption.recipe.to_grid != "pad"
            else str(adoption.recipe),
        ),
        (
            "Stored as",
            f"{', '.join(sorted(shapes))} voxels (left-right, front-back, up-down)" if shapes else "",
        ),
        ("Clipped", _percentages([passage.clipped for passage in passages], "of the voxels")),
        (
            "Outside the field of view",
            _percentages([passage.outside for passage in passages], "of the brightness"),
        ),
        ("Left out", f"{len(adoption.left_out)} files, listed below" if adoption.left_out else ""),
    ]


def _percentages(proportions: Sequence[float], of: str) -> str:
    if not proportions or max(proportions) == 0:
        return ""
    return f"mean {fmean(proportions):.1%} {of}, at most {max(proportions):.1%}"


def _generator(entrant: Entrant) -> type[Generator] | None:
    """The class of a model, None where it cannot be used."""
    return None if _why_no_generator(entrant) else get_model(_model(entrant))


def _why_no_generator(entrant: Entrant) -> str:
    return MODEL_REGISTRY.why_unusable(_model(entrant), entrant.run.package if entrant.run else "")


def _model(entrant: Entrant) -> str:
    return entrant.run.model if entrant.run and entrant.run.model else entrant.name


def _training(entrant: Entrant, bench: Bench, cohort: Cohort | None) -> list[_Fact]:
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
        ("Started from", _start(run.start) if run and run.start else ""),
        ("Weights of", _weights_of(entrant)),
        ("Budget", "; ".join(_said_of(raised) for raised in run.raised) if run else ""),
        ("Cost", ", ".join(cost)),
    ]


def _start(start: StartRecord) -> str:
    where = (
        "weights that come with mribench" if start.name == PRETRAINED else f"weights of the file {start.name}"
    )
    return f"{where}, trained before on other volumes ({', '.join(start.networks)}; SHA-256 {start.digest[:_SHORT]})"


def _weights_of(entrant: Entrant) -> str:
    """Of an entrant that samples another run's weights: which, and with what other settings."""
    run = entrant.run
    if run is None or run.weights_of is None:
        return ""
    settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in run.sampler.items())
    return f"{run.weights_of}, sampled with {settings}"


def _said_of(raised: BudgetRaise) -> str:
    again = ", and the learning rates, which follow the budget, rose again" if raised.restarted else ""
    return f"raised from {raised.budget:,} when {raised.seen:,} volumes had been seen{again}"


def _seed(entrant: Entrant) -> str:
    run = entrant.run
    seed = run.seed if run and run.seed is not None else entrant.samples.seed if entrant.samples else None
    return "" if seed is None else str(seed)


def _samples_digest(entrant: Entrant) -> str:
    return next((score.digests.get("samples", "") for score in entrant.scores.values()), "")[:_SHORT]


def _other_versions(entrant: Entrant, usual: Mapping[str, str]) -> str:
    versions = entrant.run.versions if entrant.run else {}
    return ", ".join(f"{key} {value}" for key, value in versions.items() if usual.get(key) != value)


def _terms(entrant: Entrant, cohort: Cohort | None) -> str:
    if entrant.kind not in ("model", "control"):
        return "outside"
    return "simulated" if cohort and cohort.source == "simulated" else "own data"


def _limits(entrant: Entrant, bench: Bench) -> str:
    grid, slab = bench.protocol.cohort.voxels, entrant.slab
    limits = [f"Volumes of {grid.described()}, nothing finer."]
    limits += [f"Makes axial slices {slab[0]} to {slab[1] - 1} only."] if slab else []
    limits += [(_generator(entrant) or Generator).limits] if entrant.kind == "model" else []
    return " ".join([*limits, words.NO_CLINICAL_USE])


def _line(score: Score, row: Row) -> tuple[str, str, str, str, str, str]:
    """In the metric's own unit; the interval ends where the quantity itself ends."""
    low, high = score.low, score.high
    for column in (cell.column for cell in row.cells):
        if column.metric == score.metric and not column.gap:
            low, high = (end / column.scale for end in column.numbers(score)[1:])
    title = f"{score.title} ({score.unit})" if score.unit else score.title
    interval = f"[{significant(low)}, {significant(high)}]"
    p_value = "–" if score.p_value is None else significant(score.p_value)
    return score.metric, title, significant(score.value), interval, p_value, score.signature


def refused(cohort: Cohort | None, board: Leaderboard) -> list[_Fact]:
    """What is left out (volumes, files, scores), and why."""
    scans = cohort.record.problems if cohort else ()
    left_out = [(f"volume {scan.name}", scan.reason) for scan in scans]
    for row in board.rows:
        entrant = row.entrant
        if entrant.run and entrant.run.adoption:
            left_out += [
                (f"{entrant.name}, {each.name}", each.reason) for each in entrant.run.adoption.left_out
            ]
        left_out += [(entrant.name, problem) for problem in (*entrant.problems, *entrant.doubts)]
        left_out += [(f"{entrant.name}, {metric}", reason) for metric, reason in entrant.missing.items()]
    return left_out
