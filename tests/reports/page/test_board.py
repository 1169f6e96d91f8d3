"""The leaderboard of the page: its columns in groups, and the marks in its cells."""

from dataclasses import replace

import pytest

from mribench.metrics.score import RealBaseline
from mribench.reports.fields import make_table
from mribench.reports.leaderboard import from_scores
from mribench.reports.page.board import make_board


@pytest.fixture
def table(make_entrant):
    return make_table(from_scores([make_entrant("a", 0.1), make_entrant("b", 0.4)]))


def titles(board):
    return {group.title: [column.shown.title for column in group.columns] for group in board.groups}


def test_columns_stand_in_families_and_the_rest_behind_them(table):
    board = make_board(table)
    groups = titles(board)
    assert next(iter(groups)) == "Rank" and list(groups)[-1] == "Not ranked"
    assert groups["FID"] == ["FID-A", "FID-C", "FID-S"] and groups["MS-SSIM gap"] == ["MS-SSIM (%)", "gap"]
    assert [group.title for group in board.groups if not group.shown] == ["Not ranked"]
    assert [c.shown for c in board.columns] == list(board.table.columns)


def test_columns_that_hold_nothing_are_left_out(table):
    assert "Costs" not in titles(make_board(table))  # nobody was trained here
    keys = [column.title for column in table.columns]
    nothing = [
        tuple(replace(c, text="–") if key == "FID-C" else c for key, c in zip(keys, row.cells, strict=True))
        for row in table.ranked
    ]
    rows = tuple(replace(row, cells=cells) for row, cells in zip(table.ranked, nothing, strict=True))
    assert titles(make_board(replace(table, ranked=rows)))["FID"] == ["FID-A", "FID-S"]


def test_a_mark_shows_value_interval_and_real_baseline_on_one_axis(make_entrant, make_scores):
    real = RealBaseline(value=2.0, low=1.5, high=2.5, n=4, how="x")
    scores = [
        {m: s.model_copy(update={"real_baseline": real}) for m, s in make_scores(q).items()}
        for q in (0.1, 0.4)
    ]
    board = make_board(
        make_table(from_scores([make_entrant(n, scores=s) for n, s in zip("ab", scores, strict=True)]))
    )
    i, column = next((i, c) for i, c in enumerate(board.columns) if c.shown.title == "FID-A")
    marks = [column.mark(row.cells[i]) for row in board.table.ranked]  # FID 1 and 4, real volumes 2
    assert marks[0].value < marks[0].real[0] < marks[0].real[1] < marks[1].value
    assert all(0 <= mark.low <= mark.value <= mark.high <= 72 and not mark.beyond for mark in marks)
    assert column.mark(replace(board.table.ranked[0].cells[i], values=(900, 890, 910))).beyond == "right"
    assert column.mark(replace(board.table.ranked[0].cells[i], values=())) is None
