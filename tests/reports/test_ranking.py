"""What decides about columns, ranks and bold cells: what a metric declares, and what a score says of itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from mribench.metrics import METRICS, get_metric
from mribench.metrics.metric import Metric
from mribench.metrics.score import Display
from mribench.reports.leaderboard import from_scores
from mribench.reports.rows import TABLE_1, columns_of


class Texture(Metric[None]):
    """A metric of somebody else."""

    def definition(self, arrays):
        return {}

    def gather(self, arrays):
        return None

    def value(self, gathered, keep):
        return 0.0


def texture(**facts):
    own = {"name": "texture", "title": "Texture", "family": "texture", "better": "lower"}
    return Texture(**own, measures="Texture.", blind_to="Shape.", **facts)


@pytest.fixture
def install(monkeypatch):
    """Puts a metric into the table of metrics."""

    def put(metric):
        monkeypatch.setitem(METRICS, metric.name, "a_plug_in:METRIC")
        monkeypatch.setitem(sys.modules, "a_plug_in", SimpleNamespace(METRIC=metric))

    return put


def board(make_entrant, make_scores, **of_texture):
    """Three entrants; `of_texture` maps them to their scores in another metric."""
    entrants = []
    for name, quality in (("a", 0.1), ("b", 0.5), ("c", 0.9)):
        others = {"texture": of_texture[name]} if name in of_texture else {}
        entrants.append(make_entrant(name, scores={**make_scores(quality), **others}))
    return from_scores(entrants)


def ranks(table):
    return {row.entrant.name: row.place for row in table.rows}


def column(table, key):
    return next(column for column in table.columns if column.key == key)


def test_columns_are_those_of_ranked_metrics_and_of_headings():
    columns = columns_of({})
    own = ["fid_a", "fid_c", "fid_s", "memorisation", "copy_rate", "slice_consistency", "anatomy"]
    assert sorted(c.key for c in columns) == sorted([*TABLE_1, *own])
    assert {c.metric for c in columns if c.family} == {n for n in METRICS if get_metric(n).ranked}
    assert list(dict.fromkeys(c.family for c in columns if c.family)) == [
        "ms_ssim",
        "mmd",
        "fid",
        "anatomy",
    ]
    assert [(c.key, c.gap) for c in columns[:2]] == [("ms_ssim", False), ("gap", True)]


def test_nobody_is_ranked_or_best_when_no_score_is_ranked(make_entrant, make_scores):
    entrants = [
        make_entrant(
            name, scores={m: s.model_copy(update={"ranked": False}) for m, s in make_scores(q).items()}
        )
        for name, q in (("a", 0.1), ("b", 0.9))
    ]
    table = from_scores(entrants)
    assert ranks(table) == {"a": None, "b": None}
    cells = [cell for row in table.rows for cell in row.cells]
    assert len(cells) == 2 * len(columns_of({}))
    assert not any(cell.best or cell.group for cell in cells)
    assert ranks(board(make_entrant, make_scores)) == {"a": 1, "b": 2, "c": 3}


def test_an_installed_metric_that_is_ranked_has_a_column_and_is_a_family(
    install, make_entrant, make_scores, make_score
):
    """First in four families and by far the worst in the new one: that one decides."""
    install(texture(ranked=True, display=Display(heading="Texture (%)", scale=100, digits=1)))
    scores = {name: make_score("texture", value) for name, value in (("a", 90.0), ("b", 0.5), ("c", 0.1))}
    table = board(make_entrant, make_scores, **scores)
    assert ranks(table)["a"] == 3 and table.contestants[-1].decisive == "Texture"
    assert column(table, "texture").family == "texture"
    last = next(row for row in table.rows if row.entrant.name == "c").cell("texture")
    assert (last.text, last.best) == ("10.0", True)


def test_an_installed_metric_that_is_not_ranked_changes_nothing(
    install, make_entrant, make_scores, make_score
):
    install(texture())
    scores = {
        name: make_score("texture", value, ranked=False)
        for name, value in (("a", 0.9), ("b", 0.5), ("c", 0.1))
    }
    table = board(make_entrant, make_scores, **scores)
    assert ranks(table) == {"a": 1, "b": 2, "c": 3}
    assert table.columns == columns_of({})


def test_a_score_shows_itself_when_its_metric_is_not_installed(make_entrant, make_scores, make_score):
    display = Display(heading="Texture (x10)", scale=10, digits=2, bounds=(0, None), aim="near 0")
    scores = {
        name: make_score("texture", value, spread=0.2, display=display)
        for name, value in (("a", 0.3), ("b", 0.9), ("c", 1.5))
    }
    table = board(make_entrant, make_scores, **scores)
    assert (column(table, "texture").title, column(table, "texture").aim) == ("Texture (x10)", "near 0")
    cell = table.rows[0].cell("texture")
    assert cell.texts == ("3.00", "0.00", "7.00")
    assert ranks(table) == {"a": 1, "b": 2, "c": 3}


def test_a_metric_that_opts_in_has_a_column_only_where_somebody_has_a_score(
    install, make_entrant, make_scores, make_score
):
    install(texture(ranked=True, opt_in=True))
    assert "texture" not in [c.key for c in board(make_entrant, make_scores).columns]
    table = board(make_entrant, make_scores, a=make_score("texture", 0.1))
    assert column(table, "texture").title == "Texture"
    assert table.rows[0].cell("texture").text == "0.100"
    assert ranks(table) == {"a": 1, "b": 2, "c": 3}  # too few have the family
    assert any("Not part of the ranking" in remark and "Texture" in remark for remark in table.remarks)
