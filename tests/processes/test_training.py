"""Several processes train one model: gradients of the whole batch, one voice, and what the death of one does."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import launch
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from resume import volumes

from mribench import processes
from mribench.bench.cohort import start_cohort
from mribench.bench.folder import Run, open_bench, start_bench
from mribench.bench.records import RunRecord
from mribench.cli import main
from mribench.data.cohort import open_cohort
from mribench.errors import UsageError
from mribench.models.cdpm import CDPM
from mribench.models.gan_gp import GANGP
from mribench.models.joint_batch import Rows, rows_of
from mribench.processes import Launch, launch_of
from mribench.runtime import Context, no_progress
from mribench.training import load_generator, plan_training, train, training_steps

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The gradients of one process with the whole batch."""
    path = tmp_path_factory.mktemp("alone") / "gradients.pt"
    ((code, _, said),) = launch.run(1, HERE / "gradients.py", path)
    assert code == 0, said
    return torch.load(path)


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_gradients_are_those_of_one_process_with_the_whole_batch(tmp_path, alone, count):
    ends = launch.run(count, HERE / "gradients.py", tmp_path / "gradients.pt")
    assert [code for code, _, _ in ends] == [0] * count, ends
    found = torch.load(tmp_path / "gradients.pt")
    assert found.keys() == alone.keys()
    for recipe, records in alone.items():
        assert len(records) == len(found[recipe]) > 1
        for here, there in zip(records, found[recipe], strict=True):
            assert here.keys() == there.keys()
            scale = max((float(value.abs().max()) for value in here.values()), default=1.0)
            for name, value in here.items():
                worst = float((value - there[name]).abs().max())
                assert worst <= 1e-8 * scale, f"{recipe}, {name}: {worst / scale}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory, protocol_file):
    """A bench with a cohort."""
    folder = tmp_path_factory.mktemp("processes") / "bench"
    start_cohort(start_bench(folder, str(protocol_file)), no_progress)
    return folder


def words(bench, name, **settings):
    options = [f"--set={key}={value}" for key, value in settings.items()]
    return ["train", "cdpm", "--device", "cpu", "--bench", bench, "--name", name, *options]


def weights(run):
    return safetensors.torch.load_file(run / "weights.safetensors")


def test_a_killed_process_ends_all(bench):
    first, second = launch.start(2, "-m", "mribench", *words(bench, "killed", budget=100_000, batch_size=3))
    progress = bench / "runs" / "killed" / "training.jsonl"
    while not progress.exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    out, said = first.communicate(timeout=60)
    assert (first.returncode, out) == (1, "")
    assert said.count("Error") == 1 and "goes on where it stopped" in said, said


def test_another_number_of_processes_goes_on_from_the_checkpoint(tmp_path):
    """The weights are those of one unbroken process, up to the rounding of sums."""
    config = GANGP.build_config("tiny", **{**GANGP.SMALLEST, "batch_size": 3, "budget": 36})
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    for run in (whole, broken):
        settings = config.model_dump(mode="json")
        RunRecord(kind="model", model="gan_gp", config=settings, seed=3, cohort_digest="x").write(run.record)
    assert [code for code, _, _ in launch.run(2, HERE.parent / "resume.py", broken.folder, 2)] == [0, 0]
    for run in (whole, broken):
        list(training_steps(load_generator(run), volumes(), run, Context()))
    changes = broken.read_record().shared
    assert [(change.step, change.processes) for change in changes] == [(0, 2), (2, 1)]
    unbroken, continued = weights(whole.folder), weights(broken.folder)
    assert all(torch.allclose(unbroken[name], continued[name], atol=1e-4) for name in unbroken)


@pytest.mark.slow
def test_the_first_process_speaks_for_all(bench):
    ends = launch.mribench(2, *words(bench, "shared", budget=12, batch_size=3))
    assert [(code, out) for code, out, _ in ends] == [
        (0, f"{bench / 'runs' / 'shared' / 'weights.safetensors'}\n"),
        (0, ""),
    ]
    assert "train shared: done" in ends[0][2] and ends[1][2] == ""
    assert (
        CliRunner().invoke(main, [*map(str, words(bench, "alone", budget=12, batch_size=3))]).exit_code == 0
    )
    shared, alone = weights(bench / "runs" / "shared"), weights(bench / "runs" / "alone")
    assert all(torch.allclose(shared[name], alone[name], atol=1e-5) for name in alone)


@pytest.fixture
def second_of_two(monkeypatch):
    """This process takes itself for the second of two; nothing is exchanged."""
    monkeypatch.setattr(processes, "_group", processes._Group(Launch(1, 2, 1), None))


def test_every_process_has_its_rows_of_a_batch(second_of_two):
    assert rows_of(5) == Rows(2, 5, 5) and rows_of(5).share == 0.6
    with pytest.raises(UsageError, match="2 processes share batches of 1"):
        rows_of(1)


def test_a_model_that_does_not_say_that_it_shares_batches_is_refused(bench, second_of_two, monkeypatch):
    plan = plan_training(open_bench(bench), cohort := open_cohort(bench / "cohort"), "cdpm", None, {}, 0)
    monkeypatch.setattr(CDPM, "shares_batches", False)
    with pytest.raises(UsageError, match="shares_batches"):
        train(open_bench(bench), cohort, plan, Context())


SLURM = {"SLURM_JOB_ID": "12345", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("variables", "launch_is"),
    [
        ({}, Launch()),
        (SLURM, Launch()),  # the batch script itself
        (
            {
                **SLURM,
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_PROCID": "5",
                "SLURM_LOCALID": "1",
                "MASTER_ADDR": "n1",
            },
            Launch(5, 8, 1, "n1", 31845),
        ),
        (
            {
                "RANK": "3",
                "WORLD_SIZE": "4",
                "LOCAL_RANK": "1",
                "MASTER_ADDR": "n1",
                "MASTER_PORT": "7",
                **SLURM,
            },
            Launch(3, 4, 1, "n1", 7),
        ),
    ],
)
def test_what_launchers_say(variables, launch_is):
    assert launch_of(variables) == launch_is


def test_a_launcher_that_contradicts_itself_is_refused():
    with pytest.raises(UsageError, match="LOCAL_RANK"):
        launch_of({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("agreed", "the volume of the second process must be whole, but is not"),
        ("unnoticed", "the second process is out of luck"),
    ],
)
def test_what_one_process_alone_fails_at_is_said_once_and_ends_all(how, reason):
    ends = launch.run(2, HERE / "alone_fails.py", how)
    assert [(code, out) for code, out, _ in ends] == [(1, ""), (1, "")], ends
    assert sorted(said for _, _, said in ends) == ["", f"Error: {reason}\n"]
