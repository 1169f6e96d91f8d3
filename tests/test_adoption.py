"""Adoption as a user meets it: commands, resumption, the control beside the entrant, and its place in the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import foreign_samples
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from mribench import adoption
from mribench.bench.folder import open_bench
from mribench.cli import main
from mribench.data.foreign.hint import likely_sides
from mribench.data.simulate import simulate
from mribench.samples import write_samples

BENCH_VOXELS = ("--orientation", "RAS", "--assume-affine", "bench")


def call(*args, code=0):
    result = CliRunner().invoke(main, ["-q", *map(str, args)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def original(tmp_path_factory, protocol_file):
    """A bench with controls."""
    folder = tmp_path_factory.mktemp("adoption") / "bench"
    call("init", "--bench", folder, "--protocol", protocol_file)
    call("generate", "--all", "--bench", folder)
    return folder


@pytest.fixture
def bench(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "bench"))


@pytest.fixture(scope="module")
def brains():
    """Brains of people whom the bench does not know, `[D,H,W]`."""
    return [simulate(99, i, 16)[0] for i in range(4)]


@pytest.fixture
def stored(tmp_path, brains, bench):
    """`stored(store)` -> a folder of the brains as that function stores them."""

    def make(store, volumes=brains):
        folder = tmp_path / f"stored-{store.__name__}-{len(volumes)}"
        folder.mkdir()
        store(folder, volumes, open_bench(bench).protocol.cohort.voxels)
        return folder

    return make


def samples(bench, name):
    return open_bench(bench).existing_run(name).samples()


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.parametrize("code", foreign_samples.CODES)
def test_what_published_codes_store_comes_back_as_the_brains_that_it_was(bench, stored, brains, code):
    preset, store = foreign_samples.CODES[code]
    # A registration takes 20 s and is tried below; centred on the field of view these need none.
    call(
        "adopt",
        stored(store),
        "--name",
        "theirs",
        "--preset",
        preset,
        "--to-grid",
        "resample",
        "--bench",
        bench,
    )
    for volume, brain in zip(samples(bench, "theirs").stack(), brains, strict=True):
        assert correlation(volume, brain) > 0.97
    assert likely_sides(samples(bench, "theirs").stack(), np.mean(brains, axis=0), "RAS") is None
    real = open_bench(bench).protocol.evaluation.samples
    door = samples(bench, "theirs-door")
    assert len(door) == real
    for volume, heldout in zip(door.stack(), samples(bench, "real_heldout").stack(), strict=True):
        assert correlation(volume, heldout) > 0.97
    assert call("verify", "--bench", bench).output.strip().endswith("everything is as recorded")


@pytest.mark.slow
def test_brains_in_another_space_are_registered(bench, stored, brains):
    folder = stored(foreign_samples.wdm, brains[:2])
    for path in folder.iterdir():
        image = nib.load(path)
        moved = np.roll(np.asarray(image.dataobj), (6, -9, 5), (0, 1, 2))
        nib.save(nib.Nifti1Image(moved, image.affine), path)
    call("adopt", folder, "--name", "wdm", "--preset", "wdm", "--bench", bench)
    call("adopt", folder, "--name", "astray", "--preset", "wdm", "--to-grid", "resample", "--bench", bench)
    for i, brain in enumerate(brains[:2]):
        assert correlation(samples(bench, "wdm")[i], brain) > 0.9
        assert correlation(samples(bench, "astray")[i], brain) < 0.8
    for i in range(2):
        heldout = samples(bench, "real_heldout")[i]
        assert correlation(samples(bench, "wdm-door")[i], heldout) > 0.9


def test_adopted_samples_are_ranked_beside_others_with_their_control_below(bench, stored, brains):
    call("adopt", stored(foreign_samples.mni_2mm), "--name", "mni", "--rescale", "-1", "1", "--bench", bench)
    blurred = [0.5 * brain + 0.2 * (brain > 0) for brain in brains]
    pale = stored(foreign_samples.identity, [*blurred, brains[0]])
    (pale / "s1.nii.gz").write_bytes(b"torn")
    call("adopt", pale, "--name", "pale", *BENCH_VOXELS, "--skip-bad", "--bench", bench)
    call("report", "--bench", bench)
    table = pd.read_csv(bench / "report" / "table.csv").set_index("run")
    order = list(table.index)
    assert order.index("mni-door") == order.index("mni") + 1
    assert order.index("pale-door") == order.index("pale") + 1
    assert order.index("real_heldout") > order.index("pale-door")
    assert set(table.loc[["mni-door", "pale-door"], "kind"]) == {"control"}
    assert (table.loc[["mni", "pale"], "kind"] == "folder").all()
    page = (bench / "report" / "index.html").read_text()
    assert "intensities -1 to 1, resampled; linear interpolation" in page
    assert "91 x 109 x 91 voxels" in page
    assert "Real volumes through the door of mni" in page
    assert "pale, s1.nii.gz" in page and str(pale) not in page
    listed = json.loads(call("list", "runs", "--bench", bench, "--json").stdout)
    assert next(row["recipe"] for row in listed if row["run"] == "pale").startswith("axes RAS")


def test_the_same_again_is_up_to_date_and_another_recipe_or_file_is_refused(bench, stored, tmp_path):
    folder = stored(foreign_samples.identity)
    words = ("adopt", folder, "--name", "x", "--bench", bench)
    call(*words, *BENCH_VOXELS)
    before = {path: path.stat().st_mtime_ns for path in bench.rglob("*.nii.gz")}
    again = call(*words, *BENCH_VOXELS)
    assert "adopt x: up to date" in again.output and "make x-door: up to date" in again.output
    assert {path: path.stat().st_mtime_ns for path in bench.rglob("*.nii.gz")} == before
    other = call(*words, *BENCH_VOXELS, "--rescale", "0", "2", code=2)
    assert "recipe.rescale: expected None, got" in other.output and "--overwrite" in other.output
    (folder / "s0.nii.gz").write_bytes((folder / "s1.nii.gz").read_bytes())
    assert "exists with other settings" in call(*words, *BENCH_VOXELS, code=2).output
    call(*words, *BENCH_VOXELS, "--overwrite")
    assert samples(bench, "x").digests[0] == samples(bench, "x").digests[1]


def test_a_stopped_adoption_makes_only_what_is_missing(bench, stored, monkeypatch):
    folder = stored(foreign_samples.mni_2mm)
    words = ("adopt", folder, "--name", "x", "--rescale", "-1", "1", "--bench", bench)
    call(*words)
    wanted = {name: samples(bench, name).digests for name in ("x", "x-door")}
    for name in wanted:
        shutil.rmtree(bench / "runs" / name)
    entered, real = [], adoption.enter

    def stops(volume, recipe, grid, source, step, path):
        if len(entered) == 2:
            raise KeyboardInterrupt
        entered.append(source)
        return real(volume, recipe, grid, source, step, path)

    monkeypatch.setattr(adoption, "enter", stops)
    CliRunner().invoke(main, ["-q", *map(str, words)])
    assert len(samples(bench, "x")) == 2
    made = []
    monkeypatch.setattr(adoption, "enter", lambda *args: (made.append(args[3]), real(*args))[1])
    call(*words)
    assert made[:2] == ["s2.nii.gz", "s3.nii.gz"]
    assert {name: samples(bench, name).digests for name in wanted} == wanted


def test_a_bad_volume_is_refused_by_name_or_left_out_and_listed(bench, stored, brains):
    folder = stored(foreign_samples.identity, [*brains, brains[0]])
    image = nib.load(folder / "s1.nii.gz")
    voxels = image.get_fdata().astype(np.float32)
    voxels[5, 5, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), folder / "s1.nii.gz")
    (folder / "s2.nii.gz").write_bytes(b"torn")
    words = ("adopt", folder, "--name", "x", *BENCH_VOXELS, "--bench", bench)
    refused = call(*words, code=1).output
    assert "s1.nii.gz must be finite" in refused and "s2.nii.gz" in refused and "--skip-bad" in refused
    assert str(folder) not in refused.replace(str(words), "")
    assert not (bench / "runs" / "x").exists()
    call(*words, "--skip-bad")
    assert len(samples(bench, "x")) == 3
    left_out = open_bench(bench).existing_run("x").read_record().adoption.left_out
    assert [each.name for each in left_out] == ["s1.nii.gz", "s2.nii.gz"]
    assert str(folder) not in (bench / "runs" / "x" / "run.json").read_text()


def test_volumes_with_one_fault_share_a_line(bench, stored):
    output = call("adopt", stored(foreign_samples.identity), "--name", "x", "--bench", bench, code=1).output
    assert "4 of the first 4 are not" in output
    assert output.count("its affine is the identity") == 1 and "and 3 more like it, up to s3.nii.gz" in output
    assert "--orientation" in output and "--preset" in output and "--skip-bad" not in output


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--name", "noise"), 2, "the name of a control"),
        (("--name", "No"), 2, "lower-case"),
        (("--name", "x", "--orientation", "RAX"), 2, "must fit together"),
        (("--name", "x", "--rescale", "1", "0"), 2, "LOW < HIGH"),
        (("--name", "x", "--picture", "p.png"), 2, "goes with --dry-run"),
        (("--name", "x", *BENCH_VOXELS, "--rescale", "0", "1000"), 1, "largest value of all"),
        (("--name", "x", "--preset", "brain-ldm"), 1, "must have the 4 axes AS_L, but it has 3"),
        (("--name", "x", *BENCH_VOXELS[:2], "--to-grid", "pad"), 1, "bench's voxels of 11 x 11 x 8 mm"),
    ],
)
def test_wrong_usage_is_a_sentence(bench, stored, options, code, message):
    assert (
        message
        in call("adopt", stored(foreign_samples.identity), *options, "--bench", bench, code=code).output
    )


def test_an_entrant_needs_two_volumes_and_may_have_fewer_than_asked_for(bench, stored, brains, tmp_path):
    (tmp_path / "empty").mkdir()
    assert (
        "none directly in it"
        in call("adopt", tmp_path / "empty", "--name", "x", "--bench", bench, code=1).output
    )
    words = ("--name", "x", *BENCH_VOXELS, "--bench", bench)
    one = call("adopt", stored(foreign_samples.identity, brains[:1]), *words, code=1).output
    assert "at least 2 usable volumes" in one
    call("adopt", stored(foreign_samples.identity, brains[:3]), *words)
    assert len(samples(bench, "x")) == 3


def test_a_dry_run_draws_three_volumes_beside_a_real_one_and_makes_nothing(bench, stored, tmp_path):
    before = sorted(path for path in bench.rglob("*") if path.is_file())
    picture = tmp_path / "look.png"
    words = ("adopt", stored(foreign_samples.identity), "--name", "x", "--bench", bench, "--dry-run")
    said = call(*words, "--orientation", "RPS", "--assume-affine", "bench", "--picture", picture).output
    assert "recipe: axes RPS, spans the bench's field of view, resampled" in said
    assert "16 x 16 x 16 voxels of 11 x 11 x 8 mm" in said
    assert "the entrant x of 4 volumes (4 are asked for) and the control x-door" in said
    assert "--orientation RAS" in said
    assert sorted(path for path in bench.rglob("*") if path.is_file() and path.suffix != ".lock") == [
        path for path in before if path.suffix != ".lock"
    ]
    with Image.open(picture) as image:
        assert image.width > 600 and image.height > image.width
    small = call(*words, "--orientation", "RAS", "--picture", picture).output
    assert "times the space that it fills in real volumes" in small


def test_the_control_is_made_again_by_generate_and_repair(bench, stored):
    call("adopt", stored(foreign_samples.identity), "--name", "x", *BENCH_VOXELS, "--bench", bench)
    wanted = samples(bench, "x-door").digests
    shutil.rmtree(bench / "runs" / "x-door")
    call("generate", "--all", "--bench", bench)
    assert samples(bench, "x-door").digests == wanted
    (bench / "runs" / "x-door" / "samples" / "000001.nii.gz").write_bytes(b"torn")
    call("verify", "--bench", bench, code=1)
    call("verify", "--repair", "--device", "cpu", "--bench", bench)
    assert samples(bench, "x-door").digests == wanted
    lost = bench / "runs" / "x" / "samples" / "000001.nii.gz"
    lost.unlink()
    assert "mribench adopt DIR --name x" in call("evaluate", "x", "--bench", bench, code=1).output


def test_refusals_of_folders_advise_to_adopt(bench, stored):
    folder = stored(foreign_samples.mni_2mm)
    words = ("--samples", folder, "--name", "x", "--rescale", "-1", "1", "--bench", bench)
    assert "mribench adopt" in call("evaluate", *words, code=1).output


def test_a_folder_that_was_taken_as_it_is_is_not_replaced(bench, stored, brains):
    real = bench / "runs" / "real_heldout" / "samples"
    call("evaluate", "--samples", real, "--name", "x", "--bench", bench)
    words = ("adopt", stored(foreign_samples.identity), "--name", "x", *BENCH_VOXELS, "--bench", bench)
    refused = call(*words, code=2).output
    assert "exists with other settings" in refused and "mribench adopt DIR --name x" in refused


def test_an_adoption_writes_its_samples_one_at_a_time(bench, stored, monkeypatch):
    batches = []
    real = write_samples

    def noted(run, source, grid, count, context, batch):
        batches.append(batch)
        real(run, source, grid, count, context, batch)

    monkeypatch.setattr(adoption, "write_samples", noted)
    call("adopt", stored(foreign_samples.identity), "--name", "x", *BENCH_VOXELS, "--bench", bench)
    assert batches == [1, 1]
