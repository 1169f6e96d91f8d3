"""Whatever is wrong with the input: a sentence that names the file, exit code 1 or 2, and the others' scores."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter
from torch import nn

from mribench.bench.folder import open_bench
from mribench.cli import main
from mribench.metrics.features import slices as features

SIDE = 16


class Coarse(nn.Module):
    """A network without weights: the slice on a 7 x 7 grid."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x[:, :1], 7).flatten(1)


@pytest.fixture(autouse=True, scope="module")
def coarse_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "load_network", lambda *_: Coarse())
        yield


def call(*args, code=0):
    """Run the command line; a traceback instead of an exit fails the test."""
    result = CliRunner().invoke(main, [str(arg) for arg in ("-q", *args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


def brain(seed, side=SIDE):
    """A smooth blob `[D,H,W]` in [0,1] that differs between seeds."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    inside = sum((axis / rng.uniform(0.75, 0.9)) ** 2 for axis in grid) < 1
    texture = gaussian_filter(rng.normal(size=(side,) * 3), 1.5)
    return np.where(inside, np.clip(0.5 + texture, 0, 1), 0).astype(np.float32)


def write(folder, volumes, affine=None):
    folder.mkdir(parents=True)
    for i, volume in enumerate(volumes):
        affine = np.eye(4) if affine is None else affine
        nib.save(nib.Nifti1Image(volume.T, affine), folder / f"v{i}.nii.gz")
    return folder


GOOD = [brain(100 + i) for i in range(4)]


def cut(folder):
    path = folder / "v3.nii.gz"
    path.write_bytes(path.read_bytes()[:-300])


def speck(volume):
    spoiled = volume.copy()
    spoiled[3, 3, 3] = np.nan
    return spoiled


ONE_BAD_FILE = {  # one among four -> what is said about it
    "another size": (lambda: brain(9, SIDE + 4), "is (20, 20, 20)"),
    "out of range": (lambda: GOOD[3] * 255, "must have values in [0,1]"),
    "negative": (lambda: GOOD[3] - 0.5, "must have values in [0,1]"),
    "all zero": (lambda: GOOD[3] * 0, "every voxel is 0"),
    "all equal": (lambda: GOOD[3] * 0 + 0.5, "every voxel is 0.5"),
    "NaN": (lambda: speck(GOOD[3]), "1 voxels are NaN"),
    "infinite": (lambda: np.where(np.isnan(speck(GOOD[3])), np.inf, GOOD[3]), "1 voxels are NaN or inf"),
    "two volumes": (lambda: np.stack([GOOD[3]] * 2), "must be one 3D volume"),
    "truncated": (cut, "must be an undamaged gzip file"),
    "empty": (lambda folder: (folder / "v3.nii.gz").write_bytes(b""), "must begin with a NIfTI"),
    "no NIfTI": (lambda folder: (folder / "v3.nii.gz").write_bytes(b"hello"), "Not a gzipped file"),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good") / "real", [brain(i) for i in range(5)])


@pytest.fixture
def bad_folder(tmp_path, request):
    """Three good volumes and a bad one, on the grid in the fixture's parameter."""

    def make(kind, affine=None):
        bad, said = ONE_BAD_FILE[kind]
        if bad.__code__.co_argcount:
            folder = write(tmp_path / "samples", GOOD, affine)
            bad(folder)
        else:
            folder = write(tmp_path / "samples", [*GOOD[:3], bad()], affine)
        return folder, said

    return make


@pytest.mark.parametrize("kind", ONE_BAD_FILE)
def test_one_bad_file_in_a_folder_is_named(kind, bad_folder, real, tmp_path):
    folder, said = bad_folder(kind)
    error = call("evaluate", "--real", real, "--samples", folder, "--out", tmp_path / "out", code=1).stderr
    assert said in error and "v3.nii.gz" in error
    assert "v1.nii.gz" not in error


def scores_of(folder):
    record = json.loads((folder / "scores.json").read_text())
    return {s["metric"] for s in record["scores"]}, {m["metric"]: m["reason"] for m in record["missing"]}


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_volumes_are_said_to_be_too_few(count, real, tmp_path):
    folder = write(tmp_path / "samples", GOOD[:count])
    error = call("evaluate", "--real", real, "--samples", folder, "--out", tmp_path / "out", code=1).stderr
    assert f"FID-A needs at least 3 volumes in 'samples', but there are {count}" in error
    call("evaluate", "--real", folder, "--samples", real, "--out", tmp_path / "back", code=1)


def test_two_folders_of_different_size_are_told_apart(real, tmp_path):
    folder = write(tmp_path / "samples", [brain(i, SIDE + 4) for i in range(4)])
    error = call("evaluate", "--real", real, "--samples", folder, "--out", tmp_path / "out", code=1).stderr
    assert "samples are [20, 20, 20] and reference is [16, 16, 16]" in error


def test_identical_samples_are_scored_and_noted(real, tmp_path):
    folder = write(tmp_path / "samples", [GOOD[0]] * 4)
    text = call("evaluate", "--real", real, "--samples", folder, "--out", tmp_path / "out").stdout
    assert "3 of 4 samples are exact duplicates" in text and "100.00" in text


def test_identical_real_volumes_have_no_bandwidth(real, tmp_path):
    """Rounding once made a bandwidth of 1e-8 out of the distance 0, and an MMD of it."""
    same = write(tmp_path / "same", [GOOD[0]] * 4)
    error = call("evaluate", "--real", same, "--samples", real, "--out", tmp_path / "out", code=1).stderr
    assert "mmd: A Gaussian kernel needs volumes that differ" in error
    scored, missing = scores_of(tmp_path / "out")
    assert "fid_a" in scored and "ms_ssim" in scored and "mmd" in missing


def test_nearly_empty_volumes_are_scored(real, tmp_path):
    """A single bright voxel: windows without any contrast, features that hardly differ."""
    dots = np.zeros((4, SIDE, SIDE, SIDE), np.float32)
    dots[range(4), 8, 8, [6, 7, 8, 9]] = 1
    folder = write(tmp_path / "samples", dots)
    call("evaluate", "--real", real, "--samples", folder, "--train", real, "--out", tmp_path / "out")
    scored, _ = scores_of(tmp_path / "out")
    assert {"ms_ssim", "mmd", "fid_a", "memorisation"} <= scored


@pytest.fixture(scope="module")
def scored_bench(tmp_path_factory, protocol_file):
    """A trained model, the controls and a folder entrant, all scored."""
    folder = tmp_path_factory.mktemp("bad") / "bench"
    call("train", "cdpm", "--protocol", protocol_file, "--set", "budget=4", "--bench", folder)
    call("generate", "--all", "--bench", folder)
    outside = write(folder.parent / "theirs", GOOD, open_bench(folder).protocol.cohort.voxels.affine)
    call("evaluate", "--samples", outside, "--name", "theirs", "--bench", folder)
    call("evaluate", "--all", "--bench", folder)
    return folder


@pytest.fixture
def bench(scored_bench, tmp_path):
    return open_bench(shutil.copytree(scored_bench, tmp_path / "bench"))


def names(bench):
    return {run.name for run in bench.runs()}


@pytest.mark.parametrize("kind", ["another size", "out of range", "truncated"])
def test_a_bad_folder_does_not_become_an_entrant(kind, bad_folder, scored_bench):
    bench = open_bench(scored_bench)
    folder, said = bad_folder(kind, bench.protocol.cohort.voxels.affine)
    before = names(bench)
    error = call("evaluate", "--samples", folder, "--name", "new", "--bench", scored_bench, code=1).stderr
    assert said in error and "v3.nii.gz" in error and names(bench) == before


def test_a_black_folder_does_not_become_an_entrant(scored_bench, tmp_path):
    affine = open_bench(scored_bench).protocol.cohort.voxels.affine
    folder = write(tmp_path / "samples", [volume / 1000 for volume in GOOD], affine)
    error = call("evaluate", "--samples", folder, "--name", "black", "--bench", scored_bench, code=1).stderr
    assert "black must use the range [0,1]" in error and "black" not in names(open_bench(scored_bench))


def test_folders_with_other_affines_are_pointed_out(tmp_path, caplog):
    real, samples = (
        write(tmp_path / name, GOOD, np.diag([mm, mm, mm, 1.0])) for name, mm in (("a", 1), ("b", 2))
    )
    call("evaluate", "--real", real, "--samples", samples, "--out", tmp_path / "out")
    assert "The affines of samples and real differ by up to 1" in caplog.text


def test_an_entrant_too_small_for_any_metric_fails_and_costs_nobody(bench, tmp_path):
    folder = write(tmp_path / "samples", GOOD[:1], bench.protocol.cohort.voxels.affine)
    result = call("evaluate", "--samples", folder, "--name", "one", "--bench", bench.folder, code=1)
    assert "one: fid_a: FID-A needs at least 3 volumes in 'samples', but there are 1" in result.stderr
    assert "cDPM" in result.stdout and "theirs" in result.stdout


def delete(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def alter(path):
    path.write_bytes(path.with_name("000002.nii.gz").read_bytes())


@pytest.mark.parametrize(("name", "damage"), [("cdpm", delete), ("noise", truncate), ("theirs", alter)])
def test_a_damaged_sample_is_named_and_costs_one_entrant(name, damage, bench):
    damage(bench.run(name).samples_folder / "000001.nii.gz")
    for run in bench.runs():
        run.scores.unlink()
    result = call("evaluate", "--all", "--bench", bench.folder, code=1)
    assert f"{name}: {bench.folder}/runs/{name}/samples/000001.nii.gz" in result.stderr
    assert result.stderr.count("000001.nii.gz") == 1 and "Run: mribench" in result.stderr
    assert {run.name for run in bench.runs() if run.scores.exists()} == names(bench) - {name}


@pytest.mark.parametrize("name", ["cdpm", "theirs"])
def test_a_sample_damaged_after_scoring_is_noticed_by_the_report(name, bench):
    truncate(bench.run(name).samples_folder / "000001.nii.gz")
    result = call("report", "--bench", bench.folder, code=1)
    assert f"runs/{name}/samples/000001.nii.gz" in result.stderr
    table = pd.read_csv(bench.report / "scores.csv")
    assert set(table["run"]) == names(bench) and (bench.report / "index.html").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b'{"made_from": "x", "files": 3, "shape": [1, 2, 3], "slab": null}',
        b'{"made_from": "x", "files": [{"name": 1, "digest": "x"}], "shape": [1, 2, 3], "slab": null}',
        b'{"made_from": "x", "files": [], "shape": [1, 2, 3], "slab": "all"}',
    ],
)
def test_a_damaged_record_of_samples_is_named_and_costs_one_entrant(content, bench):
    bench.run("noise").samples_record.write_bytes(content)
    result = call("evaluate", "--all", "--bench", bench.folder, code=1)
    assert "runs/noise/samples.json" in result.stderr
    assert "theirs" in result.stdout and "evaluate theirs: up to date" in result.stderr


@pytest.mark.parametrize("content", ['{"made_from": ', '{"made_from": "MADE", "missing": 3}'])
def test_damaged_scores_are_made_again(content, bench):
    path = bench.run("noise").scores
    before = json.loads(path.read_text())
    path.write_text(content.replace("MADE", before["made_from"]))
    assert "evaluate noise: done" in call("evaluate", "noise", "--bench", bench.folder).stderr
    after = json.loads(path.read_text())
    assert [s["value"] for s in after["scores"]] == [s["value"] for s in before["scores"]]


def test_one_folder_under_two_names_is_noted(bench, tmp_path):
    folder = write(tmp_path / "again", GOOD, bench.protocol.cohort.voxels.affine)
    text = call("evaluate", "--samples", folder, "--name", "again", "--bench", bench.folder).stdout
    text = " ".join(text.split())  # lines end at 80 columns
    assert "again and theirs are the same samples, volume for volume, and they are ranked as one." in text
