"""Several processes sample one run: the files are those of one process."""

from __future__ import annotations

import json
import shutil

import launch
import pytest


@pytest.fixture(scope="module")
def trained(tmp_path_factory, protocol_file):
    """A bench with a trained run."""
    folder = tmp_path_factory.mktemp("trained") / "bench"
    launch.alone("train", "cdpm", "--device", "cpu", "--protocol", protocol_file, "--bench", folder)
    return folder


def files(bench):
    """Every sample with its bytes, and what samples.json says of it but for the time."""
    folder = bench / "runs" / "cdpm"
    listed = json.loads((folder / "samples.json").read_text())["files"]
    for entry in listed:
        del entry["seconds"]
    return listed, {path.name: path.read_bytes() for path in sorted((folder / "samples").iterdir())}


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_samples_are_those_of_one_process(trained, tmp_path, count):
    alone, several = tmp_path / "alone", tmp_path / "several"
    shutil.copytree(trained, alone)
    launch.alone("generate", "cdpm", "--device", "cpu", "--batch", 1, "--bench", alone)
    shutil.copytree(alone, several)
    (several / "runs" / "cdpm" / "samples" / "000001.nii.gz").write_bytes(b"damaged")
    (several / "runs" / "cdpm" / "samples" / "000003.nii.gz").unlink()
    words = ("generate", "--all", "--device", "cpu", "--batch", 1, "--bench", several)
    ends = launch.mribench(count, *words)
    assert [code for code, _, _ in ends] == [0] * count, ends
    assert files(several) == files(alone)
    launch.alone("generate", "--all", "--device", "cpu", "--bench", alone)
    names = sorted(path.name for path in (alone / "runs").iterdir())
    assert sorted(path.name for path in (several / "runs").iterdir()) == names
    assert all(said == "" for _, _, said in ends[1:])
    assert "generate cdpm: done" in ends[0][2]
