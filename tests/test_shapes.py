"""Volumes that are no cubes, from the protocol to the bundle; and cubes, of which no record may change."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from mribench.bench.bundles import read_bundle
from mribench.bench.folder import open_bench
from mribench.bench.protocol import load_protocol
from mribench.bench.records import ScoresRecord
from mribench.cli import main
from mribench.data.cohort import CohortSpec, open_cohort
from mribench.data.grid import Grid, paper_grid
from mribench.data.nifti import write_nifti
from mribench.data.simulate import simulate
from mribench.errors import UsageError
from mribench.files import digest_json
from mribench.metrics import METRICS
from mribench.models import MODELS, get_model
from mribench.reports.page.figures import central_levels
from mribench.selftest import contract

SIDES = (16, 24, 20)  # x, y, z
ARRAY = (20, 24, 16)  # the same as [D,H,W]
PROTOCOL = """
name = "box"
version = 1
seed = 7
[cohort]
source = "simulated"
shape = [16, 24, 20]
train = 4
reference = 4
holdout = 4
[evaluation]
samples = 3
tsne_samples = 3
metrics = ["ms_ssim", "mmd", "fid_a", "fid_c", "fid_s", "memorisation", "copy_rate", "slice_consistency"]
[training]
budget = 6
[training.cdpm]
base = 8
multipliers = [1, 2]
attention_sizes = [12]
mixing_sizes = [24]
tau_max = 6
stage_slices = 3
calls = 2
[training.gan_gp]
channels = [8, 16]
latent = 12
"""
# What these were before volumes could be anything but cubes.
PROTOCOLS = {
    "demo": "5b4247ad05303a25341f884b3e9f474e5d0d2900d8142e35da64812d307d11b0",
    "small": "fa4bdbc939a81f2f49964a78b5231fe16b03e2bc7c481d58b306ee0932aadae2",
    "peng2023": "912ab9a7e61bd2603c2f6efb8ca97b30aff00b0889d0494c2a84e338d208e885",
    "peng2023-heldout": "df3e60146a971561751d191f2a7e24a59e411d177c1fa7e47247abe68bc25f96",
}
GRID_OF_32 = "25f00f9920a1ec03c7991fec4b5049393a439e3f86e449fb7c2d882521e35819"


def call(*args, code=0):
    result = CliRunner().invoke(main, ["-q", *map(str, args)])
    assert result.exit_code == code, result.output
    return result


def spec(**changes):
    return CohortSpec(**{"source": "simulated", "train": 2, "reference": 2, "holdout": 2} | changes)


def test_records_and_digests_of_cubes_are_what_they_were():
    assert {name: load_protocol(name).digest for name in PROTOCOLS} == PROTOCOLS
    assert digest_json(paper_grid(32).model_dump(mode="json")) == GRID_OF_32
    for kind in map(get_model, MODELS):
        written = kind.build_config("tiny").model_dump(mode="json")
        assert written.keys() == kind.Config.model_fields.keys() - {"shape"}


def test_a_cube_is_one_cube_however_it_is_written():
    assert spec(size=16) == spec(shape=[16, 16, 16]) == spec(size=16, shape=[16, 16, 16])
    assert spec(shape=[16] * 3).model_dump(mode="json") == spec(size=16).model_dump(mode="json")
    assert "shape" not in spec(size=16).model_dump() and "voxels" not in paper_grid(16).model_dump()


def test_a_box_is_read_as_it_was_written():
    box = spec(shape=SIDES)
    assert box.model_dump(mode="json")["shape"] == [16, 24, 20]
    assert CohortSpec.model_validate_json(box.model_dump_json()) == box
    assert box.voxels.shape == ARRAY and box.voxels.sides == SIDES
    fov = np.array(box.voxels.spacing_mm) * SIDES
    assert fov == pytest.approx([176, 176, 128])
    config = get_model("cdpm").build_config("tiny", shape=[32, 48, 40])
    assert get_model("cdpm").read_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shape": [16, 24]}, "three whole numbers"),
        ({"shape": [16, 24, 20.5]}, "three whole numbers"),
        ({"shape": "16x24x20"}, "three whole numbers"),
        ({"shape": [True, 24, 20]}, "three whole numbers"),
        ({"shape": [8, 24, 20]}, "at least 16"),
        ({"shape": [16, 24, 600]}, "512"),
        ({"size": 16, "shape": [16, 24, 20]}, "24, its longest side"),
        ({"shape": [16, 24, 20], "grid": paper_grid(24).model_dump()}, "[16, 24, 20] voxels"),
    ],
)
def test_other_boxes_are_refused_by_what_must_hold(given, said):
    with pytest.raises(ValidationError, match=said.replace("[", r"\[")):
        spec(**given)


def test_a_grid_may_be_told_by_spacing_and_origin_alone():
    placed = {"spacing_mm": [5.0, 5.0, 5.0], "origin_mm": [-40.0, -60.0, -30.0]}
    assert spec(shape=SIDES, grid=placed).voxels == Grid(voxels=SIDES, **placed)
    assert spec(size=16, grid=placed).voxels == Grid(size=16, **placed)


def test_a_subject_is_the_same_brain_on_every_grid():
    """World points, not voxel numbers, decide what a subject looks like."""
    millimetres = Grid(voxels=(24, 30, 24), spacing_mm=(7.0, 7.0, 6.0), origin_mm=(-80, -119, -51))
    (boxed, truth), (cubic, usual) = simulate(3, 1, millimetres), simulate(3, 1, 32)
    assert boxed.shape == (24, 30, 24)
    assert truth["brain_cm3"] == pytest.approx(usual["brain_cm3"], rel=0.1)  # a cube cuts the lowest part off
    for volume, grid in ((boxed, millimetres), (cubic, paper_grid(32))):
        i, j, k = np.argwhere(volume > 0.2).mean(axis=0)[::-1]
        assert (grid.affine @ [i, j, k, 1])[:2] == pytest.approx([0, -20], abs=4)


def test_views_show_every_side_in_its_own_length():
    grid = paper_grid(SIDES)
    views = central_levels(np.zeros(ARRAY, np.float32), grid, None, 2.0)
    assert {view: levels.shape for view, levels in views.items()} == {
        "axial": (88, 88),
        "coronal": (64, 88),
        "sagittal": (64, 88),
    }


def test_presets_keep_their_levels_whatever_the_sides_are():
    config = get_model("cdpm").build_config("paper", shape=[144, 192, 160])
    assert config.attention_sizes == (24, 12)  # the third and the last level, as 16 and 8 of 128
    tiny = get_model("cdpm").build_config("tiny", shape=[48, 64, 56], axis="sagittal")
    assert (tiny.mixing_sizes, tiny.slices, tiny.plane) == ((64, 32), 48, (64, 56))
    assert get_model("dpm3d").build_config("tiny", shape=[32, 48, 64]).array_shape == (64, 48, 32)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("ha_gan", {"shape": [32, 48, 40]}, "HA-GAN makes cubes only, because its slabs"),
        ("gan_gp", {"shape": [32, 48, 44]}, "multiples of 8"),
        ("gan_gp", {"shape": [32, 48, 40], "patch": True}, "patch needs a cube"),
        ("cdpm", {"shape": [32, 44, 40]}, "a slice has 44 x 32 pixels"),
        ("cdpm", {"shape": [32, 48, 12]}, "slices = 12"),
        ("dpm3d", {"shape": [32, 48, 36]}, "number of slices must be a multiple of 8"),
    ],
)
def test_a_shape_that_a_model_cannot_make_is_refused_with_the_reason(model, settings, said):
    with pytest.raises(UsageError, match=said):
        get_model(model).build_config("tiny", **settings)


@pytest.mark.parametrize(
    ("model", "sides"),
    [("vae_gan", SIDES), ("alpha_wgan", SIDES), ("cce_gan", SIDES), ("dpm3d", (16, 24, 32)), ("cdpm", SIDES)],
)
def test_models_make_and_learn_boxes(model, sides):
    kind = get_model(model)
    smallest = {name: value for name, value in kind.SMALLEST.items() if name not in ("size", "mixing_sizes")}
    settings = {**smallest, "shape": sides}
    if model in ("cdpm", "dpm3d"):
        settings |= {"attention_sizes": (), "base": 8}
    if model == "cdpm":
        settings |= {"mixing_sizes": (), "axis": "coronal", "heads": 2}
    contract._every_parameter_moves(model, settings)
    contract._samples_are_volumes(model, settings)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """cDPM, a GAN and an adopted folder among boxes, reported and exported."""
    folder = tmp_path_factory.mktemp("boxes") / "bench"
    protocol = folder.parent / "box.toml"
    protocol.write_text(PROTOCOL)
    refused = call("train", "ha_gan", "--bench", folder, "--protocol", protocol, code=2)
    assert "makes cubes only" in refused.output and not (folder / "cohort").exists()
    call("train", "cdpm", "--bench", folder)
    call("train", "gan_gp", "--bench", folder)
    call("adopt", _foreign(folder.parent), "--name", "theirs", "--bench", folder)
    call("generate", "cdpm", "--bench", folder)
    call("generate", "gan_gp", "--bench", folder)
    call("report", "--bench", folder)
    call("export", "--bench", folder, "--out", folder.parent / "boxes.zip")
    return folder


def _foreign(folder: Path) -> Path:
    """Three brains of another program, on a finer grid that is another box."""
    grid = Grid(voxels=(40, 44, 36), spacing_mm=(4.4, 4.2, 4.0), origin_mm=(-85.8, -108.3, -51.0))
    (folder / "theirs").mkdir()
    for i in range(3):
        write_nifti(folder / "theirs" / f"{i}.nii.gz", simulate(99, i, grid)[0], grid.affine)
    return folder / "theirs"


def test_every_step_keeps_the_box(bench):
    cohort = open_cohort(open_bench(bench).cohort_folder)
    assert cohort.set("train")[0].shape == ARRAY == cohort.grid.shape
    for name in ("cdpm", "gan_gp", "theirs", "theirs-door"):
        run = open_bench(bench).run(name)
        image = nib.load(run.samples_folder / "000000.nii.gz")
        assert image.shape == SIDES and np.allclose(image.affine, cohort.grid.affine)
        assert run.read_samples().shape == ARRAY
    assert json.loads((bench / "cohort" / "volumes.json").read_text())["grid"]["voxels"] == list(SIDES)
    assert call("verify", "--bench", bench).stdout == "everything is as recorded\n"


def test_every_entrant_is_scored_ranked_and_drawn(bench):
    asked = set(open_bench(bench).protocol.evaluation.metrics)
    for name in ("cdpm", "gan_gp", "theirs", "theirs-door"):
        scores = ScoresRecord.read(open_bench(bench).run(name).scores)
        assert {score.metric for score in scores.scores} == asked
    table = pd.read_csv(bench / "report" / "table.csv")
    assert {"cdpm", "gan_gp", "theirs"} <= set(table["run"])
    page = (bench / "report" / "index.html").read_text()
    assert "16 x 24 x 20 voxels of 11 x 7.333333333 x 6.4 mm" in page
    assert abs(float(table.set_index("run")["gap"]["theirs"])) < abs(
        float(table.set_index("run")["gap"]["cdpm"])
    )


def test_a_second_pass_does_nothing_and_the_bundle_says_the_box(bench, tmp_path):
    for words in (["train", "cdpm"], ["generate", "gan_gp"], ["evaluate", "--all"]):
        assert "done" not in call(*words, "--bench", bench).stderr
    bundle = read_bundle(bench.parent / "boxes.zip")
    assert bundle.record.cohort.grid.sides == SIDES
    page = tmp_path / "page.html"
    call("compare", bench, bench.parent / "boxes.zip", "--out", page)
    assert "16 x 24 x 20 voxels" in page.read_text()


@pytest.mark.slow
def test_all_metrics_and_gates_judge_boxes(tmp_path):
    metrics = [name for name in METRICS if name != "fid_3d"]  # its weights are in no package
    text = PROTOCOL.replace("[16, 24, 20]", "[32, 48, 40]").replace(" = 4\n", " = 8\n")
    text = re.sub("samples = 3", "samples = 8", text)
    protocol = tmp_path / "box.toml"
    protocol.write_text(re.sub("(?m)^metrics.*$", f"metrics = {json.dumps(metrics)}", text))
    call("train", "gan_gp", "--bench", tmp_path / "bench", "--protocol", protocol)
    call("generate", "--all", "--bench", tmp_path / "bench")
    call("evaluate", "--all", "--bench", tmp_path / "bench")
    for name in ("gan_gp", "real_heldout"):
        record = ScoresRecord.read(open_bench(tmp_path / "bench").run(name).scores)
        assert {score.metric for score in record.scores} == set(metrics)
        assert {gate.gate: gate.passed for gate in record.gates}["identical"] is True
