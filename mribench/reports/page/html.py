"""The page: one HTML file that needs nothing else and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mribench import __version__
from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.files import write_text
from mribench.metrics.score import RealBaseline, Score
from mribench.reports.leaderboard import from_bench, write_tables
from mribench.reports.page import published, words
from mribench.reports.page.evidence import read_evidence
from mribench.reports.page.intervals import interval_plots
from mribench.reports.page.pictures import Gallery
from mribench.reports.page.provenance import card, facts, metric_facts, refused, versions
from mribench.reports.page.viewer import make_viewer
from mribench.reports.records import read_cohort, read_entrants
from mribench.reports.rows import Cell, Leaderboard, Row, fixed, percent, significant, usual_scores
from mribench.reports.tables import companions, explanations, name, plain

TABLES = ("table.csv", "scores.csv", "table.tex", "table.md")
SHADES = 10  # steps of the rank-probability map


def write_report(bench: Bench) -> Path:
    """Write index.html and the tables beside it from the bench's files; returns the page's path.

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
    usual = usual_scores(entrants)
    panels, no_embedding = gallery.embedding(entrants)
    profiles, no_profiles = gallery.profiles(entrants)
    copies = [entrant for entrant in entrants if entrant.name == "train_copy"]
    evidence, about_evidence = read_evidence(bench, cohort)
    viewer, no_viewer = make_viewer(bench, cohort, board.rows)
    environment = _environment()
    style = environment.get_template("style.css.j2").render(widths=gallery.widths, shades=SHADES)
    script = files("mribench.reports.page").joinpath("page.js").read_text(encoding="utf-8")
    scripts = [*([viewer.script] if viewer else []), script]
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        scripts=[Markup(text) for text in scripts],
        style_hash=_hash(style),
        script_hashes=[_hash(text) for text in scripts],
        words=words,
        version=__version__,
        protocol=bench.protocol,
        cohort=cohort,
        trouble=trouble,
        simulated=(cohort.source if cohort else bench.protocol.cohort.source) == "simulated",
        board=board,
        headline=_headline(board),
        baseline_how=_baseline_how(board),
        explanations=explanations(board),
        published=published if published.shown_beside(bench.protocol.name) else None,
        chances=[row for row in board.contestants if row.chances],
        companions=_companions(board, usual),
        intervals=interval_plots(board, usual),
        sheet=gallery.sheet(entrants),
        viewer=viewer,
        no_viewer=no_viewer,
        five=gallery.five(contestants),
        panels=panels,
        no_embedding=no_embedding,
        neighbours=gallery.neighbours([*contestants, *copies]),
        profiles=profiles,
        no_profiles=no_profiles,
        curves=gallery.curves(contestants),
        facts=facts(bench, cohort),
        metrics=metric_facts(entrants),
        evidence=evidence,
        about_evidence=about_evidence,
        cards=[card(row, bench, cohort, versions(bench)) for row in board.rows],
        refused=refused(cohort, board),
        tables=[table for table in TABLES if (bench.report / table).exists()],
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mribench.reports.page", "."),
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
        millions=millions,
        rowname=name,
        anchor=anchor,
        sortkey=sortkey,
        shade=lambda chance: round(SHADES * chance),
        percent=percent,
    )
    return environment


def _hash(text: str) -> str:
    """What the content security policy must say to allow this style sheet or script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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


def millions(number: int | None) -> str:
    """12345678 -> "12.3 M"; small numbers as they are."""
    return f"{significant(number / 1e6)} M" if number is not None and number >= 100_000 else thousands(number)


def anchor(text: str) -> str:
    """An id for any name, of letters that need no escaping."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def sortkey(cell: Cell) -> str:
    """What a column is sorted by, small = good: distance from the target where there is one."""
    return "" if cell.score is None else f"{cell.score.rank_key:.9g}"


def _headline(board: Leaderboard) -> str:
    """The answer in one sentence; empty when there is none."""
    ranked = [row for row in board.contestants if row.rank is not None]
    first = [row for row in ranked if row.best]
    if not first:
        return ""
    rank = fixed(first[0].rank or 0.0, 2)
    names = " and ".join(name(row) for row in first)
    chance = first[0].chances[0] if len(first) == 1 and first[0].chances else None
    sure = f", truly first with a probability of {percent(chance)}" if chance is not None else ""
    return f"Best of {len(ranked)} ranked models: {names} (mean rank {rank}{sure})."


@dataclass(frozen=True)
class Companions:
    """The scores that the leaderboard has no column for: per entrant, (value, interval, loss) under each title."""

    metrics: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Row, tuple[tuple[str, str, str], ...]], ...]
    real_baseline: tuple[tuple[str, str], ...] = ()


def _companions(board: Leaderboard, usual: Mapping[str, Score]) -> Companions:
    found = {row.entrant.name: {s.metric: s for s in companions(row)} for row in board.rows}
    titles = {
        m: f"{s.title} ({s.unit})" if s.unit else s.title
        for scores in found.values()
        for m, s in scores.items()
    }
    real_baselines = [s.real_baseline if (s := usual.get(metric)) else None for metric in titles]
    return Companions(
        tuple(titles.items()),
        tuple(
            (row, tuple(_companion(found[row.entrant.name].get(metric)) for metric in titles))
            for row in board.rows
            if row.entrant.scores
        ),
        tuple(_texts(real_baseline) for real_baseline in real_baselines) if any(real_baselines) else (),
    )


def _companion(score: Score | None) -> tuple[str, str, str]:
    return (*_texts(score), f"{score.rank_key:.9g}" if score else "")


def _texts(found: Score | RealBaseline | None) -> tuple[str, str]:
    if found is None:
        return "–", ""
    return significant(found.value), f"[{significant(found.low)}, {significant(found.high)}]"


def _baseline_how(board: Leaderboard) -> str:
    """Which volumes play the generator in the real baseline's row."""
    return "; ".join(
        dict.fromkeys(cell.real_baseline.how for cell in board.real_baseline if cell.real_baseline)
    )
