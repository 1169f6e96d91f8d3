"""`mribench status`: what runs now, by whom, and how far every run is."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mribench.bench import activity as module
from mribench.bench import locks
from mribench.bench.activity import Activity, Announcer, activities
from mribench.bench.folder import create_bench
from mribench.bench.protocol import load_protocol
from mribench.bench.records import RunRecord, TrainingStep
from mribench.cli import main
from mribench.commands.console import display
from mribench.files import append_json_line


@pytest.fixture
def bench(tmp_path):
    return create_bench(tmp_path / "bench", load_protocol("demo"))


def status(bench, *options):
    result = CliRunner().invoke(main, ["status", "--bench", str(bench.folder), *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def written(bench, process):
    path = bench.folder / "locks" / f"activity-{process.split()[1]}.json"
    Activity(process=process, work="pairs", done=3, total=9, started=1.0, updated=2.0).write(path)


def test_nothing_runs_on_a_new_bench(bench):
    assert status(bench) == "No command works on this bench.\n"


def test_a_display_tells_other_terminals_while_it_works_and_nothing_afterwards(bench, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with display(quiet=True) as screen:
        screen.announce_at(bench.folder)
        screen.report("train cdpm", 0, 100)
        screen.report("train cdpm", 25, 100, "loss 0.5")
        now = activities(bench.folder)
        text = status(bench)
    assert [(a.work, a.done, a.total, a.note) for a in now] == [("train cdpm", 25, 100, "loss 0.5")]
    assert now[0].seconds_left > 0
    assert text.startswith("now: train cdpm: 25/100, ") and "loss 0.5" in text
    assert activities(bench.folder) == []


def test_the_file_is_not_written_again_within_two_seconds(bench):
    announcer = Announcer(bench.folder)
    for done in range(5):
        announcer.announce("samples", done, 9, None, "")
    assert activities(bench.folder)[0].done == 0
    announcer.announce("scores", 1, 9, None, "")
    assert activities(bench.folder)[0].work == "scores"


def test_a_process_that_has_ended_is_left_out_and_one_of_another_machine_is_believed(bench):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    written(bench, locks.process_identity(child.pid))
    assert len(activities(bench.folder)) == 1
    child.communicate(b"\n")
    assert activities(bench.folder) == []
    written(bench, "elsewhere 123 456")
    assert [a.process for a in activities(bench.folder)] == ["elsewhere 123 456"]


def test_a_damaged_file_is_left_out(bench):
    written(bench, locks.process_identity(os.getpid()))
    path = next((bench.folder / "locks").glob("activity-*"))
    path.write_text(path.read_text().replace('"done": 3', '"done": 4'))
    assert activities(bench.folder) == []


def test_a_folder_that_is_gone_or_may_only_be_read_stops_no_work(tmp_path):
    Announcer(tmp_path / "none").announce("samples", 0, 9, None, "")
    (tmp_path / "locks").write_text("a file in the place of the folder")
    Announcer(tmp_path).announce("samples", 0, 9, None, "")
    assert not (tmp_path / "none").exists()


def test_every_run_says_how_far_it_is_and_what_comes_next(bench):
    run = bench.run("cdpm")
    RunRecord(kind="model", model="cdpm", seed=0, config={"budget": 600}).write(run.record)
    for step in (1, 2):
        line = TrainingStep(step=step, seen=2 * step, seconds=1.0, losses={"loss": 0.25})
        append_json_line(run.progress, line.model_dump(mode="json"))
    with open(run.progress, "a") as file:
        file.write('{"step": 3, "se')
    text = status(bench)
    assert "cdpm: step 2, 4 of 600 volumes seen, loss 0.25; next: mribench train cdpm" in text
    (run.samples_folder).mkdir()
    (run.samples_folder / "000000.nii.gz").touch()
    row = json.loads(status(bench, "--json"))["runs"][0]
    assert (row["step"], row["samples"], row["samples_wanted"], row["scored"]) == (2, 1, 16, False)
    run.record.write_text("{")
    assert "readable JSON" in status(bench)


def test_without_proc_a_process_is_known_by_what_ps_says(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(locks, "_PROCESSES", tmp_path / "none")
    monkeypatch.setattr(
        locks.subprocess,
        "run",
        lambda *_, env, **__: (
            asked.append(env) or subprocess.CompletedProcess([], 0, "Mon Jan  1 10:00 2026\n")
        ),
    )
    assert locks.process_identity(7) == f"{platform.node()} 7 Mon-Jan-1-10:00-2026"
    assert (asked[0]["LC_ALL"], asked[0]["TZ"]) == (
        "C",
        "UTC",
    )  # the same words for every user of the machine
    monkeypatch.setattr(locks.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, ""))
    assert locks.process_identity(7).endswith(" 7 gone")
