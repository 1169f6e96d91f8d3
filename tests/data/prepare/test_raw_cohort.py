"""Raw scans to a cohort: workers, resuming, what is left out, the quality page, the command's words."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from hashlib import sha256
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import small_cohort
from click.testing import CliRunner

from mribench.cli import main
from mribench.commands.prepare import prepare_cohort
from mribench.data.cohort import open_cohort
from mribench.data.grid import paper_grid, quantise
from mribench.data.nifti import write_nifti
from mribench.data.prepare import builder, own, recipe, workers
from mribench.data.prepare.builder import Product
from mribench.data.prepare.own import Request
from mribench.data.prepare.recipe import BACKENDS, raw_recipe
from mribench.data.records import RawRecord
from mribench.data.simulate import simulate
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_volume

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in BACKENDS), reason="needs pip install 'mribench[prepare]'"
)

PROTOCOL = small_cohort.PROTOCOL.replace("holdout = 2", "holdout = 1")
DONE = ["--raw", "--already-stripped", "--already-registered"]
LENIENT = [
    "--set",
    "max_border_cm2=500",
    "--set",
    "min_dice=0.5",
]  # simulated brains end at the field of view


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Five stripped, registered subjects; one has markup for a name, and a sixth file is torn."""
    folder = tmp_path_factory.mktemp("heads")
    for name, index in zip("abcd", range(4), strict=True):
        write_nifti(folder / f"{name}.nii.gz", simulate(5, index, 32)[0], paper_grid(32).affine)
    write_nifti(folder / "<b>e&.nii.gz", simulate(5, 4, 32)[0], paper_grid(32).affine)
    (folder / "torn.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:-200])
    return folder


@pytest.fixture
def protocol(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(PROTOCOL)
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def made(scans, protocol, bench, workers):
    options = [*DONE, *LENIENT, "--workers", workers, "--bench", bench, "--protocol", protocol]
    result = run(scans, *options)
    assert result.exit_code == 0, result.output
    assert "torn.nii.gz must be an undamaged gzip" in result.stderr
    return open_cohort(bench / "cohort")


def test_two_workers_and_none_give_the_same_and_every_scan_is_accounted_for(
    scans, protocol, tmp_path, monkeypatch
):
    cohort = made(scans, protocol, tmp_path / "two", 2)
    record = cohort.record
    assert {v.name.split("-")[0] for v in record.volumes} == {"a", "b", "c", "d", "_b_e_"}
    assert len(record.problems) == 1 and not cohort.altered()
    assert record.recipe["masking"]["by"] == "values above 0" and len(record.recipe_digest) == 64
    assert set(record.recipe["versions"]) >= {"simpleitk", "dipy"}
    assert str(scans) not in (tmp_path / "two" / "cohort" / "volumes.json").read_text()
    page = (tmp_path / "two" / "cohort" / "quality.html").read_text()
    check_page(page)
    assert f"Recipe {record.recipe_digest[:12]};" in page
    again = [scans, *DONE, "--bench", tmp_path / "two", "--protocol", protocol]
    assert "up to date" in run(*again, *LENIENT).stderr
    strict = run(*again)
    assert strict.exit_code == 2 and "min_dice: expected 0.5, got 0.9" in strict.stderr
    monkeypatch.setattr(workers, "ProcessPoolExecutor", AtOnce)
    assert made(scans, protocol, tmp_path / "here", 1).digest == cohort.digest


@pytest.mark.slow
def test_one_worker_and_two_give_the_same(scans, protocol, tmp_path):
    one, two = (made(scans, protocol, tmp_path / str(n), n) for n in (1, 2))
    assert one.digest == two.digest


def check_page(page):
    assert page.count("<article") == 6 and page.count("<img") == 15
    assert "<b>e&" not in page and "&lt;b&gt;e&amp;" in page
    assert page.index("torn.nii.gz") < page.index("<img")  # what is left out comes first
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "<script" not in page and not re.search(r'(src|href)="(?!data:)', page)


SURPRISES = {b"big": MemoryError(), b"odd": KeyError("of a library")}


class AtOnce:
    """In place of the process pool: the same calls, in this process."""

    def __init__(self, *_args, **_options):
        pass

    def submit(self, work, *arguments):
        future: Future = Future()
        future.set_result(work(*arguments))
        return future

    def shutdown(self, **_options):
        pass


@pytest.fixture
def light(monkeypatch):
    """Stages that take no time; `light` lists the scans that were worked on. A file's content decides its outcome."""
    worked = []

    def process(scan, mask, grid, _recipe):
        worked.append(scan.name)
        content = scan.path.read_bytes()
        if content == b"dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if content in SURPRISES:
            raise SURPRISES[content]
        if content == b"bad":
            raise MribenchError(f"{mask or scan.path} must be readable, but is not.")
        voxels = quantise(np.random.default_rng(list(content)).random(grid.shape))
        record = RawRecord(
            id=scan.id, subject=scan.subject, session=scan.session, source=scan.source, name=scan.name,
            sha256=sha256(content).hexdigest(), digest=digest_volume(voxels, grid.affine), spacing_mm=(1, 1, 1),
            oblique=False,
            intensity_of_one=1, brain_cm3=400 if content == b"small" else 1400, template_correlation=0.8,
            outside_fov_fraction=0, negative_fraction=0, clipped_fraction=0, problems=(), stages=("N4",),
            mask_sha256="", saturated_fraction=0, noise_sd=1, bias_range=1,
            affine=tuple(map(tuple, np.eye(4).tolist())), determinant=1, dice=0.95, border_cm2=0, border="",
        )  # fmt: skip
        return Product(voxels, record)

    monkeypatch.setattr(own, "process_raw", process)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", AtOnce)
    return worked


def hundred(folder: Path) -> Path:
    folder.mkdir()
    for i in range(100):
        (folder / f"p{i:03d}.nii.gz").write_bytes(f"{i}".encode())
    (folder / "p037.nii.gz").write_bytes(b"bad")
    (folder / "p050.nii.gz").write_bytes(b"small")
    (folder / "p061.nii.gz").write_bytes((folder / "p060.nii.gz").read_bytes())
    return folder


def prepared(
    folder,
    protocol,
    bench,
    progress=lambda *_: None,
    *,
    registered=False,
    overwrite=False,
    workers=2,
    **quality,
):
    settings = raw_recipe(given_masks=False, stripped=False, registered=registered, quality=quality)
    request = Request(folder, recipe=settings, workers=workers)
    return prepare_cohort(bench, str(protocol), request, overwrite, progress)[1]


def test_bad_scans_among_a_hundred_are_refused_and_the_others_made(tmp_path, protocol, light):
    cohort = prepared(hundred(tmp_path / "in"), protocol, tmp_path / "b")
    assert len(cohort.record.volumes) == 97 and len(light) == 100
    reasons = {problem.name: problem for problem in cohort.record.problems}
    assert set(reasons) == {"p037.nii.gz", "p050.nii.gz", "p061.nii.gz"}
    assert reasons["p037.nii.gz"].reason == "p037.nii.gz must be readable, but is not."
    assert "400 cm3" in reasons["p050.nii.gz"].reason and reasons["p050.nii.gz"].record.id == "p050"
    assert "another person than p060.nii.gz" in reasons["p061.nii.gz"].reason


def test_a_killed_preparation_loses_only_what_was_in_work(tmp_path, protocol, light):
    folder = hundred(tmp_path / "in")

    def stop(_what, done, _total):
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(folder, protocol, tmp_path / "b", stop)
    with open(tmp_path / "b" / "cohort" / builder.LEDGER, "a") as file:
        file.write('{"torn')
    (folder / "p003.nii.gz").write_bytes(b"another file")
    np.save(tmp_path / "b" / "cohort" / "volumes" / "p004.npy", np.zeros(3))
    light.clear()
    steps = []
    cohort = prepared(folder, protocol, tmp_path / "b", lambda _, *step: steps.append(step))
    assert len(light) == 42 and {"p003.nii.gz", "p004.nii.gz"} < set(light) and "p037.nii.gz" not in light
    assert steps[0] == (58, 100) and steps[-1] == (100, 100)
    assert cohort.digest == prepared(folder, protocol, tmp_path / "c").digest


def test_thresholds_are_judged_without_working_again(tmp_path, protocol, light):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        (folder / f"p{i}.nii.gz").write_bytes(b"%d" % i)
    with pytest.raises(UsageError, match=r"The roles need.*5 scans were left out"):
        prepared(folder, protocol, tmp_path / "b", min_dice=0.99)
    with pytest.raises(UsageError, match="5 scans were left out"):
        prepared(folder, protocol, tmp_path / "b", registered=True, min_dice=0.99)
    assert len(light) == 10  # every other setting does make them again
    light.clear()
    cohort = prepared(folder, protocol, tmp_path / "b", registered=True, min_dice=0.9)
    assert len(cohort.record.volumes) == 5 and not light


def test_what_another_kind_of_preparation_left_is_made_again(scans, tmp_path, protocol, light):
    kinds = {False: ["--overwrite"], True: ["--raw", *LENIENT]}
    for raw_first in (True, False):
        bench = tmp_path / str(raw_first)
        for raw in (raw_first, not raw_first):
            (bench / "cohort" / "volumes.json").unlink(missing_ok=True)  # as if killed: the ledger stays
            result = run(scans, *kinds[raw], "--bench", bench, "--protocol", protocol)
            assert result.exit_code == 0, result.stderr
            name = open_cohort(bench / "cohort").record.recipe["name"]
            assert name == (recipe.RawRecipe if raw else recipe.StrippedRecipe)().name


def test_a_finished_cohort_is_never_taken_for_another(tmp_path, protocol, light):
    folder, bench = folder_of(tmp_path / "in", *(b"%d" % i for i in range(6))), tmp_path / "b"
    first = prepared(folder, protocol, bench)
    assert prepared(folder, protocol, bench).digest == first.digest and len(light) == 6
    with pytest.raises(UsageError, match=r"quality.min_dice: expected 0.9, got 0.99.*--overwrite"):
        prepared(folder, protocol, bench, min_dice=0.99)
    other = folder_of(tmp_path / "other", *(b"%d" % i for i in (0, 1, 2, 3, 4, 7)))
    with pytest.raises(UsageError, match=r"other scans, masks or labels.*--overwrite"):
        prepared(other, protocol, bench)
    light.clear()
    assert (
        prepared(folder, protocol, bench, overwrite=True, min_dice=0.94).digest == first.digest and not light
    )
    (other / "p0.nii.gz").unlink()
    changed = prepared(other, protocol, bench, overwrite=True)
    assert light == ["p5.nii.gz"] and changed.digest != first.digest
    assert {path.stem for path in (bench / "cohort" / "volumes").iterdir()} == {f"p{i}" for i in range(1, 6)}


def test_raw_and_plain_preparations_do_not_take_each_other_for_theirs(scans, tmp_path, protocol, light):
    kinds = {"is of scans that were": [], "is of raw scans": ["--raw"]}
    for number, (reason, first) in enumerate(kinds.items()):
        second = next(options for options in kinds.values() if options is not first)
        common = [scans, "--bench", tmp_path / f"b{number}", "--protocol", protocol]
        assert run(*common, *first).exit_code == 0
        result = run(*common, *second)
        assert result.exit_code == 2 and reason in result.stderr and "--overwrite" in result.stderr
        assert run(*common, *second, "--overwrite").exit_code == 0
        assert (tmp_path / f"b{number}" / "cohort" / "quality.html").exists() == ("--raw" in second)


def test_a_folder_and_a_manifest_are_one_too_many(scans, tmp_path):
    (tmp_path / "list.csv").write_text("path,subject\n")
    for kind in ([], ["--raw"]):
        result = run(scans, "--manifest", tmp_path / "list.csv", *kind, "--bench", tmp_path / "b")
        assert (
            result.exit_code == 2 and "SRC or --manifest" in result.stderr and not (tmp_path / "b").exists()
        )


def folder_of(folder: Path, *contents: bytes) -> Path:
    """Flat scans p0, p1, ... whose bytes decide what `light` does with them."""
    folder.mkdir()
    for i, content in enumerate(contents):
        (folder / f"p{i}.nii.gz").write_bytes(content)
    return folder


@pytest.fixture
def forked(light, monkeypatch):
    """A true pool whose workers know the stages of `light`."""
    monkeypatch.setattr(workers, "ProcessPoolExecutor", ProcessPoolExecutor)
    monkeypatch.setattr(workers, "get_context", lambda _: get_context("fork"))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_scan_that_kills_its_worker_is_refused_and_the_others_are_made(tmp_path, protocol, forked):
    folder = folder_of(tmp_path / "in", b"0", b"1", b"dies", b"3", b"4", b"5", b"6")
    cohort = prepared(folder, protocol, tmp_path / "b")
    assert len(cohort.record.volumes) == 6
    (problem,) = cohort.record.problems
    assert problem.name == "p2.nii.gz" and "end its worker process" in problem.reason


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_all_die_end_the_preparation(tmp_path, protocol, forked):
    with pytest.raises(MribenchError, match="goes on where it stopped"):
        prepared(folder_of(tmp_path / "in", *[b"dies"] * 6), protocol, tmp_path / "b")


def test_what_one_scan_raises_stops_no_other_and_is_tried_again(tmp_path, protocol, light):
    folder = folder_of(tmp_path / "in", b"0", b"big", b"odd", b"3", b"4", b"bad")
    with pytest.raises(UsageError, match="The roles need") as error:
        prepared(folder, protocol, tmp_path / "b")
    assert "p1.nii.gz must fit into memory" in str(error.value) and "raised KeyError" in str(error.value)
    (folder / "p6.nii.gz").write_bytes(b"6")
    (folder / "p7.nii.gz").write_bytes(b"7")
    light.clear()
    assert len(prepared(folder, protocol, tmp_path / "b").record.volumes) == 5
    assert sorted(light) == [f"p{i}.nii.gz" for i in (1, 2, 6, 7)]  # the bad one is bad for ever


def test_few_products_wait_in_memory(tmp_path, protocol, light, monkeypatch):
    alive, most = [0], [0]

    class Counting(AtOnce):
        def submit(self, *arguments):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            return super().submit(*arguments)

    def stored(*arguments):
        alive[0] -= 1
        return store(*arguments)

    store = builder._stored
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Counting)
    monkeypatch.setattr(builder, "_stored", stored)
    prepared(hundred(tmp_path / "in"), protocol, tmp_path / "b", workers=2)
    assert most[0] <= 4 and alive[0] == 0


def test_two_files_of_one_name_and_content_are_one_person(tmp_path, protocol, light):
    rows = ["path,subject"]
    for subject, content in {
        "s1": b"same",
        "s2": b"same",
        "s3": b"3",
        "s4": b"4",
        "s5": b"5",
        "s6": b"6",
    }.items():
        (tmp_path / subject).mkdir()
        (tmp_path / subject / "T1.nii.gz").write_bytes(content)
        rows.append(f"{tmp_path / subject / 'T1.nii.gz'},{subject}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    options = [
        "--manifest",
        tmp_path / "list.csv",
        "--raw",
        "--bench",
        tmp_path / "b",
        "--protocol",
        protocol,
    ]
    assert run(*options).exit_code == 0
    record = open_cohort(tmp_path / "b" / "cohort").record
    assert [v.name for v in record.volumes] == ["s1", "s3", "s4", "s5", "s6"]
    (problem,) = record.problems
    assert "another person than T1.nii.gz (s1)" in problem.reason and problem.record.subject == "s2"


def test_no_message_tells_where_the_files_lie(tmp_path, protocol):
    rows = [f"{tmp_path / 'far' / f'bad{i}.img'},{i}" for i in range(4)]  # as many as the protocol needs
    (tmp_path / "list.csv").write_text("\n".join(["path,subject", *rows]) + "\n")
    (tmp_path / "far").mkdir()
    for i in range(4):
        (tmp_path / "far" / f"bad{i}.img").write_bytes(bytes([i]))
        (tmp_path / "far" / f"bad{i}.hdr").write_bytes(bytes(10))
    for kind in (["--raw"], []):
        options = ["--manifest", tmp_path / "list.csv", *kind, "--bench", tmp_path / f"b{kind}"]
        result = run(*options, "--protocol", protocol)
        assert "bad1.hdr" in result.stderr and str(tmp_path) not in result.stderr, result.stderr


def test_a_mask_that_is_missing_keeps_out_its_scan_only(tmp_path, protocol, light):
    folder, masks = tmp_path / "in", tmp_path / "masks"
    folder.mkdir(), masks.mkdir()
    for i in range(7):
        (folder / f"p{i}.nii.gz").write_bytes(b"%d" % i if i < 6 else b"bad")
        if i:
            (masks / f"p{i}_mask.nii.gz").write_bytes(b"m")
    result = run(folder, "--raw", "--mask", masks, "--bench", tmp_path / "b", "--protocol", protocol)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "b" / "cohort" / "volumes.json").read_text())
    assert [v["name"] for v in record["volumes"]] == ["p1", "p2", "p3", "p4", "p5"]
    assert "p0_mask.nii.gz" in record["problems"][0]["reason"]
    assert record["problems"][1]["reason"].startswith("p6.nii.gz: p6_mask.nii.gz must be readable")
    assert str(tmp_path) not in json.dumps(record)
    assert record["recipe"]["masking"]["by"] == "given mask"


def test_a_mask_that_fits_two_scans_is_refused(tmp_path, protocol, light):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "T1_mask.nii.gz").write_bytes(b"m")
    rows = ["path,subject"]
    for i in range(6):
        (tmp_path / f"s{i}").mkdir()
        (tmp_path / f"s{i}" / "T1.nii.gz").write_bytes(b"%d" % i)
        rows.append(f"s{i}/T1.nii.gz,s{i}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    options = ["--manifest", tmp_path / "list.csv", "--raw", "--mask", tmp_path / "masks"]
    result = run(*options, "--bench", tmp_path / "b", "--protocol", protocol)
    assert result.exit_code == 2 and not light
    assert "T1_mask.nii.gz fits s0/T1.nii.gz (s0) and s1/T1.nii.gz (s1)" in result.stderr


def test_a_missing_library_is_one_sentence(scans, monkeypatch, tmp_path):
    monkeypatch.setattr(recipe, "find_spec", lambda name: None)
    result = run(scans, "--raw", "--bench", tmp_path / "b")
    assert result.exit_code == 2 and not (tmp_path / "b").exists()
    assert result.stderr.strip() == (
        "Error: Raw scans need deepbet, dipy, SimpleITK, not installed here. "
        "Run: pip install 'mribench[prepare]'"
    )


def test_words_that_do_not_go_together_are_refused(scans, tmp_path):
    (tmp_path / "masks").mkdir()
    cases = {
        "goes with --raw": ["--already-stripped"],
        "--mask goes with scans that have their skull": [
            "--raw",
            "--mask",
            tmp_path / "masks",
            "--already-stripped",
        ],
        "min_dice, min_correlation": ["--raw", "--set", "patch_radius=3"],
        "min_dice: Input should be less": ["--raw", "--set", "min_dice=3"],
        "brain_cm3: Value error, [lowest, highest] must be in this order": [
            "--raw",
            "--set",
            "brain_cm3=[2100,900]",
        ],
    }
    for reason, options in cases.items():
        result = run(scans, *options, "--bench", tmp_path / "b")
        assert result.exit_code == 2 and reason in result.stderr, result.stderr


def test_thresholds_move_no_voxel_and_every_other_setting_is_in_the_digest():
    options = {"given_masks": False, "stripped": False, "registered": False}
    usual = raw_recipe(**options, quality={})
    strict = raw_recipe(**options, quality={"min_dice": 0.95})
    assert usual.digest != strict.digest and usual.voxels() == strict.voxels()
    for name in options:
        other = raw_recipe(**{**options, name: True}, quality={})
        assert other.digest != usual.digest and other.voxels() != usual.voxels()
