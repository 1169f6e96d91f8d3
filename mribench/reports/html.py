"""The page: one HTML file that needs nothing else, asks the network for nothing and runs no script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mribench import __version__
from mribench.bench import Bench
from mribench.data.cohort import Cohort
from mribench.errors import MribenchError
from mribench.files import read_json, write_text
from mribench.metrics import METRICS
from mribench.metrics.metric import Score
from mribench.reports import words
from mribench.reports.leaderboard import from_bench, write_tables
from mribench.reports.pictures import Gallery
from mribench.reports.records import Entrant, device_name, read_cohort, read_entrants
from mribench.reports.rows import Leaderboard, significant, usual_scores
from mribench.reports.tables import companions, counts, name, plain

SHORT = 12  # characters of a digest that are shown


def write_report(bench: Bench) -> Path:
    """Write index.html, table.csv, scores.csv, table.tex and table.md from the bench's files; returns its path.

    What cannot be read appears with its reason. Unchanged files give an unchanged page.
    """
    cohort, trouble = read_cohort(bench)
    entrants = read_entrants(bench, cohort)
    board = from_bench(bench, cohort, entrants)
    write_tables(board, bench.report)
    page = bench.report / "index.html"
    write_text(page, render(bench, cohort, board, trouble))
    return page


def render(bench: Bench, cohort: Cohort | None, board: Leaderboard, trouble: str = "") -> str:
    """The page as text; `trouble` says why there is no cohort."""
    gallery = Gallery(bench, cohort)
    entrants = [row.entrant for row in board.rows]
    contestants = [row.entrant for row in board.contestants]
    panels, no_embedding = gallery.embedding(entrants)
    copies = [entrant for entrant in entrants if entrant.name == "train_copy"]
    environment = _environment()
    style = environment.get_template("style.css.j2").render(widths=gallery.widths)
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        style_hash=_hash(style),
        words=words,
        version=__version__,
        protocol=bench.protocol,
        cohort=cohort,
        trouble=trouble,
        simulated=(cohort.source if cohort else bench.protocol.cohort.source) == "simulated",
        board=board,
        companions=_companions(board),
        sheet=gallery.sheet(entrants),
        five=gallery.five(contestants),
        panels=panels,
        no_embedding=no_embedding,
        neighbours=gallery.neighbours([*contestants, *copies]),
        curves=gallery.curves(contestants),
        facts=_facts(bench, cohort),
        metrics=_metrics(entrants),
        made=[_made(entrant, _versions(bench)) for entrant in entrants],
        refused=_refused(cohort, board),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mribench.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    environment.filters.update(
        minus=lambda text: str(text).replace("-", "\u2212"),
        duration=duration,
        thousands=thousands,
        rowname=name,
    )
    return environment


def _hash(style: str) -> str:
    """What the content security policy must say to allow this style sheet and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def duration(seconds: float | None) -> str:
    """ "0.42 s", "35 s", "12 min", "3.4 h", "2.1 d"; a dash for None."""
    if seconds is None:
        return "–"
    for unit, size in (("s", 1.0), ("min", 60.0), ("h", 3600.0)):
        if seconds < 100 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 86400:.0f} d"


def thousands(number: int | None) -> str:
    """12345678 -> "12,345,678"."""
    return "–" if number is None else f"{number:,}"


@dataclass(frozen=True)
class Companions:
    """The scores that the leaderboard has no column for: per entrant, (value, interval) under each title."""

    titles: tuple[str, ...]
    rows: tuple[tuple[Entrant, tuple[tuple[str, str], ...]], ...]


def _companions(board: Leaderboard) -> Companions:
    found = {row.entrant.name: {s.metric: s for s in companions(row.entrant)} for row in board.rows}
    titles = {
        m: f"{s.title} ({s.unit})" if s.unit else s.title
        for scores in found.values()
        for m, s in scores.items()
    }
    return Companions(
        tuple(titles.values()),
        tuple(
            (row.entrant, tuple(_companion(found[row.entrant.name].get(metric)) for metric in titles))
            for row in board.rows
            if row.entrant.scores
        ),
    )


def _companion(score: Score | None) -> tuple[str, str]:
    if score is None:
        return "–", ""
    return significant(score.value), f"[{significant(score.low)}, {significant(score.high)}]"


def _facts(bench: Bench, cohort: Cohort | None) -> list[tuple[str, str]]:
    """Protocol and cohort as (what, value)."""
    protocol = bench.protocol
    spec, grid = protocol.cohort, protocol.cohort.voxels
    facts = [
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
        return [*facts, ("Roles", roles), *_version_facts(bench)]
    roles = ", ".join(f"{len(cohort.set(role))} {role}" for role in ("train", "reference", "holdout"))
    shared = "; the reference is part of train" if spec.reference_from_train else "; no volume has two roles"
    facts += [
        ("Cohort", cohort.source),
        ("Roles", roles + shared),
        ("Cohort digest", cohort.digest),
        ("Recipe", json.dumps(cohort.record.get("recipe", {}), sort_keys=True)),
    ]
    return [*facts, *_version_facts(bench)]


def _version_facts(bench: Bench) -> list[tuple[str, str]]:
    return [("Versions (bench)", ", ".join(f"{k} {v}" for k, v in _versions(bench).items()))]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _versions(bench: Bench) -> dict[str, str]:
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
    sees: str
    blind: str
    settings: tuple[str, ...]
    interval: str
    version: str


def _metrics(entrants: Sequence[Entrant]) -> list[MetricFacts]:
    """Every metric that anybody has, in the package's order, under its usual definition."""
    usual = usual_scores(entrants)
    names = [n for n in METRICS if n in usual] + sorted(set(usual) - set(METRICS))
    return [_metric(usual[n]) for n in names]


def _metric(score: Score) -> MetricFacts:
    sees, blind = words.SEES.get(score.metric, words.UNKNOWN_METRIC)
    settings = tuple(part.replace(":", ": ", 1) for part in score.signature.split("|")[1:])
    return MetricFacts(score.metric, score.title, sees, blind, settings, score.interval, score.version)


@dataclass(frozen=True)
class Made:
    """How one entrant came to be."""

    entrant: Entrant
    seed: str
    weights: str
    samples: str
    scored: str
    device: str
    versions: str
    config: tuple[str, ...]


def _made(entrant: Entrant, usual: Mapping[str, str]) -> Made:
    run = entrant.run
    seed = run.seed if run and run.seed is not None else entrant.samples.seed if entrant.samples else None
    digest = next((score.digests.get("samples", "") for score in entrant.scores.values()), "")
    other = {k: v for k, v in (run.versions if run else {}).items() if usual.get(k) != v}
    return Made(
        entrant=entrant,
        seed="–" if seed is None else str(seed),
        weights=entrant.weights.digest[:SHORT] if entrant.weights else "–",
        samples=digest[:SHORT] or "–",
        scored=counts(entrant),
        device=entrant.devices or device_name(entrant.samples.device if entrant.samples else None),
        versions=", ".join(f"{key} {value}" for key, value in other.items()),
        config=tuple(f"{key}: {json.dumps(value)}" for key, value in (run.config if run else {}).items()),
    )


def _refused(cohort: Cohort | None, board: Leaderboard) -> list[tuple[str, str]]:
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
