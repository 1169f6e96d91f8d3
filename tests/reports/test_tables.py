import csv
import io
import re

import pytest

from mribench.reports import leaderboard, tables

HOSTILE = '=HYPERLINK("http://x","a")\x1b[31m\u202e\n<script>\\input{/etc/passwd}$x$%'


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def hostile_board(make_entrant, make_scores):
    scores = make_scores(1.0, notes=("+note & \\write18{x}",), title="@SUM(A1)")
    bad = make_entrant("evil", scores=scores, problems=("-2+3 is \\broken",), doubts=("=doubt",))
    object.__setattr__(bad, "title", HOSTILE)
    return leaderboard.from_scores([bad, make_entrant("a", 1.0), make_entrant("b", 2.0)])


def test_table_csv_begins_with_the_columns_of_table_1(make_entrant):
    board = leaderboard.from_scores([make_entrant("cdpm", 0.5), make_entrant("noise", 9.0, kind="control")])
    header = tables.as_csv(board).splitlines()[0].split(",")
    assert header[:8] == ["run", "model", "MS-SSIM (%)", "gap", "MMD (x10³)", "FID-A", "FID-C", "FID-S"]
    assert header[8:10] == ["MS-SSIM (%) low", "MS-SSIM (%) high"]
    assert header[20:22] == ["n", "notes"]
    first = read(tables.as_csv(board))[0]
    assert (first["run"], first["kind"], first["n"]) == ("cdpm", "model", "4 samples, 3 reference")
    assert float(first["MS-SSIM (%)"]) == pytest.approx(85)
    assert float(first["gap"]) == pytest.approx(5)
    assert float(first["MMD (x10³)"]) == pytest.approx(5)
    assert float(first["FID-A low"]) < float(first["FID-A"]) < float(first["FID-A high"])


def test_scores_csv_has_a_row_per_score_and_per_missing_score(make_entrant):
    board = leaderboard.from_scores(
        [
            make_entrant("a", missing={"mmd_voxel": "too few"}),
            make_entrant("b", scores={}, problems=("torn",)),
        ]
    )
    rows = read(tables.as_scores_csv(board))
    assert [r["metric"] for r in rows if r["run"] == "a"] == [
        "ms_ssim", "mmd", "fid_a", "fid_c", "fid_s", "memorisation", "copy_rate", "mmd_voxel",
    ]  # fmt: skip
    assert float(rows[0]["gap"]) == pytest.approx(0.1) and rows[0]["signature"].startswith("metric:ms_ssim|")
    assert rows[7]["value"] == "" and rows[7]["notes"] == "too few"
    assert rows[8]["run"] == "b" and rows[8]["notes"] == "torn"


def test_missing_and_incomparable_cells_are_explained_in_the_notes(make_entrant, make_scores):
    scores = make_scores(1.0, samples=3)
    del scores["fid_a"]
    odd = make_entrant("odd", scores=scores, missing={"fid_a": "no weights"})
    board = leaderboard.from_scores([odd, make_entrant("a"), make_entrant("b")], {"samples": 4})
    found = next(r for r in read(tables.as_csv(board)) if r["run"] == "odd")
    assert found["FID-A"] == "" and "FID-A: no weights" in found["notes"]
    assert "MMD (x10³)" in found["notes"] and "not comparable: 3 samples instead of 4" in found["notes"]


def test_no_text_in_a_csv_begins_like_a_formula(hostile_board):
    for text in (tables.as_csv(hostile_board), tables.as_scores_csv(hostile_board)):
        assert "\x1b" not in text and "\u202e" not in text
        for line in read(text):
            for key, value in line.items():
                assert value[:1] not in tuple("=+@-\t\r") or float(value) < 0, (key, value)


def test_nothing_in_a_tex_table_is_a_command_of_others(hostile_board):
    text = tables.as_tex(hostile_board)
    for command in ("\\input", "\\write18", "\\broken"):
        assert command not in text
    assert r"\textbackslash{}input\{/etc/passwd\}\$x\$\%" in text
    structure = re.sub(r"\\\\|\\[{}]", "", text)
    assert structure.count("{") == structure.count("}")
    body = [line for line in text.splitlines() if " & " in line]
    assert all(line.replace("\\&", "").count("&") == len(hostile_board.columns) + 1 for line in body)


def test_tex_table_has_rules_bold_and_asterisks(make_entrant, make_scores):
    slab = make_entrant("slab", scores=make_scores(3.0), slab=(5, 11))
    board = leaderboard.from_scores(
        [make_entrant("a", 1.0), make_entrant("b", 2.0), slab, make_entrant("noise", kind="control")]
    )
    text = tables.as_tex(board)
    assert text.index("\\toprule") < text.index("\na &") < text.index("\nslab") < text.index("\nnoise")
    assert text.count("\\midrule") == 2 and "\\textbf{" in text and "$^{*1}$" in text
    assert "80.00" in text[text.index("\\caption") : text.index("\\begin{tabular}")]


def test_terminal_table_is_inert_and_aligned(hostile_board):
    text = leaderboard.as_text(hostile_board)
    assert "\x1b" not in text and "\u202e" not in text
    lines = text.splitlines()
    assert {lines[0].index("FID-A") + 5} == {len(line[: lines[0].index("FID-A") + 5]) for line in lines[2:5]}
    assert "^" in text and "*[" in text


def test_a_single_entrant_is_listed_with_intervals(make_entrant, make_scores, make_score):
    scores = {**make_scores(1.0), "mmd_voxel": make_score("mmd_voxel", 0.00012, spread=1e-5)}
    text = leaderboard.as_text(
        leaderboard.from_scores([make_entrant("samples", kind="folder", scores=scores)])
    )
    assert "Real MS-SSIM: 80.00 %" in text
    line = next(line for line in text.splitlines() if line.startswith("FID-A"))
    assert line.split()[1:] == ["10.0", "[10.0,", "10.0]"]
    assert "MMD_VOXEL" in text and "1.20e-04" in text
