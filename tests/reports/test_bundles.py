"""Bundles: what travels, what does not, what is refused, and that paired tests survive the journey."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mribench.bench import bundles
from mribench.bench.bundles import REFERENCE, read_bundle, write_bundle
from mribench.bench.folder import create_bench, open_bench
from mribench.bench.protocol import Protocol
from mribench.bench.records import ScoresRecord
from mribench.cli import main
from mribench.data.cohort import open_cohort
from mribench.data.grid import paper_grid, quantise
from mribench.data.nifti import write_nifti
from mribench.errors import MribenchError
from mribench.evaluation import evaluate_run
from mribench.files import digest_json, digest_volume, read_json, write_array, write_json
from mribench.generation import add_folder
from mribench.metrics.gates.result import GateResult, Suspect
from mribench.metrics.statistics.comparison import p_value
from mribench.reports.comparison import compare
from mribench.reports.discretion import WITHHELD, NameRemover
from mribench.reports.export import bundle_of
from mribench.reports.joint import check_contradictions
from mribench.reports.page.html import write_report
from mribench.runtime import make_context

METRICS = ("ms_ssim", "mmd_voxel", "memorisation")
SIZE = 16


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def blob(seed):
    rng = np.random.default_rng(seed)
    d, h, w = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 3, indexing="ij")
    radius = (d / 0.9) ** 2 + (h / 0.7) ** 2 + (w / rng.uniform(0.4, 0.6)) ** 2
    return np.clip((1.2 - radius) * 0.7 + 0.05 * rng.random(d.shape), 0, 1).astype(np.float32)


def laboratory(folder, volumes, train_seed, entrants):
    """A bench on prepared volumes whose reference is the same everywhere, and whose train volumes are its own."""
    protocol = Protocol(
        name="shared",
        version=1,
        seed=1,
        cohort={"source": "prepared", "size": SIZE, "train": 6, "reference": 6, "holdout": 6},
        evaluation={"samples": 5, "tsne_samples": 4, "metrics": METRICS},
    )
    bench, grid = create_bench(folder, protocol), paper_grid(SIZE)
    entries = []
    for role, first in (("train", train_seed), ("reference", 0), ("holdout", 50)):
        for i in range(6):
            name, voxels = f"sub-{role}-{first + i:03d}", quantise(blob(first + i))
            write_array(bench.cohort_folder / "volumes" / f"{name}.npy", voxels)
            digest = digest_volume(voxels, grid.affine)
            entries.append({"name": name, "roles": [role], "digest": digest, "record": {}})
    record = {
        "source": "prepared", "recipe": {}, "recipe_digest": "r", "protocol_digest": protocol.digest,
        "grid": grid.model_dump(mode="json"), "volumes": entries, "digest": digest_json(entries),
        "problems": [{"name": "sub-refused-1", "reason": "same subject as sub-train-100"}],
    }  # fmt: skip
    write_json(bench.cohort_folder / "volumes.json", record)
    cohort, context = open_cohort(bench.cohort_folder), make_context("cpu")
    for name, seed in entrants.items():
        source = volumes / name
        for i in range(5):
            write_nifti(source / f"v{i}.nii.gz", blob(seed + i) ** (1 + seed / 5000), grid.affine)
        add_folder(bench, name, source, None, context)
        evaluate_run(bench, cohort, bench.run(name), context)
    return open_bench(folder)


@pytest.fixture(scope="module")
def laboratories(tmp_path_factory):
    """Two benches with an entrant each on different cohorts with one reference, and the bench that has both."""
    room = tmp_path_factory.mktemp("laboratories")
    first = laboratory(room / "a", room / "v", 100, {"ours": 1000})
    second = laboratory(room / "b", room / "v", 200, {"theirs": 2000})
    joint = laboratory(room / "joint", room / "v", 100, {"ours": 1000, "theirs": 2000})
    return first, second, joint


@pytest.fixture(scope="module")
def travelled(laboratories, tmp_path_factory):
    """The bundles of the two benches, as files."""
    paths = [tmp_path_factory.mktemp("bundles") / f"{name}.zip" for name in ("a", "b")]
    for bench, path in zip(laboratories, paths, strict=False):
        write_bundle(path, bundle_of(bench))
    return paths


def test_paired_tests_from_bundles_alone_are_those_of_the_joint_bench(laboratories, travelled):
    first, second, joint = laboratories
    assert open_cohort(first.cohort_folder).digest != open_cohort(second.cohort_folder).digest
    scores = [
        {score.metric: score for score in ScoresRecord.read(joint.run(name).scores).scores}
        for name in ("ours", "theirs")
    ]
    comparison = compare([read_bundle(path) for path in travelled])
    assert {test.metric for test in comparison.tests} == {"ms_ssim", "mmd_voxel"}
    for test in comparison.tests:
        expected = p_value(*(each[test.metric] for each in scores))
        assert (test.first, test.second) == ("ours", "theirs")
        assert test.p == pytest.approx(expected, rel=1e-9, abs=1e-9) and 0 < test.p <= 1
        assert test.p_holm == pytest.approx(test.p)  # one pair


def test_the_journey_costs_no_bit_of_a_score(laboratories, travelled):
    record = ScoresRecord.read(laboratories[0].run("ours").scores)
    assert read_bundle(travelled[0]).record.entrants[0].scores == record.scores


def test_scores_that_use_other_training_volumes_are_not_compared_and_it_is_said_why(travelled):
    comparison = compare([read_bundle(path) for path in travelled])
    apart = [group for group in comparison.groups if group.why_apart]
    assert {group.metric for group in apart} == {"memorisation"}
    assert "other train volumes" in apart[0].why_apart
    unequal = {aspect.title for aspect in comparison.aspects if not aspect.equal}
    assert unequal == {"train volumes"}


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


def rewritten(path, change, out):
    """A bundle with another bundle.json whose digest is right again, as a forger would write it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    value = json.loads(members["bundle.json"])
    change(value)
    value["sha256"] = digest_json({k: v for k, v in value.items() if k != "sha256"})
    members["bundle.json"] = (json.dumps(value, indent=1) + "\n").encode()
    out.write_bytes(bundles._zipped(members))
    return out


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
def test_an_impossible_field_is_named(travelled, tmp_path, change, field):
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


def changed(bundle, **update):
    """A bundle whose first entrant has another first score."""
    entrant = bundle.record.entrants[0]
    scores = (entrant.scores[0].model_copy(update=update), *entrant.scores[1:])
    entrants = (entrant.model_copy(update={"scores": scores}), *bundle.record.entrants[1:])
    return replace(bundle, label="liar", record=bundle.record.model_copy(update={"entrants": entrants}))


def test_two_bundles_that_claim_other_scores_of_the_same_samples_are_refused(travelled):
    bundle = read_bundle(travelled[0])
    score = bundle.record.entrants[0].scores[0]
    with pytest.raises(MribenchError, match=r"a \(ours\) and liar \(ours\).*scores\.ms_ssim\.value is"):
        check_contradictions([bundle, changed(bundle, value=score.value + (score.high - score.low))])
    check_contradictions([bundle, changed(bundle, value=score.value + 1e-4 * (score.high - score.low))])
    check_contradictions([bundle, changed(bundle, value=0.0, version="other")])  # of another definition


def test_scores_that_cannot_be_of_one_definition_are_refused_and_not_compared(travelled):
    bundle = read_bundle(travelled[0])
    replicates = {"samples": bundle.record.entrants[0].scores[0].replicates["samples"]}
    for update, field in (({"replicates": replicates}, "replicates"), ({"better": "lower"}, "better")):
        with pytest.raises(
            MribenchError, match=rf"scores\.ms_ssim\.{field} is .* in a \(ours\) and .* in liar"
        ):
            compare([bundle, changed(bundle, **update)])


def test_what_changed_between_two_reports_is_said(travelled):
    bundle = read_bundle(travelled[0])
    assert compare([bundle, replace(bundle, label="later")]).changes == ()
    digests = {**bundle.record.entrants[0].scores[0].digests, "samples": "new"}
    entrant = bundle.record.entrants[0]
    scores = tuple(s.model_copy(update={"value": 0.5, "digests": digests}) for s in entrant.scores[:1])
    files = entrant.samples.model_copy(update={"files": ()})
    later = entrant.model_copy(update={"scores": scores, "samples": files})
    extra = entrant.model_copy(update={"name": "more"})
    record = bundle.record.model_copy(update={"entrants": (later, extra)})
    changes = {
        (c.subject, c.what): c for c in compare([bundle, replace(bundle, label="b", record=record)]).changes
    }
    assert ("ours", "MS-SSIM") in changes and changes["ours", "samples"].after == "new"
    assert changes["more", "entrant"].before == "absent"
    assert changes["ours", "memorisation"].after == "absent"


def names_in(bench):
    record = open_cohort(bench.cohort_folder).record
    return {volume.name for volume in (*record.volumes, *record.problems)}


@pytest.fixture
def indiscreet(laboratories, tmp_path):
    """A bench whose every sentence names a real volume, and an entrant that a gate takes for a copy."""
    shutil.copytree(laboratories[2].folder, tmp_path / "bench")
    bench = open_bench(tmp_path / "bench")
    for run in bench.runs():
        record = ScoresRecord.read(run.scores)
        name = "sub-train-101"
        suspect = Suspect(sample="000003.nii.gz", sample_index=3, source="train", match=name, match_index=1)
        gates = tuple(
            GateResult(
                gate=gate, title=gate, passed=False if run.name == "theirs" else None, level=0.1,
                reason=f"see /home/alice/scans/x.nii and {name}.npy", suspects=(suspect,),
            )
            for gate in ("copies", "identical")
        )  # fmt: skip
        scores = tuple(
            s.model_copy(update={"notes": (f"cohort/volumes/{name}.npy is odd",)}) for s in record.scores
        )
        missing = ({"metric": "fid_a", "reason": f"'{name}' failed"},)
        record.model_copy(update={"gates": gates, "scores": scores}).write(run.scores)
        value = read_json(run.scores)
        value.pop("sha256")
        write_json(run.scores, {**value, "missing": missing})
    return bench


def test_no_name_of_a_real_volume_and_no_path_travels(indiscreet, tmp_path):
    write_bundle(tmp_path / "x.zip", bundle_of(indiscreet))
    content = (tmp_path / "x.zip").read_bytes()
    assert not [name for name in names_in(indiscreet) if name.encode() in content]
    assert b"alice" not in content and b"(a real volume)" in content
    gate = read_bundle(tmp_path / "x.zip").record.entrants[0].gates[0]
    assert (gate.suspects[0].sample_index, gate.suspects[0].match, gate.suspects[0].match_index) == (
        3,
        "",
        None,
    )


def test_pictures_of_real_volumes_and_of_copies_travel_only_on_request(indiscreet):
    assert {name.split("/")[1] for name in bundle_of(indiscreet).pictures} == {"ours"}
    shown = {name.split("/")[1] for name in bundle_of(indiscreet, real_pictures=True).pictures}
    assert shown == {"ours", "theirs", REFERENCE}


def test_a_bench_with_a_torn_score_is_not_exported(indiscreet):
    path = indiscreet.run("ours").scores
    value = read_json(path)
    value["scores"][0]["replicates"]["samples"].pop()
    write_json(path, value)
    end = call("export", "--bench", indiscreet.folder)
    assert end.exit_code == 1 and "scores.ms_ssim.replicates.samples" in end.output
    assert "evaluate ours --overwrite" in end.output


def test_short_and_spaced_names_are_found_and_words_are_kept():
    class Fake:
        class record:
            volumes = [type("V", (), {"name": n, "record": {}}) for n in ("s1", "Ann Lee", "IXI002-Guys")]
            problems = ()

    clean = NameRemover(Fake)
    assert clean("volume s1, not s12, of Ann Lee: 'x/IXI002-Guys.nii' and/or 0.5") == (
        "volume (a real volume) not s12, of (a real volume): '(a real volume)' and/or 0.5"
    )


def test_the_report_without_real_pictures_shows_and_names_nobody(full_bench):
    names = [volume.name for volume in full_bench.cohort.record.volumes[2:]]  # v0 and v1 are versions, too
    for run in full_bench.bench.runs():
        value = read_json(run.scores)
        copies = {"gate": "copies", "title": "Copies", "passed": True, "reason": "none", "level": 0.1}
        write_json(run.scores, {**value, "gates": [copies]})
    with_people = write_report(full_bench.bench).read_text()
    page = write_report(full_bench.bench, real_pictures=False).read_text()
    assert named_in(with_people, [*names, "sub-09"]) == {"v2", "sub-09"}
    assert WITHHELD in page and not named_in(page, [*names, "sub-09"])
    noise = uris(with_people, "noise ")
    assert noise and set(noise) <= set(uris(page, "noise "))
    assert uris(with_people, "real_heldout ") and not uris(page, "real_heldout ")
    assert uris(with_people, "Reference") and not uris(page, "Reference")


def named_in(page, names):
    """The names that stand in the text of a page, as words."""
    text = re.sub(r"data:[^\"]+|<script>.*?</script>", "", page, flags=re.DOTALL)
    return {name for name in names if re.search(rf"(?<![\w-]){name}(?![\w-])", text)}


def uris(page, alt):
    """Pictures of the page whose alternative text begins like this."""
    return re.findall(rf'src="(data:image/[^"]+)"[^>]* alt="{alt}', page)


def test_commands_write_bundle_page_and_site(laboratories, travelled, tmp_path):
    first, second, _ = laboratories
    end = call("export", "--bench", first.folder, "--out", tmp_path / "in" / "a.zip")
    assert end.exit_code == 0, end.output
    shutil.copy(travelled[1], tmp_path / "in" / "b.zip")
    end = call("compare", tmp_path / "in" / "a.zip", second.folder, "--out", tmp_path / "c.html", "--json")
    assert end.exit_code == 0, end.output
    assert json.loads(end.stdout)["tests"] and "Paired tests" in (tmp_path / "c.html").read_text()
    end = call("leaderboard", tmp_path / "in", "--out", tmp_path / "site")
    assert end.exit_code == 0, end.output
    page = (tmp_path / "site" / "index.html").read_text()
    assert "ours" in page and "theirs" in page and "<script" not in page and "://" not in page
    (tmp_path / "in" / "c.zip").write_bytes(b"nothing")
    end = call("leaderboard", tmp_path / "in", "--out", tmp_path / "site")
    assert end.exit_code == 1 and "c.zip" in end.output and "Traceback" not in end.output


def test_several_references_give_a_page_each(travelled, tmp_path):
    bundle = read_bundle(travelled[0])
    sets = {**bundle.record.cohort.sets}
    sets["reference"] = sets["reference"].model_copy(update={"digest": "0" * 64})
    cohort = bundle.record.cohort.model_copy(update={"sets": sets})
    other = replace(bundle, label="b", record=bundle.record.model_copy(update={"cohort": cohort}))
    for name, each in (("a", bundle), ("b", other)):
        write_bundle(tmp_path / f"{name}.zip", each)
    end = call("leaderboard", tmp_path, "--out", tmp_path / "site")
    assert end.exit_code == 0, end.output
    assert len(list((tmp_path / "site").glob("shared-*.html"))) == 2
    assert (tmp_path / "site" / "index.html").read_text().count('<a href="shared-') == 2


def test_texts_of_strangers_stay_text(travelled, tmp_path):
    evil = "<script>alert(1)</script>\"'=cmd|\u202e"

    def change(value):
        entrant = value["entrants"][0]
        entrant["run"]["title"] = evil
        entrant["scores"][0]["title"] = evil
        entrant["missing"] = [{"metric": evil, "reason": evil}]
        value["versions"] = {evil: evil}
        value["left_out"] = [{"name": evil, "reason": evil}]

    rewritten(travelled[0], change, tmp_path / "evil.zip")
    shutil.copy(travelled[1], tmp_path / "b.zip")
    assert call("leaderboard", tmp_path, "--out", tmp_path / "site").exit_code == 0
    end = call("compare", tmp_path / "evil.zip", tmp_path / "b.zip", "--out", tmp_path / "site" / "c.html")
    assert end.exit_code == 0, end.output
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text()
        assert "<script" not in text and "&lt;script&gt;" in text and "\u202e" not in text


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
