"""The sections of the page: their order, their links, their headings, and what each is filled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from markupsafe import Markup

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.reports.fields import make_table
from mribench.reports.grid import Table, TableRow
from mribench.reports.leaderboard import FILES
from mribench.reports.page import published, words
from mribench.reports.page.board import Board, make_board, score_marks
from mribench.reports.page.entrants import EntrantView, entrant_views, place_of
from mribench.reports.page.evidence import read_evidence
from mribench.reports.page.front import FrontCard, front_cards
from mribench.reports.page.intervals import interval_plots
from mribench.reports.page.pictures import Gallery, Strip
from mribench.reports.page.provenance import cards, facts, metric_facts, refused
from mribench.reports.page.templating import filled
from mribench.reports.page.viewer import PICTURES, Viewer, make_viewer
from mribench.reports.records import Entrant
from mribench.reports.rows import Leaderboard


@dataclass(frozen=True)
class Material:
    """What the sections are made from."""

    bench: Bench
    cohort: Cohort | None
    board: Leaderboard
    pictures: int = PICTURES  # of each entrant in the viewer

    @cached_property
    def table(self) -> Table:
        return make_table(self.board)

    @cached_property
    def leaderboard(self) -> Board:
        """The table in foldable groups of columns."""
        return make_board(self.table)

    @cached_property
    def gallery(self) -> Gallery:
        return Gallery(self.bench, self.cohort)

    @cached_property
    def viewer(self) -> tuple[Viewer | None, str]:
        """The viewer, or None and the reason."""
        return make_viewer(self.bench, self.cohort, self.board.rows, self.pictures)

    @cached_property
    def firsts(self) -> dict[str, Strip]:
        """Entrant -> its first sample."""
        return {entrant.name: self.gallery.first(entrant) for entrant in self.entrants}

    @cached_property
    def cards(self) -> list[FrontCard]:
        """The cards of the first screen."""
        return front_cards(self.board, self.firsts, self.gallery.reference())

    @cached_property
    def views(self) -> tuple[list[EntrantView], list[str]]:
        """Every entrant's own view, and the reasons why all of them lack a part."""
        made = cards(self.bench, self.cohort, self.board)
        return entrant_views(self.board, self.gallery, made, score_marks(self.table), _IDS)

    @property
    def places(self) -> dict[str, str]:
        """Entrant -> the id of its view."""
        return {entrant.name: place_of(entrant.name, _IDS) for entrant in self.entrants}

    @property
    def entrants(self) -> list[Entrant]:
        return [row.entrant for row in self.board.rows]


@dataclass(frozen=True)
class Section:
    """One section: its template is ID.html.j2 and gets what `context` returns; `link` is for the navigation."""

    id: str
    link: str
    title: str
    context: Callable[[Material], Mapping[str, object]]
    folded: bool = False

    def render(self, material: Material) -> Markup:
        """Everything below the heading."""
        return filled(f"{self.id}.html.j2", **self.context(material))


def _leaderboard(material: Material) -> dict[str, object]:
    table, bench, companions = material.table, material.bench, material.table.of("companion")
    return {
        "board": material.leaderboard,
        "places": material.places,
        "controls": [row.entrant for row in material.board.controls],
        "chances": [row for row in table.contestants if row.chances],
        "companions": replace(
            companions,
            ranked=_scored(companions.ranked),
            unranked=_scored(companions.unranked),
            controls=_scored(companions.controls),
        ),
        "published": published if published.shown_beside(bench.protocol.name) else None,
        "files": [file for file in FILES if (bench.report / file).exists()],
    }


def _scored(rows: tuple[TableRow, ...]) -> tuple[TableRow, ...]:
    return tuple(row for row in rows if any(cell.values for cell in row.cells))


def _intervals(material: Material) -> dict[str, object]:
    return {"plots": interval_plots(material.table)}


def _sheet(material: Material) -> dict[str, object]:
    """Those that have no card on the first screen."""
    shown = {card.entrant.name if card.entrant else "" for card in material.cards}
    reference = material.gallery.reference() if "" not in shown else None
    strips = [(e, material.firsts[e.name]) for e in material.entrants if e.name not in shown]
    return {"strips": [*([(None, reference)] if reference else []), *strips]}


def _viewer(material: Material) -> dict[str, object]:
    return dict(zip(("viewer", "reason"), material.viewer, strict=True))


def _metrics(material: Material) -> dict[str, object]:
    evidence, about = read_evidence(material.bench, material.cohort)
    metrics = metric_facts(material.entrants)
    return {"words": words, "metrics": metrics, "evidence": evidence, "about_evidence": about}


def _protocol(material: Material) -> dict[str, object]:
    protocol = facts(material.bench, material.cohort)
    return {"protocol": protocol, "refused": refused(material.cohort, material.board)}


def _entrants(material: Material) -> dict[str, object]:
    views, reasons = material.views
    return {"views": views, "reasons": reasons}


SECTIONS = (
    Section("leaderboard", "Leaderboard", "Leaderboard", _leaderboard),
    Section("entrants", "Entrants", "Every entrant on its own", _entrants),
    Section("viewer", "Viewer", "Look inside: two volumes side by side", _viewer),
    Section("sheet", "All at one window", "All entrants at one window", _sheet),
    Section("intervals", "Intervals", "Every score with its interval", _intervals),
    Section(
        "metrics",
        "Definitions",
        "What each metric detects, and how it is defined here",
        _metrics,
        folded=True,
    ),
    Section("protocol", "Protocol and provenance", "Protocol and provenance", _protocol, folded=True),
)
_IDS = frozenset(section.id for section in SECTIONS)
