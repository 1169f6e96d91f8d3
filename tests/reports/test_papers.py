"""Figures for papers: vector files with captions, the same bytes every time, names that are only text."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from click.testing import CliRunner

from mribench.bench.verification import verify
from mribench.cli import main
from mribench.files import differing
from mribench.reports import leaderboard, papers
from mribench.reports.discretion import shows_people
from mribench.reports.fields import make_table
from mribench.reports.latex import as_table_1
from mribench.reports.page.html import write_report
from mribench.reports.records import read_cohort, read_entrants
from mribench.runtime import no_progress

NAMES = {f"{name}.{form}" for name in ("sheet", "intervals", "tsne") for form in ("svg", "pdf", "txt")}
HOSTILE = "evil <script>alert(1)</script> & $x^2$ --> \\input{a}"


def write(bench):
    cohort, _ = read_cohort(bench)
    papers.write_figures(bench, cohort, leaderboard.build(bench))
    return {path.name: path.read_bytes() for path in bench.figures.iterdir()}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, shared_bench):
    """A copy of the shared bench with a hostile title, and its files."""
    folder = tmp_path_factory.mktemp("papers") / "bench"
    shutil.copytree(shared_bench.bench.folder, folder, ignore=shutil.ignore_patterns("report"))
    maker = type(shared_bench).__new__(type(shared_bench))
    maker.__dict__.update(shared_bench.__dict__)
    maker.bench = type(shared_bench.bench)(folder, shared_bench.bench.protocol, shared_bench.bench.packages)
    maker.add("evil", 0.7, title=HOSTILE)
    return maker.bench, write(maker.bench)


def test_every_figure_has_two_vector_forms_a_caption_and_a_citation(hostile):
    bench, files = hostile
    assert set(files) == NAMES | {"table-1.tex", "SHA256SUMS"} and differing(bench.figures) == []
    for name in NAMES:
        if name.endswith(".txt"):
            caption, citation, rest = files[name].decode().split("\n")
            assert rest == "" and "SIMULATED" in caption and "3 reference" not in citation
            assert re.search(
                r"mribench \S+ .*CITATION.cff.* protocol trial version 1, digest [0-9a-f]{12}, cohort ",
                citation,
            )
        elif name.endswith(".pdf"):
            assert files[name].startswith(b"%PDF-") and b"/Type3" not in files[name]
        else:
            root = ElementTree.fromstring(files[name])
            assert root.tag.endswith("}svg") and float(root.get("width").removesuffix("pt")) <= 7.21 * 72


def test_the_bytes_are_the_same_again_and_hold_no_date(hostile):
    bench, files = hostile
    assert write(bench) == files
    for name, content in files.items():
        assert not re.search(rb"CreationDate|<dc:date>|Matplotlib v", content), name


def test_a_name_is_never_markup_or_a_command(hostile):
    _, files = hostile
    for name in ("sheet.svg", "intervals.svg", "tsne.svg"):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(files[name]).iter()}
        assert tags.isdisjoint({"script", "foreignObject", "a", "text"})
        assert b"<script" not in files[name]
        links = re.findall(rb'href="([^"#]{0,20})', files[name])
        assert {link for link in links if link} <= {b"data:image/png;base64"[:20]}
    assert (
        "\\input{a}" not in files["table-1.tex"].decode()
        and "\\textless{}script" in files["table-1.tex"].decode()
    )


def test_the_sheet_shows_the_reference_and_every_entrant(hostile, shared_bench):
    bench, files = hostile
    pictures = len(re.findall(rb"<image ", files["sheet.svg"]))
    assert pictures == 1 + len(read_entrants(bench, read_cohort(bench)[0]))


def test_what_cannot_be_read_is_said_in_the_sheet(full_bench):
    bench = full_bench.bench
    before = len(re.findall(rb"<image ", write(bench)["sheet.svg"]))
    for file in bench.run("cdpm").samples_folder.glob("*.nii.gz"):
        file.write_bytes(b"torn")
    bench.embedding.unlink()
    files = write(bench)
    assert len(re.findall(rb"<image ", files["sheet.svg"])) == before - 1
    assert not {name for name in files if name.startswith("tsne")}


def test_a_report_hides_real_volumes_in_figures_too_and_removes_outdated_ones(full_bench):
    bench = full_bench.bench
    write_report(bench, real_pictures=False, figures=True)
    shown = [e for e in read_entrants(bench, read_cohort(bench)[0]) if not shows_people(e, "")]
    assert len(re.findall(rb"<image ", (bench.figures / "sheet.svg").read_bytes())) == len(shown) == 1
    (bench.figures / "mine.txt").write_text("mine")
    write_report(bench)
    assert [path.name for path in bench.figures.iterdir()] == ["mine.txt"]


def test_damaged_figures_are_noticed_and_none_is_a_stranger(hostile):
    bench, files = hostile
    assert not [name for name in verify(bench, no_progress).strangers if "figures" in name]
    (bench.figures / "sheet.pdf").write_bytes(b"torn")
    damages = verify(bench, no_progress).damages
    (bench.figures / "sheet.pdf").write_bytes(files["sheet.pdf"])
    assert [(d.path.name, d.remedy) for d in damages if d.path.parent == bench.figures] == [
        ("sheet.pdf", "report")
    ]


def test_table_1_has_the_papers_form(make_entrant, make_scores):
    slab = make_entrant("slab", scores=make_scores(3.0), slab=(5, 11))
    board = leaderboard.from_scores(
        [make_entrant("a", 1.0), make_entrant("b_c", 2.0), slab, make_entrant("noise", kind="control")]
    )
    lines = as_table_1(make_table(board), "Made with X_Y.").splitlines()
    heading = next(line for line in lines if "MS-SSIM (\\%) &" in line)
    assert [part.strip(" \\") for part in heading.split("&")] == [
        "", "MS-SSIM (\\%)", "MMD (x10$^3$)", "FID-A (central)", "FID-C (central)", "FID-S (central)",
    ]  # fmt: skip
    assert any(line.startswith(r"a & \textbf{\boldmath 90.00 (10.00)} & \textbf{") for line in lines)
    assert any(line.startswith(r"b\_c & 100.00 (20.00) & 20") for line in lines)
    assert any(line.startswith("slab & ") and line.count("$^{*}$") >= 3 for line in lines)
    assert not any("noise" in line for line in lines) and any("X\\_Y" in line for line in lines)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no TeX is installed")
def test_table_1_compiles_with_hostile_names(hostile, tmp_path):
    (tmp_path / "table.tex").write_bytes(hostile[1]["table-1.tex"])
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table.tex}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60).returncode == 0


def test_the_command_offers_them():
    assert "--figures" in CliRunner().invoke(main, ["report", "--help"]).output
