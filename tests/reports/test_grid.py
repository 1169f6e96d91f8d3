import csv
import io
import re
from dataclasses import replace

import pytest

from mribench.metrics.score import RealBaseline
from mribench.reports import leaderboard
from mribench.reports.csv_tables import as_csv
from mribench.reports.fields import _duration, _millions, make_table
from mribench.reports.latex import as_tex
from mribench.reports.markdown import as_markdown
from mribench.reports.page.html import render
from mribench.reports.records import read_cohort
from mribench.reports.rows import Cell, Column


@pytest.fixture
def bench_and_board(full_bench):
    return full_bench.bench, leaderboard.build(full_bench.bench)


def outputs(bench, board):
    """The five outputs of one table, as text."""
    table = make_table(board)
    return {
        "csv": as_csv(table),
        "latex": as_tex(table),
        "markdown": as_markdown(table),
        "terminal": leaderboard.as_text(board, wide=True),
        "page": render(bench, read_cohort(bench)[0], board),
    }


def changed(board, change):
    """The board with `change(row)` as each row's cells."""
    return replace(
        board,
        contestants=tuple(replace(row, cells=change(row)) for row in board.contestants),
        controls=tuple(replace(row, cells=change(row)) for row in board.controls),
    )


def test_a_new_column_is_in_all_five_outputs(bench_and_board, make_score):
    bench, board = bench_and_board
    column = Column("sharpness", "Sharpness", "sharpness", "higher", digits=4)
    values = {row.entrant.name: 0.1234 + i for i, row in enumerate(board.rows)}

    def with_sharpness(row):
        return (*row.cells, Cell(column, make_score("sharpness", values[row.entrant.name])))

    wider = replace(changed(board, with_sharpness), columns=(*board.columns, column))
    for name, text in outputs(bench, wider).items():
        assert "Sharpness" in text, name
        for value in values.values():
            assert f"{value:.4f}" in text, (name, value)
    for name, text in outputs(bench, board).items():
        assert "Sharpness" not in text, name


def test_a_mark_on_a_cell_is_in_every_output_that_has_it(bench_and_board):
    bench, board = bench_and_board
    column = board.columns[0]

    def marked(row):
        first, *rest = row.cells
        return (replace(first, group="abc", why_not=("measured on another scanner",)), *rest)

    strange = replace(changed(board, marked), footnotes=(*board.footnotes, "measured on another scanner"))
    texts = outputs(bench, strange)
    number = len(strange.footnotes)
    assert f"$^{{\\mathrm{{abc}}\\,*{number}}}$" in texts["latex"]
    assert f"<sup>abc,\\*,{number}</sup>" in texts["markdown"]
    assert re.search(rf"abc\*\[{number}\]", texts["terminal"])
    assert f'<sup>*<a href="#note-{number}">{number}</a></sup>' in texts["page"]
    lines = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert {line[f"{column.title} group"] for line in lines} == {"abc"}
    assert all(
        f"{column.title}: not comparable: measured on another scanner" in line["notes"] for line in lines
    )


def test_companions_are_in_the_list_and_on_the_page_and_never_in_the_tables(
    make_entrant, make_scores, make_score
):
    scores = {**make_scores(1.0), "kid_a": make_score("kid_a", 0.25, unit="per mille")}
    board = leaderboard.from_scores([make_entrant("a", scores=scores), make_entrant("b", 2.0)])
    table = make_table(board)
    assert [column.title for column in table.of("companion").columns] == ["KID_A (per mille)"]
    for text in (as_csv(table), as_tex(table), as_markdown(table), leaderboard.as_text(board)):
        assert "KID" not in text
    alone = leaderboard.from_scores([make_entrant("a", scores=scores)])
    assert re.search(r"^KID_A \(per mille\) +0\.250 +\[0\.248, 0\.252\]$", leaderboard.as_text(alone), re.M)


@pytest.mark.parametrize(("count", "said"), [(1234, "1,234"), (1553249, "1.55 M"), (119281537, "119 M")])
def test_millions(count, said):
    assert _millions(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.004, "0.004 s"), (35, "35 s"), (800, "13 min"), (3600 * 12.3, "12 h"), (86400 * 9.2, "9 d")],
)
def test_durations(seconds, said):
    assert _duration(seconds) == said


def test_costs_that_are_unknown_are_dashes_for_models_and_nothing_for_others(make_entrant):
    board = leaderboard.from_scores([make_entrant("a"), make_entrant("b", kind="folder")])
    costs = {row.name: [cell.text for cell in row.cells] for row in make_table(board).of("cost").rows}
    assert costs == {"a": ["–"] * 5, "b": [""] * 5}


def test_companion_scores_of_another_definition_or_of_a_slab_are_starred(
    make_entrant, make_scores, make_score
):
    usual = {**make_scores(1.0), "kid_a": make_score("kid_a", 0.2)}
    other = {**make_scores(1.0), "kid_a": make_score("kid_a", 0.2, version="v2")}
    entrants = [make_entrant(name, scores=usual) for name in "ab"]
    entrants += [make_entrant("other", scores=other), make_entrant("slab", scores=usual, slab=(5, 11))]
    table = make_table(leaderboard.from_scores(entrants)).of("companion")
    assert {row.name for row in table.rows if row.cells[0].starred} == {"other", "slab"}


def test_the_real_baseline_is_only_in_tables_where_it_has_a_value(make_entrant, make_scores, make_score):
    baseline = RealBaseline(value=0.3, low=0.25, high=0.35, n=4, how="x")
    scores = {**make_scores(1.0), "kid_a": make_score("kid_a", 0.5, real_baseline=baseline)}
    table = make_table(leaderboard.from_scores([make_entrant("a", scores=scores)]))
    assert not table.of("paper", "score").baseline
    (row,) = table.of("companion").baseline
    assert row.cells[0].values == (0.3, 0.25, 0.35) and row.cells[0].text == "0.300"
