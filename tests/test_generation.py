"""Generation by index, resumable, and the samples as a set."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from mribench import samples
from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Run
from mribench.bench.records import RunRecord
from mribench.data.grid import paper_grid
from mribench.data.nifti import read_nifti
from mribench.errors import MribenchError
from mribench.runtime import Context
from mribench.samples import Source

GRID = paper_grid(16)


def volume(i: int) -> np.ndarray:
    return np.random.default_rng(i).random((16, 16, 16), dtype=np.float32)


class Counting:
    def __init__(self):
        self.made = []

    def __call__(self, numbers):
        self.made += list(numbers)
        return np.stack([volume(i) for i in numbers])


class Killed(Exception):
    pass


def generate(run, make, count=5, made_from="w", stop=None):
    """Write samples; `stop`: break off when that many volumes are made."""

    def progress(what, done, total):
        if done == stop:
            raise Killed

    context = Context(torch.device("cpu"), progress=progress)
    with pytest.raises(Killed) if stop else nullcontext():
        samples.write_samples(run, Source(make, made_from), GRID, count, context, batch=2)


def test_a_killed_generation_makes_only_what_is_missing(tmp_path):
    run, make = Run(tmp_path), Counting()
    generate(run, make, stop=2)
    assert make.made == [0, 1]
    (run.samples_folder / "000001.nii.gz").write_bytes(b"torn")
    generate(run, make)
    assert make.made == [0, 1, 0, 1, 2, 3, 4]  # always the same batches, so that rounding is the same too
    assert samples.are_complete(run, "w", 5)
    assert not samples.are_complete(run, "other", 5)
    before = {p.name: p.read_bytes() for p in run.samples_folder.iterdir()}
    generate(run, make, made_from="other")
    assert {p.name: p.read_bytes() for p in run.samples_folder.iterdir()} == before


def test_samples_read_back_and_are_checked(tmp_path):
    run = Run(tmp_path / "bench" / "runs" / "noise")
    RunRecord(kind="control", model="noise", seed=0, cohort_digest="").write(run.record)
    generate(run, Counting())
    samples = run.samples()
    assert len(samples) == 5 and samples.shape == (16, 16, 16)
    assert np.abs(samples[3] - volume(3)).max() < 1 / 65535
    assert np.allclose(read_nifti(run.samples_folder / "000003.nii.gz").affine, GRID.affine)
    first, second = (run.samples_folder / f"00000{i}.nii.gz" for i in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(
        MribenchError, match=r"voxels differ.*mribench generate --all --bench .*bench --overwrite"
    ):
        samples[0]


def test_headers_and_the_folder_say_that_samples_are_synthetic(tmp_path):
    run = Run(tmp_path)
    generate(run, Counting(), count=2)
    for path in run.samples_folder.glob("*.nii.gz"):
        assert b"synthetic" in nib.load(path).header["descrip"].item()
    told = json.loads(run.samples_description.read_text())
    assert told["DatasetType"] == "derivative" and told["GeneratedBy"][0]["Name"] == "mribench"
    assert {"Name", "BIDSVersion"} <= told.keys() and "synthetic" in told["Name"]


def test_a_damaged_description_is_written_again_and_no_volume_is_made_anew(tmp_path):
    run, make = Run(tmp_path), Counting()
    generate(run, make)
    run.samples_description.write_text("{}")
    assert not samples.are_complete(run, "w", 5)
    generate(run, make)
    assert samples.are_complete(run, "w", 5) and len(make.made) == 5


def test_the_header_text_changes_no_digest_of_voxels(tmp_path):
    digests = []
    for name, origin in (("a", "synthetic"), ("b", "x" * 500)):
        run = Run(tmp_path / name)
        source = Source(Counting(), "w", origin=origin)
        samples.write_samples(run, source, GRID, 2, Context(torch.device("cpu")))
        digests.append([file.digest for file in run.read_samples().files])
        assert run.samples()[1].shape == GRID.shape
    assert digests[0] == digests[1]


def test_controls_made_of_people_do_not_pass_for_synthetic_volumes():
    prepared, simulated = SimpleNamespace(source="prepared"), SimpleNamespace(source="simulated")
    for name, control in CONTROLS.items():
        here, there = (
            samples.control_origin(cohort, name, control.made_of_people) for cohort in (simulated, prepared)
        )
        assert here.startswith("synthetic")
        assert there.startswith("NOT synthetic") == (name != "noise")


def test_a_slab_lies_where_it_was_cut():
    affine = samples.slab_affine(GRID, (6, 10))
    assert affine[2, 3] == pytest.approx(GRID.origin_mm[2] + 6 * GRID.spacing_mm[2])
    assert GRID.affine[2, 3] == pytest.approx(GRID.origin_mm[2])


@pytest.mark.parametrize("size", [20, 24, 48, 100, 160])
def test_samples_of_every_size_read_back(tmp_path, size):
    """NIfTI keeps affines as float32: the digest must not see the difference."""
    grid, run = paper_grid(size), Run(tmp_path)
    cube = np.zeros((1, size, size, size), np.float32)
    cube[0, size // 2] = 1
    samples.write_samples(run, Source(lambda _: cube, ""), grid, 1, Context(torch.device("cpu")))
    assert np.array_equal(run.samples()[0], cube[0])
