import pytest

from mribench.metrics.score import RealBaseline
from mribench.reports import leaderboard
from mribench.reports.page import intervals
from mribench.reports.rows import columns_of, usual_scores

COLUMNS = columns_of({})
FID = COLUMNS[3]


def mark(value, name="a", control=False):
    return intervals.Mark(name, name, value, value - 1, value + 1, control, True)


def test_axis_leaves_out_controls_but_the_held_out_volumes():
    marks = [mark(10), mark(20), mark(500, "noise", True), mark(2, "real_heldout", True)]
    low, high = intervals._limits(marks, [], FID.bounds)
    assert -2 < low < 1 and 21 < high < 24
    low, high = intervals._limits(marks, [40.0], FID.bounds)
    assert 40 < high < 44


def test_axis_ends_where_the_quantity_ends():
    low, high = intervals._limits([mark(99.5), mark(98)], [], (0, 100))
    assert high == pytest.approx(100, abs=0.2)
    low, high = intervals._limits([intervals.Mark("a", "a", 0, 0, 0, False, True)], [], (0, 100))
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
    plots = intervals.interval_plots(board, usual_scores(entrants))
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
    board = leaderboard.from_scores(entrants)
    column = intervals.Column("kid_a", "KID-A", "kid_a", "lower")
    usual = usual_scores(entrants)
    found = {row.entrant.name: intervals._mark(row, column, usual).comparable for row in board.rows}
    assert found == {"a": False, "b": True, "c": True, "slab": False}
    fid = {row.entrant.name: intervals._mark(row, FID, usual).comparable for row in board.rows}
    assert fid["slab"] and fid["a"]
