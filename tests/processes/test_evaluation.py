"""Several processes score one entrant: the arrays and the scores are those of one process, bit for bit."""

from __future__ import annotations

import json
import shutil
import signal
import time

import launch
import pytest

TIMES = {"seconds", "sha256"}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory, protocol_file):
    """A bench with samples of one run."""
    folder = tmp_path_factory.mktemp("sampled") / "bench"
    launch.alone("train", "cdpm", "--device", "cpu", "--protocol", protocol_file, "--bench", folder)
    launch.alone("generate", "cdpm", "--device", "cpu", "--bench", folder)
    return folder


@pytest.fixture(scope="module")
def alone(sampled, tmp_path_factory):
    """The same, scored by one process."""
    folder = tmp_path_factory.mktemp("alone") / "bench"
    shutil.copytree(sampled, folder)
    launch.alone("evaluate", "cdpm", *OPTIONS, "--bench", folder)
    return folder


OPTIONS = ("--device", "cpu", "--memory", "500K")  # holds a few volumes, so that there are several blocks


def without_times(record):
    if isinstance(record, dict):
        return {key: without_times(value) for key, value in record.items() if key not in TIMES}
    return [without_times(value) for value in record] if isinstance(record, list) else record


def results(bench):
    """The scores without times, the nearest volumes, and every array."""
    run = bench / "runs" / "cdpm"
    records = [
        without_times(json.loads((run / name).read_text())) for name in ("scores.json", "nearest.json")
    ]
    return records, {path.name: path.read_bytes() for path in sorted((bench / "arrays").glob("*.npy"))}


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_scores_are_those_of_one_process(sampled, alone, tmp_path, count):
    bench = tmp_path / "bench"
    shutil.copytree(sampled, bench)
    ends = launch.mribench(count, "evaluate", "cdpm", *OPTIONS, "--bench", bench)
    assert [code for code, _, _ in ends] == [0] * count, ends
    assert all(said == out == "" for _, out, said in ends[1:])
    (scores, nearest), arrays = results(bench)
    (expected, near), own = results(alone)
    assert scores == expected and nearest == near
    assert len(scores["scores"]) >= 8
    assert arrays == own and len(own) > 8
    assert not list((bench / "arrays").glob("*.parts"))


@pytest.mark.slow
def test_a_killed_process_costs_its_blocks_alone(sampled, alone, tmp_path):
    bench = tmp_path / "bench"
    shutil.copytree(sampled, bench)
    words = ("evaluate", "cdpm", *OPTIONS, "--bench", bench)
    first, second = launch.start(2, "-m", "mribench", *words)
    while not list((bench / "arrays").glob("*.npy")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    out, said = first.communicate(timeout=60)
    assert first.returncode == 1 and out == "" and said.count("Error") == 1, said
    kept = {path: path.stat().st_mtime_ns for path in (bench / "arrays").glob("*.npy")}
    assert kept
    ends = launch.mribench(3, *words)
    assert [code for code, _, _ in ends] == [0, 0, 0], ends
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert results(bench) == results(alone)
