from mribench.metrics.metric import Floor
from mribench.reports.floors import floor_row
from mribench.reports.rows import COLUMNS


def floor(value, low, high):
    return Floor(value=value, low=low, high=high, n=4, how="3 held-out volumes")


def cell(row, key):
    return row.cells[[column.key for column in COLUMNS].index(key)]


def test_floors_are_shown_in_the_units_of_the_table(make_score):
    usual = {
        "ms_ssim": make_score("ms_ssim", 0.9, floor=floor(0.79, 0.77, 0.81)),
        "mmd": make_score("mmd", 0.5, floor=floor(-0.002, -0.01, 0.006)),
        "fid_a": make_score("fid_a", 50.0),
    }
    row = floor_row(COLUMNS, usual)
    assert (cell(row, "ms_ssim").text, cell(row, "ms_ssim").interval) == ("79.00", "[77.00, 81.00]")
    assert (cell(row, "gap").text, cell(row, "gap").interval) == ("1.00", "[0.00, 3.00]")  # |79 - 80|, folded
    assert cell(row, "mmd").text == "-2.00"
    assert cell(row, "fid_a").text == cell(row, "fid_c").text == "–"
    assert row.how == "3 held-out volumes"


def test_gap_of_a_floor_far_from_the_target_is_not_folded_at_zero(make_score):
    row = floor_row(COLUMNS, {"ms_ssim": make_score("ms_ssim", 0.9, floor=floor(0.7, 0.68, 0.72))})
    assert (cell(row, "gap").text, cell(row, "gap").interval) == ("10.00", "[8.00, 12.00]")


def test_without_any_floor_there_is_no_row(make_score):
    assert floor_row(COLUMNS, {"mmd": make_score("mmd", 0.5)}) is None


def test_page_has_the_floor_row_between_models_and_controls(make_bench, make_scores, render_page):
    maker = make_bench()
    scores = {m: s.model_copy(update={"floor": floor(0.75, 0.7, 0.8)}) for m, s in make_scores(1.0).items()}
    maker.add("cdpm", scores=scores)
    maker.add("noise", 9, kind="control")
    text = render_page(maker)
    table = text[text.index('<table class="wide board') :]
    table = table[: table.index("</table>")]
    assert table.index("CDPM") < table.index("Real volumes, same n") < table.index("Uniform noise")
    assert "the floor: 3 held-out volumes" in table
    assert table.count(">0.750") == 3  # FID per view
