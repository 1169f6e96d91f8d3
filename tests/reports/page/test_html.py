import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mribench.data.grid import paper_grid
from mribench.files import read_json, write_json
from mribench.metrics.score import RealBaseline
from mribench.models.cdpm import CDPM
from mribench.reports.leaderboard import FILES, from_bench
from mribench.reports.page import html, words
from mribench.reports.page.figures import central_pictures
from mribench.reports.page.html import write_report
from mribench.reports.page.pictures import Gallery
from mribench.reports.records import read_cohort, read_entrant, read_entrants
from mribench.runtime import DeviceRecord


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def render(maker):
    text = write_report(maker.bench).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def shown(shared_bench):
    return render(shared_bench)


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))


def test_files_and_what_the_page_says(shown, shared_bench):
    path = shared_bench.bench.report / "index.html"
    tables = {"table.csv", "scores.csv", "table.tex", "table.md"}
    assert {p.name for p in path.parent.iterdir()} == {"index.html", "SHA256SUMS", *tables}
    _, page = shown
    assert words.SIMULATED in page.text
    assert "80.00 %" in page.text  # the real set's MS-SSIM, in the caption
    assert "counts as a copy" in page.text
    assert "sub-09" in page.text and "constant <b>volume</b>" in page.text
    assert shared_bench.bench.protocol.digest in page.text and shared_bench.cohort.digest in page.text


def test_pictures_are_there_and_described(shown):
    _, page = shown
    images = page.all("img")
    assert all(image["src"].startswith("data:image/webp;base64,") for image in images)
    assert all(image["alt"] for image in images if "hidden" not in image)
    sheet, five, pairs, panels, curves, profiles, intervals = 6 * 3, 3 * 4 * 3, 3 * 3 * 3, 4, 3, 5, 12
    shown = sheet + five + pairs + panels + curves + profiles + intervals
    assert sum("hidden" not in image for image in images) == shown
    assert sum("hidden" in image for image in images) == 2 + 3 * 2 + 2  # reference, models, controls


def test_page_needs_and_asks_for_nothing_else(shown):
    text, page = shown
    assert "http:" not in text and "https:" not in text
    assert not page.all("iframe") and page.all("link") == [{"rel": "icon", "href": "data:,"}]
    targets = [tag[key] for name, tag in page.tags for key in ("src", "href") if key in tag]
    beside = set(FILES)
    assert all(t.startswith(("data:", "#")) or t in beside for t in targets)
    ids = {tag["id"] for _, tag in page.tags if "id" in tag}
    assert {t[1:] for t in targets if t.startswith("#")} <= ids
    assert not any("style" in tag or any(k.startswith("on") for k in tag) for _, tag in page.tags)


def test_security_policy_allows_exactly_this_style_sheet_and_these_scripts(shown):
    text, page = shown
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    (style,) = digests(text, "style")
    scripts = digests(text, "script")
    assert len(scripts) == 2
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert f"style-src '{style}'; script-src '{scripts[0]}' '{scripts[1]}'; " in policy
    assert "unsafe" not in policy


def digests(text, tag):
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return ["sha256-" + base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in contents]


def test_tables_have_scoped_headers(shown):
    _, page = shown
    assert all(th.get("scope") in ("col", "colgroup", "row", "rowgroup") for th in page.all("th"))


def test_same_bench_same_bytes(shown, shared_bench):
    folder = shared_bench.bench.report
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert write_report(shared_bench.bench) == folder / "index.html"
    assert first == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_unreadable_runs_have_a_row_and_the_rest_of_the_page(full_bench):
    full_bench.bench.run("ha_gan").record.unlink()
    full_bench.bench.run("cdpm").samples_record.unlink()
    full_bench.bench.run("noise").scores.write_text("{", encoding="utf-8")
    (full_bench.bench.run("real_heldout").samples_folder / "000000.nii.gz").write_bytes(b"broken")
    full_bench.bench.embedding.unlink()
    text, page = render(full_bench)
    for name in ("ha_gan", "cdpm", "noise", "real_heldout"):
        assert name in page.text
    assert "no run.json" in page.text and "mribench generate cdpm" in page.text
    assert "real_heldout/samples/000000.nii.gz must be" in page.text
    assert "embedding/tsne.csv must be" in page.text
    assert str(full_bench.bench.folder) not in text


def test_pairs_that_no_longer_fit_are_not_shown(full_bench):
    cohort = read_cohort(full_bench.bench)[0]
    gallery = Gallery(full_bench.bench, cohort)
    path = full_bench.bench.run("cdpm").nearest
    record = read_json(path)
    for wrong in ({"neighbour_index": 99}, {"neighbour_index": 1}, {"sample": "other.nii.gz"}):
        write_json(path, {**record, "pairs": [{**record["pairs"][0], **wrong}]})
        entrant = read_entrant(full_bench.bench, full_bench.bench.run("cdpm"), cohort)
        (group,) = gallery.neighbours([entrant])
        assert not group.pairs and "mribench evaluate cdpm" in group.problem


def test_missing_cohort_is_said(full_bench):
    (full_bench.bench.cohort_folder / "volumes.json").unlink()
    _, page = render(full_bench)
    assert "The cohort cannot be read" in page.text


def test_empty_bench_has_a_page(make_bench):
    _, page = render(make_bench())
    assert "no runs yet" in page.text and "No entrant yet." in page.text


def test_protocol_that_rewards_copying_says_so(make_bench):
    maker = make_bench(reference_from_train=True, holdout=0)
    maker.add("cdpm")
    _, page = render(maker)
    assert words.REWARDS_COPYING in page.text
    assert "real_heldout and blurred_real: protocol trial has no held-out volumes" in page.text


@pytest.mark.parametrize(("protocol", "there"), [("peng2023-simulated", True), ("trial", False)])
def test_published_table_stands_apart_under_the_papers_protocols(make_bench, protocol, there):
    maker = make_bench(protocol=protocol)
    maker.add("cdpm")
    text, page = render(maker)
    assert ("Published, not comparable: other data" in page.text) == there
    if there:
        rows = re.search(r'<table class="published">(.*?)</table>', text, re.S).group(1)
        cells = [re.findall(r"<t[hd][^>]*>([^<]*)</t", row) for row in rows.split("<tr>")[2:]]
        assert cells[0] == ["3D-VAE-GAN", "88.3", "9.1", "5.15", "320", "247", "398"]
        assert cells[-1] == ["cDPM", "78.6", "0.6", "3.14", "32.4", "45.8", "91.1"]
        assert [row[2] for row in cells] == ["9.1", "1.8", "3.4", "2.3", "42.4", "0.5*", "0.6"]
        assert text.index('class="published"') > text.index('class="wide board sortable"')


def test_letters_and_chances_are_shown_where_the_board_has_them(shared_bench):
    cohort, _ = read_cohort(shared_bench.bench)
    board = from_bench(shared_bench.bench, cohort, read_entrants(shared_bench.bench, cohort))
    rows = []
    for row, chances in zip(board.contestants, [(0.7, 0.3), (0.3, 0.7), ()], strict=True):
        cells = tuple(replace(cell, group="ab" if cell.comparable else "") for cell in row.cells)
        rows.append(replace(row, cells=cells, chances=chances))
    text = html.render(shared_bench.bench, cohort, replace(board, contestants=tuple(rows)))
    page = Page(text)
    assert board.headline.startswith(("Winner among 2", "No winner among 2")) and board.headline in page.text
    assert len(re.findall('class="letters"[^>]*>ab<', text)) == 2 * 13 + 1  # 3D-DPM: FID-A (central) only
    heat = re.search(r'<table class="heat">(.*?)</table>', text, re.S).group(1)
    assert re.findall(r'class="shade-(\d+)">(\d+) %', heat) == [
        ("7", "70"),
        ("3", "30"),
        ("3", "30"),
        ("7", "70"),
    ]
    assert "3D-DPM" not in heat


def test_page_has_the_real_baseline_row_between_models_and_controls(make_bench, make_scores):
    maker = make_bench()
    real_baseline = RealBaseline(value=0.75, low=0.7, high=0.8, n=4, how="3 held-out volumes")
    scores = {m: s.model_copy(update={"real_baseline": real_baseline}) for m, s in make_scores(1.0).items()}
    maker.add("cdpm", scores=scores)
    maker.add("noise", 9, kind="control")
    text, _ = render(maker)
    table = text[text.index('<table class="wide board') :]
    table = table[: table.index("</table>")]
    assert table.index("CDPM") < table.index("Real volumes of other subjects") < table.index("Uniform noise")
    assert "real baseline, same n: 3 held-out volumes" in table
    assert table.count(">0.750") == 3 + 3 + 1 + 1  # FID per view, that of central slices, seams, anatomy


def test_companions_have_their_real_baseline_below(make_bench, make_scores, make_score):
    maker = make_bench()
    real_baseline = RealBaseline(value=0.3, low=0.25, high=0.35, n=4, how="x")
    maker.add(
        "cdpm", scores={**make_scores(1.0), "kid_a": make_score("kid_a", 0.5, real_baseline=real_baseline)}
    )
    text, _ = render(maker)
    table = text[text.index('id="h-companions"') :]
    row = re.search(r'<tbody class="baseline">(.*?)</tbody>', table, re.S).group(1)
    assert re.findall(r">([^<>\n]+)<", row) == ["Real volumes of other subjects", "0.300", "[0.250, 0.350]"]


def test_mirrored_neighbours_are_drawn_mirrored_and_say_so(full_bench):
    path = full_bench.bench.run("cdpm").nearest
    record = read_json(path)
    found = []
    for mirrored in (False, True):
        write_json(path, {**record, "pairs": [{**record["pairs"][0], "mirrored": mirrored}]})
        cohort = read_cohort(full_bench.bench)[0]
        entrant = read_entrant(full_bench.bench, full_bench.bench.run("cdpm"), cohort)
        (group,) = Gallery(full_bench.bench, cohort).neighbours([entrant])
        found.append(group.pairs[0])
    plain, mirrored = found
    assert mirrored.strips[1].title == f"{plain.strips[1].title}, mirrored left to right"
    np.testing.assert_array_equal(
        pixels(mirrored.strips[1].pictures[0].uri), pixels(plain.strips[1].pictures[0].uri)[:, ::-1]
    )
    assert mirrored.strips[2].pictures[0].uri != plain.strips[2].pictures[0].uri


def test_cards_say_what_was_trained_on_what_and_at_which_cost(shown):
    text, page = shown
    card = re.search(r'<section class="part card" id="cdpm/card">.*?</section>', text, re.S).group(0)
    card = Page(card).text
    for said in (
        CDPM.card(), "4 simulated volumes (train)", "16 volumes seen", "1,234 parameters",
        "0.500 s per volume", words.LICENCES["simulated"], CDPM.limits, words.NO_CLINICAL_USE,
        "metric:memorisation|extractor:a|n:4", "size: 16",
    ):  # fmt: skip
        assert said in card
    assert str(DeviceRecord(device="cpu", threads=1)) == "cpu, 1 thread"
    assert page.text.count(words.NO_CLINICAL_USE) == 1 + text.count('<section class="part card')


def test_views_are_oriented_and_in_true_proportion():
    grid = paper_grid(32)  # voxels of 5.5 x 5.5 x 4 mm
    marked = np.zeros(grid.shape, np.float32)
    marked[16, -1, 0] = marked[-1, 16, 0] = marked[-1, -1, 16] = 1  # front left, top left, top front
    axial, coronal, sagittal = (pixels(p.uri) for p in central_pictures(marked, grid, None, 1.0, "x"))
    assert [p.shape for p in (axial, coronal, sagittal)] == [(176, 176), (128, 176), (128, 176)]
    assert axial[0, 0] == 255 and axial[-1].max() == 0
    assert coronal[0, 0] == 255 and coronal[-1].max() == 0
    assert sagittal[0, -1] == 255 and sagittal[-1].max() == 0


def test_window_is_fixed_and_absent_slices_are_grey():
    grid = paper_grid(32)
    half = np.full((8, 32, 32), 0.25, np.float32)
    axial, coronal, _ = (pixels(p.uri) for p in central_pictures(half, grid, (12, 20), 2.0, "x"))
    assert np.unique(axial).tolist() == [64]
    assert coronal[0, 0] == 128 and coronal[coronal.shape[0] // 2, 0] == 64
