import csv
import io
import re
import shutil
import subprocess

import click
import pytest
from markdown_it import MarkdownIt

from mribench.metrics.score import RealBaseline
from mribench.reports import fields, leaderboard
from mribench.reports.csv_tables import as_csv, as_scores_csv
from mribench.reports.fields import make_table
from mribench.reports.latex import as_tex
from mribench.reports.markdown import as_markdown

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
    header = as_csv(make_table(board)).splitlines()[0].split(",")
    central = [f"FID-{view} (central)" for view in "ACS"]
    assert header[:8] == ["run", "model", "MS-SSIM (%)", "gap", "MMD (x10³)", *central]
    assert header[8:10] == ["MS-SSIM (%) low", "MS-SSIM (%) high"]
    assert header[20:22] == ["n", "notes"]
    first = read(as_csv(make_table(board)))[0]
    assert (first["run"], first["kind"], first["n"]) == ("cdpm", "model", "4 samples, 3 reference")
    assert float(first["MS-SSIM (%)"]) == pytest.approx(85)
    assert float(first["gap"]) == pytest.approx(5)
    assert float(first["MMD (x10³)"]) == pytest.approx(5)
    assert float(first["FID-A low"]) < float(first["FID-A"]) < float(first["FID-A high"])


def test_scores_csv_has_a_row_per_score_and_per_missing_score(make_entrant, make_scores):
    board = leaderboard.from_scores(
        [
            make_entrant("a", missing={"mmd_voxel": "too few"}),
            make_entrant("b", scores={}, problems=("torn",)),
        ]
    )
    rows = read(as_scores_csv(board))
    *metrics, last = [r["metric"] for r in rows if r["run"] == "a"]
    assert (metrics, last) == (list(make_scores(1.0)), "mmd_voxel")
    assert float(rows[0]["gap"]) == pytest.approx(0.1) and rows[0]["signature"].startswith("metric:ms_ssim|")
    assert rows[len(metrics)]["value"] == "" and rows[len(metrics)]["notes"] == "too few"
    assert rows[-1]["run"] == "b" and rows[-1]["notes"] == "torn"


def test_missing_and_incomparable_cells_are_explained_in_the_notes(make_entrant, make_scores):
    scores = make_scores(1.0, samples=3)
    del scores["fid_a"]
    odd = make_entrant("odd", scores=scores, missing={"fid_a": "no weights"})
    board = leaderboard.from_scores([odd, make_entrant("a"), make_entrant("b")], {"samples": 4})
    found = next(r for r in read(as_csv(make_table(board))) if r["run"] == "odd")
    assert found["FID-A"] == "" and "FID-A: no weights" in found["notes"]
    assert "MMD (x10³)" in found["notes"] and "not comparable: 3 samples instead of 4" in found["notes"]


def test_no_text_in_a_csv_begins_like_a_formula(hostile_board):
    for text in (as_csv(make_table(hostile_board)), as_scores_csv(hostile_board)):
        assert "\x1b" not in text and "\u202e" not in text
        for line in read(text):
            for key, value in line.items():
                assert value[:1] not in tuple("=+@-\t\r") or float(value) < 0, (key, value)


def test_nothing_in_a_tex_table_is_a_command_of_others(hostile_board):
    text = as_tex(make_table(hostile_board))
    for command in ("\\input", "\\write18", "\\broken"):
        assert command not in text
    assert r"\textbackslash{}input\{/etc/passwd\}\$x\$\%" in text
    structure = re.sub(r"\\\\|\\[{}]", "", text)
    assert structure.count("{") == structure.count("}")
    body = [line for line in text.splitlines() if " & " in line]
    assert all(line.replace("\\&", "").count("&") == len(hostile_board.columns) + 2 for line in body)


def test_tex_table_has_rules_bold_and_asterisks(make_entrant, make_scores):
    slab = make_entrant("slab", scores=make_scores(3.0), slab=(5, 11))
    board = leaderboard.from_scores(
        [make_entrant("a", 1.0), make_entrant("b", 2.0), slab, make_entrant("noise", kind="control")]
    )
    text = as_tex(make_table(board))
    assert text.index("\\toprule") < text.index("\na &") < text.index("\nslab") < text.index("\nnoise")
    assert text.count("\\midrule") == 3 and "\\textbf{" in text and "$^{*1}$" in text
    assert "80.00" in text[text.index("\\caption") : text.index("\\begin{tabular}")]


def test_terminal_table_is_inert_and_aligned(hostile_board):
    text = click.unstyle(leaderboard.as_text(hostile_board, wide=True))
    assert "\x1b" not in text and "\u202e" not in text
    lines = text.splitlines()
    assert {lines[0].index("FID-A") + 5} == {len(line[: lines[0].index("FID-A") + 5]) for line in lines[2:5]}
    assert "^" in text and "*[" in text


def test_a_single_entrant_is_listed_with_intervals(make_entrant, make_scores, make_score):
    scores = {**make_scores(1.0), "mmd_voxel": make_score("mmd_voxel", 0.00012, spread=1e-5)}
    text = leaderboard.as_text(
        leaderboard.from_scores([make_entrant("samples", kind="folder", scores=scores)]), wide=True
    )
    assert "Real MS-SSIM: 80.00 %" in text
    line = next(line for line in text.splitlines() if line.startswith("FID-A"))
    assert line.split()[1:] == ["10.0", "[10.0,", "10.0]"]
    assert "MMD_VOXEL" in text and "1.20e-04" in text


@pytest.fixture
def board_with_baseline(make_entrant, make_scores):
    """Two clear models, a control, and real baselines for MS-SSIM and FID-A."""
    real_baselines = {
        "ms_ssim": RealBaseline(value=0.79, low=0.785, high=0.815, n=4, how="4 held-out volumes, =1+1"),
        "fid_a": RealBaseline(value=3.25, low=2.0, high=4.5, n=4, how="4 held-out volumes, =1+1"),
    }

    def scores(quality):
        return {
            m: s.model_copy(
                update={"real_baseline": real_baselines.get(m), "p_value": 0.25 if m == "mmd" else None}
            )
            for m, s in make_scores(quality, spread=1e-5).items()
        }

    return leaderboard.from_scores(
        [
            make_entrant("a", scores=scores(1.0)),
            make_entrant("b", scores=scores(2.0)),
            make_entrant("noise", scores=scores(9.0), kind="control"),
        ]
    )


def test_the_real_baseline_stands_apart_in_every_table(board_with_baseline):
    last = read(as_csv(make_table(board_with_baseline)))[-1]
    assert (last["run"], last["kind"], last["n"]) == ("real baseline", "real_baseline", "4 samples")
    assert (last["MS-SSIM (%)"], last["MS-SSIM (%) low"], last["FID-A high"]) == ("79", "78.5", "4.5")
    assert (last["gap"], last["gap low"], last["gap high"]) == ("1", "0", "1.5")  # the target is 80
    assert (last["MMD (x10³)"], last["excess"]) == ("", "")
    tex = as_tex(make_table(board_with_baseline))
    assert tex.count("\\midrule") == 3 and tex.index("\nnoise") < tex.index("real baseline &") < tex.index(
        "bottomrule"
    )
    table = leaderboard.as_text(board_with_baseline).splitlines()
    last = next(i for i, line in enumerate(table) if line.startswith("real baseline "))
    assert table[last - 1].startswith("---") and table[last - 2].startswith("noise") and "3.25" in table[last]
    for text in (
        tex,
        leaderboard.as_text(board_with_baseline, wide=True),
        as_markdown(make_table(board_with_baseline)),
    ):
        assert "3.25" in text and "what real volumes of other subjects score" in text


def test_without_real_baselines_no_table_speaks_of_them(make_entrant):
    board = leaderboard.from_scores([make_entrant("a", 1.0), make_entrant("b", 2.0)])
    for text in (
        as_csv(make_table(board)),
        as_tex(make_table(board)),
        leaderboard.as_text(board),
        as_markdown(make_table(board)),
    ):
        assert "real_baseline" not in text


def test_scores_csv_has_real_baseline_p_value_and_letters(board_with_baseline):
    rows = {(r["run"], r["metric"]): r for r in read(as_scores_csv(board_with_baseline))}
    one = rows["b", "fid_a"]
    assert [one[key] for key in ("real_baseline", "real_baseline_low", "real_baseline_high")] == [
        "3.25",
        "2",
        "4.5",
    ]
    assert one["real_baseline_how"] == "4 held-out volumes, =1+1" and one["group"] == "b"
    assert rows["a", "mmd"]["p_value"] == "0.25" and rows["a", "mmd"]["real_baseline"] == ""
    assert rows["noise", "fid_a"]["group"] == "" and rows["a", "copy_rate"]["group"] == ""


def test_tables_carry_letters_and_odds(board_with_baseline):
    first, second, control, _ = read(as_csv(make_table(board_with_baseline)))
    assert (first["FID-A group"], second["FID-A group"], control["FID-A group"]) == ("a", "b", "")
    assert (first["P(rank 1)"], first["P(rank 2)"], second["P(rank 1)"]) == ("1", "0", "0")
    assert r"\mathrm{a}" in as_tex(make_table(board_with_baseline)) and r"100 \%" in as_tex(
        make_table(board_with_baseline)
    )
    table = click.unstyle(leaderboard.as_text(board_with_baseline, wide=True))
    assert re.search(r"^a .* 10\.0\^a .* 100 %\^ ", table, re.MULTILINE)
    assert re.search(r"^b .* 20\.0b .* 0 % ", table, re.MULTILINE)
    unwrapped = " ".join(table.split())
    assert fields._LETTERS in unwrapped and fields._CHANCE in unwrapped


def test_folder_mode_lists_real_baseline_and_p(board_with_baseline):
    board = leaderboard.from_scores([board_with_baseline.contestants[0].entrant])
    lines = leaderboard.as_text(board, wide=True).splitlines()
    assert lines[2].split()[-1] == "p" and "real baseline" in lines[2]
    fid = next(line for line in lines if line.startswith("FID-A"))
    assert fid.split()[4:] == ["3.25", "[2.00,", "4.50]"]
    assert next(line for line in lines if line.startswith("MMD")).split()[-1] == "0.25"


def rendered(board):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(as_markdown(make_table(board)))


def test_markdown_is_a_table_with_bold_letters_and_notes(board_with_baseline):
    html = rendered(board_with_baseline)
    assert html.count("<tr>") == 1 + 2 + 1 + 1
    assert "<strong>10.0" in html and "<sup>a</sup>" in html and "<em>real baseline</em>" in html
    assert "<td><strong>100 %</strong></td>" in re.sub(' style="[^"]*"', "", html)


def test_nothing_in_a_markdown_table_is_markup_of_others(hostile_board):
    entrant = hostile_board.contestants[-1].entrant
    object.__setattr__(
        entrant, "title", entrant.title + "|a|[x](http://y)![i](z)`c`*b* www.x.org &lt; @you ~~s~~"
    )
    html = rendered(hostile_board)
    assert "<script" not in html and "<a " not in html and "<img" not in html and "<code" not in html
    assert "<del>" not in html and "<s>" not in html and "<em>b" not in html
    assert "&amp;lt;" in html and "[x](http://y)" in html.replace("&quot;", '"')
    text = as_markdown(make_table(hostile_board))
    assert "http:" not in text and "www.x" not in text and "\x1b" not in text
    lines = [re.sub(r"\\.", "", line) for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(hostile_board.columns) + 4}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no TeX is installed")
def test_table_tex_compiles_with_hostile_names(hostile_board, tmp_path):
    (tmp_path / "table.tex").write_text(as_tex(make_table(hostile_board)))
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table.tex}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "page.pdf").exists()
