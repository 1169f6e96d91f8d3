"""The file that travels: its bytes, and what is refused."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mribench.bench import bundles
from mribench.bench.bundles import read_bundle, write_bundle
from mribench.errors import MribenchError
from mribench.reports.export import bundle_of


def test_the_same_bench_gives_the_same_bytes(laboratories, travelled, tmp_path):
    write_bundle(tmp_path / "again.zip", bundle_of(laboratories[0]))
    assert (tmp_path / "again.zip").read_bytes() == travelled[0].read_bytes()
    write_bundle(tmp_path / "read.zip", read_bundle(travelled[0]))
    assert (tmp_path / "read.zip").read_bytes() == travelled[0].read_bytes()


def test_any_flipped_bit_is_refused(travelled, tmp_path):
    content, damaged = travelled[0].read_bytes(), tmp_path / "damaged.zip"
    start = content.index(b"pictures/") - 64  # around here lie the headers between the members
    rng = np.random.default_rng(0)
    places = {*range(64), *range(start, start + 160), *range(len(content) - 300, len(content))}
    places |= set(rng.integers(len(content), size=150).tolist())
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(flipped)
        with pytest.raises(MribenchError, match=r"damaged\.zip"):
            read_bundle(damaged)


@pytest.mark.parametrize("cut", [0, 1, 30, 1000, -1, -22])
def test_a_bundle_that_is_cut_off_or_grown_is_refused(travelled, tmp_path, cut):
    content = travelled[0].read_bytes()
    for number, changed in enumerate((content[:cut], content + b"more", b"more" + content)):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(changed)
        with pytest.raises(MribenchError, match="undamaged bundle"):
            read_bundle(path)


def _set(*keys, to):
    def change(value):
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to(value[keys[-1]]) if callable(to) else to

    return change


SCORE = ("entrants", 0, "scores", 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_set(*SCORE, "value", to="much"), "entrants.0.scores.0.value"),
        (_set(*SCORE, "low", to=9.0), r"scores\.ms_ssim\.low"),
        (_set(*SCORE, "value", to=1e300), r"scores\.ms_ssim\.value"),
        (_set(*SCORE, "n", "samples", to=10**15), r"scores\.ms_ssim\.n"),
        (_set(*SCORE, "replicates", "reference", to=lambda r: r[:-1]), r"scores\.ms_ssim\.replicates\.reference"),
        (_set(*SCORE, "digests", to={}), r"scores\.ms_ssim\.digests"),
        (_set(*SCORE, "digests", "samples", to="other"), r"scores\.\*\.digests\.samples"),
        (_set(*SCORE, "display", "digits", to=10**9), "display.digits"),
        (_set("entrants", 0, "samples", "files", 0, "digest", to="other"), "samples.files"),
        (_set("entrants", 0, "samples", "files", 0, "name", to="../../x"), "files must lie in samples"),
        (_set("entrants", 0, "name", to="../escape"), "name: '../escape' is no name"),
        (_set("entrants", to=lambda e: [*e, e[0]]), "entrants: ours stands there twice"),
        (_set("protocol", "seed", to=2), "protocol_digest"),
        (_set("cohort", "sets", to={}), "cohort.sets"),
        (_set("files", "pictures/other/axial.png", to="00"), "files: 'pictures/other/axial.png' belongs to no"),
        (_set("files", to={}), r"files\.pictures"),
        (_set("schema", to="mribench/bundle/2"), "pip install --upgrade"),
        (_set("versions", to=3), "versions"),
    ],
)  # fmt: skip
def test_an_impossible_field_is_named(travelled, rewritten, tmp_path, change, field):
    with pytest.raises(MribenchError, match=field):
        read_bundle(rewritten(travelled[0], change, tmp_path / "x.zip"))


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_names_that_escape_bombs_and_doubles_are_refused_before_they_are_read(tmp_path):
    stored, deflated = {"compression": zipfile.ZIP_STORED}, {"compression": zipfile.ZIP_DEFLATED}
    bundle = ("bundle.json", b"{}")
    for members, options, message in (
        ([bundle, ("../../x.png", b"")], stored, "member '../../x.png'"),
        ([bundle, ("/etc/passwd", b"")], stored, "member '/etc/passwd'"),
        ([bundle, ("pictures/a/axial.svg", b"")], stored, "axial.svg"),
        ([("bundle.json", b"0" * 10_000_000)], deflated, "not compressed"),
        ([("other.json", b"{}")], stored, "bundle.json must be there"),
        ([bundle, *((f"pictures/a{i}/axial.png", b"") for i in range(30_000))], stored, "more than 4096"),
        ([("bundle.json", b"[" * 100_000)], stored, "no JSON object"),
        ([bundle], stored, "sha256"),
    ):
        with pytest.raises(MribenchError, match=message):
            read_bundle(zipped(tmp_path / "x.zip", members, **options))
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(tmp_path / "x.zip", [bundle, bundle])
    with pytest.raises(MribenchError, match="no name twice"):
        read_bundle(tmp_path / "x.zip")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "MOST_BYTES", 1000)
    (tmp_path / "x.zip").write_bytes(b"0" * 1001)
    with pytest.raises(MribenchError, match="more than 1000 bytes"):
        read_bundle(tmp_path / "x.zip")


def test_a_picture_that_is_none_is_refused(travelled, tmp_path):
    bundle = read_bundle(travelled[0])
    for levels in (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 3000), np.uint8)):
        write_bundle(tmp_path / "x.zip", replace(bundle, pictures={"pictures/ours/axial.png": levels}))
        with pytest.raises(MribenchError, match=r"pictures/ours/axial\.png.*grey"):
            read_bundle(tmp_path / "x.zip")


def test_pictures_of_a_stranger_are_encoded_anew(travelled, tmp_path):
    """What follows the picture inside its file does not reach the page."""
    bundle = read_bundle(travelled[0])
    levels = next(iter(bundle.pictures.values()))
    file = io.BytesIO()
    text = PngInfo()
    text.add_text("Comment", "hidden message")
    Image.fromarray(levels).save(file, "png", pnginfo=text)
    assert b"hidden" in file.getvalue()
    again = bundles._levels(file.getvalue(), "x.png", tmp_path)
    assert np.array_equal(again, levels)
