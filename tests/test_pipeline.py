"""The whole house through the command line: volumes -> training -> samples -> scores -> report."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mribench.bench.controls import CONTROLS
from mribench.bench.folder import open_bench
from mribench.bench.records import ScoresRecord
from mribench.cli import main
from mribench.errors import MribenchError


def call(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def bench(tmp_path_factory, protocol_file):
    """A bench with a trained cDPM, the controls, scores and a report."""
    folder = tmp_path_factory.mktemp("pipeline") / "bench"
    call("train", "cdpm", "--bench", folder, "--protocol", protocol_file)
    call("generate", "--all", "--bench", folder, "--batch", 2)
    call("report", "--bench", folder)
    return folder


def digests(folder: Path) -> dict[str, bytes]:
    """Weights, samples and scores of every run (without what only says how long it took)."""
    found = {}
    for run in open_bench(folder).runs():
        if run.weights.exists():
            found[f"{run.name} weights"] = run.weights.read_bytes()
        for path in sorted(run.samples_folder.glob("*.nii.gz")):
            found[f"{run.name} {path.name}"] = path.read_bytes()
        if run.scores.exists():
            scores = json.loads(run.scores.read_text())["scores"]
            found[f"{run.name} scores"] = [(s["metric"], s["value"], s["low"], s["high"]) for s in scores]
    return found


def test_the_report_names_every_entrant(bench):
    page = (bench / "report" / "index.html").read_text()
    assert "cDPM" in page and "imulated" in page
    table = pd.read_csv(bench / "report" / "table.csv")
    assert list(table.columns[:2]) == ["run", "model"]
    assert list(table.columns[2:8]) == [
        "MS-SSIM (%)",
        "gap",
        "MMD (x10³)",
        *(f"FID-{v} (central)" for v in "ACS"),
    ]
    assert table["run"][0] == "cdpm" and set(table["run"]) - {"real baseline"} == {"cdpm", *CONTROLS}
    scores = pd.read_csv(bench / "report" / "scores.csv")
    assert len(scores) >= 8 * len({"cdpm", *CONTROLS})
    assert (bench / "report" / "table.tex").exists()


def test_gates_hold_back_copies_and_repeats_and_never_real_people(bench):
    tripped = {}
    for run in open_bench(bench).runs():
        gates = ScoresRecord.read(run.scores).gates
        assert [gate.gate for gate in gates] == [
            "copies",
            "identical",
            "repeats",
            "orientation",
            "joins",
            "anatomy",
        ]
        tripped[run.name] = {gate.gate for gate in gates if gate.passed is False}
    assert tripped["train_copy"] == {"copies"}
    assert "repeats" in tripped["mean_volume"]
    assert tripped["real_heldout"] == tripped["blurred_real"] == set()


def test_scores_tell_controls_apart(bench):
    """Only the grossest faults can be told apart with four volumes of 16^3."""
    scores = pd.read_csv(bench / "report" / "scores.csv").set_index(["run", "metric"])["value"]
    assert abs(scores["noise", "fid_a"]) > abs(scores["real_heldout", "fid_a"])
    assert scores["train_copy", "copy_rate"] >= 0.5 > scores["real_heldout", "copy_rate"]
    assert scores["train_copy", "memorisation"] > 0.5
    assert scores["mean_volume", "ms_ssim"] == pytest.approx(1, abs=1e-4)


def test_a_second_pass_does_nothing(bench):
    before = {p: p.stat().st_mtime_ns for p in (bench / "runs").rglob("*") if p.is_file()}
    for args in (["train", "cdpm"], ["generate", "--all"], ["evaluate", "--all"], ["report"]):
        result = call(*args, "--bench", bench)
        assert "up to date" in result.stderr and "done" not in result.stderr
    assert before == {p: p.stat().st_mtime_ns for p in (bench / "runs").rglob("*") if p.is_file()}
    assert call("verify", "--bench", bench).stdout == "everything is as recorded\n"


def test_other_settings_are_refused_with_the_flag_that_redoes_them(bench):
    result = call("train", "cdpm", "--bench", bench, "--set", "budget=14", code=2)
    assert "config.budget: expected 12, got 14" in result.stderr and "--overwrite" in result.stderr
    result = call("train", "cdpm", "--bench", bench, "--protocol", "demo", code=2)
    assert "another protocol" in result.stderr and "cohort.size: expected 16, got 32" in result.stderr


def test_an_altered_sample_is_found_and_costs_one_entrant_only(bench, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bench, copy)
    run = open_bench(copy).run("noise")
    first, second = (run.samples_folder / f"00000{i}.nii.gz" for i in (0, 1))
    first.write_bytes(second.read_bytes())
    run.scores.unlink()
    assert "voxels differ" in call("verify", "--bench", copy, code=1).stderr
    for path in (copy / "arrays").iterdir():
        path.unlink()
    result = call("evaluate", "--all", "--bench", copy, code=1)
    assert "noise:" in result.stderr
    call("generate", "--all", "--bench", copy)
    call("evaluate", "--all", "--bench", copy)


def test_a_damaged_description_of_samples_is_found_and_repaired(bench, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bench, copy)
    description = open_bench(copy).run("noise").samples_description
    before = description.read_bytes()
    description.write_text("{}")
    assert "not what samples.json records" in call("verify", "--bench", copy, code=1).stderr
    assert call("verify", "--repair", "--bench", copy).stdout.endswith("everything is as recorded\n")
    assert description.read_bytes() == before


def test_two_folders_of_nifti_need_no_bench(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = bench / "runs"
    real, fake = runs / "real_heldout" / "samples", runs / "noise" / "samples"
    result = call("evaluate", "--real", real, "--samples", fake, "--train", runs / "train_copy" / "samples")
    assert "FID-A" in result.stdout
    record = json.loads((tmp_path / "mribench-scores" / "scores.json").read_text())
    values = {s["metric"]: s["value"] for s in record["scores"]}
    assert {"ms_ssim", "mmd", "fid_a", "memorisation"} <= set(values)
    assert all(np.isfinite(v) for v in values.values())


def test_a_folder_becomes_an_entrant(bench, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bench, copy)
    folder = bench / "runs" / "blurred_real" / "samples"
    call("evaluate", "--samples", folder, "--name", "theirs", "--bench", copy)
    call("report", "--bench", copy)
    scores = pd.read_csv(copy / "report" / "scores.csv").set_index(["run", "metric"])["value"]
    assert scores["theirs", "fid_a"] == pytest.approx(scores["blurred_real", "fid_a"], rel=1e-6)
    assert (
        "name must be"
        in call("evaluate", "--samples", folder, "--name", "../x", "--bench", copy, code=2).stderr
    )
    taken = call("evaluate", "--samples", folder, "--name", "cdpm", "--bench", copy, "--overwrite", code=2)
    assert "cdpm is a run of this bench already (model)" in taken.stderr
    assert (copy / "runs" / "cdpm" / "weights.safetensors").exists()


EVERY_STEP = (
    "from mribench import training; training.training_steps.__kwdefaults__['checkpoint_seconds'] = -1; "
)


@pytest.mark.slow
def test_kill_9_anywhere_gives_the_same_weights_samples_and_scores(bench, tmp_path, protocol_file):
    """Each command is killed at random moments after its first product, then left to finish."""
    folder, chance = tmp_path / "bench", random.Random(0)
    for args, product in (
        (["train", "cdpm", "--protocol", str(protocol_file)], "runs/cdpm/checkpoint/state.pt"),
        (["generate", "--all", "--batch", "2"], "runs/cdpm/samples.json"),
        (["evaluate", "--all"], "runs/blurred_real/scores.json"),
    ):
        code = f"{EVERY_STEP}from mribench.cli import main; main()"
        command = [sys.executable, "-c", code, *args, "--bench", str(folder)]
        for _ in range(4):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (folder / product).exists() and process.poll() is None:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 6))
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True)
    ours, theirs = digests(folder), digests(bench)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == value, key


def test_a_failed_metric_is_tried_again_and_fails_the_command(bench, tmp_path, monkeypatch):
    from mribench.metrics.features import slices as features

    copy = tmp_path / "copy"
    shutil.copytree(bench, copy)
    shutil.rmtree(copy / "arrays")

    def refuse(*_, **__):
        raise MribenchError("no weights today")

    with monkeypatch.context() as patched:
        patched.setattr(features, "load_network", refuse)
        result = call("evaluate", "cdpm", "--bench", copy, "--overwrite", code=1)
        assert "no weights today" in result.stderr
        assert "MS-SSIM" in result.stdout  # what could be computed still arrives
    result = call("evaluate", "cdpm", "--bench", copy)
    assert "evaluate cdpm: done" in result.stderr
    assert digests(copy) == digests(bench)


def test_a_torn_record_costs_one_run_only(bench, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bench, copy)
    (copy / "runs" / "cdpm" / "run.json").write_text("{")
    result = call("generate", "--all", "--bench", copy, code=1)
    assert "run.json must be readable JSON" in result.stderr and "make noise: up to date" in result.stderr
    (copy / "runs" / "noise" / "samples.json").write_text("{}")
    result = call("evaluate", "--all", "--bench", copy, code=1)
    assert (
        "samples.json must be a record of mribench/samples/1, but made_from" in result.stderr
        and "evaluate train_copy" in result.stderr
    )
    call("report", "--bench", copy, code=1)
    assert "samples.json" in (copy / "report" / "index.html").read_text()


def test_sampler_settings_may_change_after_training_but_not_unasked(bench, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bench, copy)
    result = call("generate", "cdpm", "--bench", copy, "--set", "calls=3", code=2)
    assert "--overwrite" in result.stderr
    result = call("generate", "cdpm", "--bench", copy, "--set", "base=16", code=2)
    assert "cannot change after training" in result.stderr
    call("generate", "cdpm", "--bench", copy, "--set", "calls=3", "--overwrite")
    call("evaluate", "cdpm", "--bench", copy)
    record = json.loads((copy / "runs" / "cdpm" / "samples.json").read_text())
    assert record["sampler"] == {"calls": 3}
    assert digests(copy)["cdpm 000000.nii.gz"] != digests(bench)["cdpm 000000.nii.gz"]


def test_altered_cohort_volumes_are_refused(bench, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bench, copy)
    volume = next(iter((copy / "cohort" / "volumes").iterdir()))
    np.save(volume, 65535 - np.load(volume))
    assert volume.stem in call("verify", "--bench", copy, code=1).stderr
    call("train", "cdpm", "--bench", copy, "--overwrite", code=1)
