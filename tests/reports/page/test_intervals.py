import math

import pytest

from mribench.metrics.score import RealBaseline
from mribench.reports import leaderboard
from mribench.reports.fields import make_table
from mribench.reports.grid import TableCell, TableRow
from mribench.reports.page import intervals
from mribench.reports.rows import columns_of

COLUMNS = columns_of({})
FID = COLUMNS[3]
NO_BOUNDS = (-math.inf, math.inf)


def mark(value, name="a", kind="model", spread=1):
    return TableRow(name, name, name, kind, ()), TableCell(values=(value, value - spread, value + spread))


def test_axis_leaves_out_controls_but_the_held_out_volumes():
    marks = [mark(10), mark(20), mark(500, "noise", "control"), mark(2, "real_heldout", "control")]
    low, high = intervals.limits(marks, [], NO_BOUNDS)
    assert -2 < low < 1 and 21 < high < 24
    low, high = intervals.limits(marks, [40.0], NO_BOUNDS)
    assert 40 < high < 44


def test_axis_ends_where_the_quantity_ends():
    low, high = intervals.limits([mark(99.5), mark(98)], [], (0, 100))
    assert high == pytest.approx(100, abs=0.2)
    low, high = intervals.limits([mark(0, spread=0)], [], (0, 100))
    assert low < 0 < high == pytest.approx(1.07)


def test_one_plot_a_column_and_one_a_companion_with_values_in_the_alt_text(
    make_entrant, make_scores, make_score
):
    real_baseline = RealBaseline(value=0.78, low=0.77, high=0.79, n=4, how="x")
    scores = make_scores(1.0)
    scores["ms_ssim"] = scores["ms_ssim"].model_copy(update={"real_baseline": real_baseline})
    scores["kid_a"] = make_score("kid_a", 0.25)
    entrants = [
        make_entrant("a", scores=scores),
        make_entrant("b", scores={**make_scores(2.0), "kid_a": scores["kid_a"]}),
    ]
    board = leaderboard.from_scores(entrants)
    plots = [plot for _, plot in intervals.interval_plots(make_table(board))]
    titles = [plot.alt.partition(" with 95")[0] for plot in plots]
    assert titles == [c.title for c in COLUMNS if c.key != "gap"] + ["KID_A"]
    assert "target 80.0; real volumes 78.0; a 90.0 [89.8, 90.2]; b 100" in plots[0].alt


def test_scores_that_do_not_compare_are_hollow(make_entrant, make_scores, make_score):
    other = {**make_scores(1.0), "kid_a": make_score("kid_a", 0.3, version="v2")}
    rest = {**make_scores(1.0), "kid_a": make_score("kid_a", 0.2)}
    entrants = [
        make_entrant("a", scores=other),
        make_entrant("b", scores=rest),
        make_entrant("c", scores=rest),
    ]
    entrants.append(make_entrant("slab", scores=rest, slab=(5, 11)))
    table = make_table(leaderboard.from_scores(entrants))
    hollow = {
        column.metric: [row.name for row in table.contestants if row.cells[i].starred]
        for i, column in enumerate(table.columns)
    }
    assert sorted(hollow["kid_a"]) == ["a", "slab"] and not hollow["fid_a_central"]
