import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mribench.data.grid import paper_grid
from mribench.files import read_json, write_json
from mribench.reports import words
from mribench.reports.figures import central_pictures
from mribench.reports.html import duration, write_report
from mribench.reports.pictures import Gallery
from mribench.reports.records import read_cohort, read_entrant


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
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_files_and_sections(shown, shared_bench):
    path = shared_bench.bench.report / "index.html"
    tables = {"table.csv", "scores.csv", "table.tex", "table.md"}
    assert {p.name for p in path.parent.iterdir()} == {"index.html", *tables}
    _, page = shown
    sections = [section["id"] for section in page.all("section")]
    assert sections == ["leaderboard", "sheet", "samples", "tsne", "nearest", "training", "protocol"]
    assert words.SIMULATED in page.text
    assert "80.00 %" in page.text  # the real set's MS-SSIM, in the caption
    assert "counts as a copy" in page.text
    assert "sub-09" in page.text and "constant <b>volume</b>" in page.text
    assert shared_bench.bench.protocol.digest in page.text and shared_bench.cohort.digest in page.text


def test_pictures_are_there_and_described(shown):
    _, page = shown
    images = page.all("img")
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in images)
    sheet, five, pairs, panels, curves = 6 * 3, 3 * 4 * 3, 3 * 3 * 3, 4, 3
    assert len(images) == sheet + five + pairs + panels + curves


def test_page_needs_and_asks_for_nothing_else(shown):
    text, page = shown
    assert "http:" not in text and "https:" not in text and "//" not in re.sub(r"base64,[\w+/=]+", "", text)
    assert not page.all("script") and not page.all("iframe")
    targets = [tag[key] for name, tag in page.tags for key in ("src", "href") if key in tag]
    beside = {"table.csv", "scores.csv", "table.tex"}
    assert all(t.startswith(("data:", "#")) or t in beside for t in targets)
    ids = {tag["id"] for _, tag in page.tags if "id" in tag}
    assert {t[1:] for t in targets if t.startswith("#")} <= ids
    assert not any("style" in tag or any(k.startswith("on") for k in tag) for _, tag in page.tags)


def test_security_policy_allows_exactly_this_style_sheet(shown):
    text, page = shown
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (
        policy.startswith("default-src 'none'; img-src data:; ") and f"style-src 'sha256-{digest}'" in policy
    )
    assert "unsafe" not in policy and "script-src" not in policy


def test_tables_have_scoped_headers(shown):
    _, page = shown
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in page.all("th"))


def test_same_bench_same_bytes(shown, shared_bench):
    folder = shared_bench.bench.report
    first = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert write_report(shared_bench.bench) == folder / "index.html"
    assert first == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_hostile_names_are_inert(full_bench):
    run = full_bench.bench.run("ha_gan")
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e"
    write_json(
        run.record, {**read_json(run.record), "title": evil, "config": {evil: evil}, "versions": {evil: evil}}
    )
    text, page = render(full_bench)
    assert not page.all("script") and "\u202e" not in text
    assert evil.rstrip("\u202e") in page.text


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
    assert "no runs yet" in page.text and "No model has samples yet." in page.text


def test_protocol_that_rewards_copying_says_so(make_bench):
    maker = make_bench(reference_from_train=True, holdout=0)
    maker.add("cdpm")
    _, page = render(maker)
    assert words.REWARDS_COPYING in page.text
    assert "real_heldout and blurred_real: protocol trial keeps no held-out volumes" in page.text


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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.004, "0.004 s"),
        (35, "35 s"),
        (800, "13 min"),
        (3600 * 12.3, "12 h"),
        (86400 * 9.2, "9 d"),
    ],
)
def test_durations(seconds, said):
    assert duration(seconds) == said
