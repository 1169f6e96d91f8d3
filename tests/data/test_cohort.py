"""A finished cohort: its record, which volumes play which role, and verified voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mribench.data import cohort as module
from mribench.data.cohort import CohortPlan, CohortSpec, open_cohort, volume_path
from mribench.data.prepare.builder import Product, Task, make_volumes, write_cohort
from mribench.errors import MribenchError

ROLES = {"a": ("train",), "b": ("train", "reference"), "c": ("reference",), "d": ("holdout",)}
SPEC = CohortSpec(source="simulated", size=16, train=2, reference=2, holdout=1)
VOXELS = {name: np.full((16, 16, 16), 1000 * i, np.uint16) for i, name in enumerate(ROLES, 1)}


@pytest.fixture
def folder(tmp_path):
    """Four constant volumes in their roles."""
    tasks = [Task(name, "", lambda v=voxels: Product(v, {"age": 70.0})) for name, voxels in VOXELS.items()]
    lines = make_volumes(tmp_path, SPEC.voxels, tasks, lambda *_: None)
    entries = [lines[name].as_volume(roles) for name, roles in ROLES.items()]
    write_cohort(tmp_path, CohortPlan(SPEC, 1, "p"), {"name": "constant"}, entries)
    return tmp_path


def test_a_role_has_its_volumes_in_order(folder):
    cohort = open_cohort(folder)
    names = {role: cohort.set(role).names for role in module.ROLES}
    assert names == {"train": ("a", "b"), "reference": ("b", "c"), "holdout": ("d",)}
    np.testing.assert_array_equal(cohort.set("reference")[1], np.float32(3000) / np.float32(65535))
    np.testing.assert_allclose(cohort.train_mean, 1500 / 65535, rtol=1e-6)


def test_an_opened_cohort_verifies_each_volume_once(folder, monkeypatch):
    hashed = []
    digest_volume = module.digest_volume
    monkeypatch.setattr(module, "digest_volume", lambda *a: hashed.append(1) or digest_volume(*a))
    cohort = open_cohort(folder)
    for _ in range(3):
        _ = [cohort.set(role).stack() for role in module.ROLES], cohort.train_mean
    assert len(hashed) == 4


def test_making_a_set_reads_no_voxels(folder):
    for name in ROLES:
        volume_path(folder, name).unlink()
    volumes = open_cohort(folder).set("train")
    assert len(volumes) == 2
    with pytest.raises(MribenchError, match=r"a\.npy must be a readable volume"):
        _ = volumes[0]


def test_altered_volumes_are_named_and_never_used(folder):
    np.save(volume_path(folder, "b"), VOXELS["a"])
    volume_path(folder, "d").write_bytes(b"")
    cohort = open_cohort(folder)
    assert cohort.altered() == ["b", "d"]
    with pytest.raises(MribenchError, match=r"b\.npy must be the volume that volumes.json records"):
        cohort.set("train").stack()


def test_the_record_begins_with_its_schema_and_a_file_of_version_0_1_0_is_read(folder):
    path = folder / "volumes.json"
    record = json.loads(path.read_text())
    assert next(iter(record.items())) == ("schema", "mribench/cohort/1")
    new = open_cohort(folder).record
    del record["schema"], record["sha256"]
    path.write_text(json.dumps({**record, "problems": [{"name": "x", "reason": "torn"}]}))
    old = open_cohort(folder).record
    assert old.volumes == new.volumes and old.digest == new.digest and old.problems[0].record is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "mribench/cohort/2"}, "it is of mribench/cohort/2. Update mribench"),
        ({"schema": "mribench/run/1"}, "it is of mribench/run/1. Restore the file"),
        ({"volumes": [{"name": "a"}]}, r"volumes.0.roles: Field required. Restore the file"),
        ({"grid": None}, "grid: "),
        ({"volumes": None}, "volumes: "),
    ],
)
def test_a_damaged_or_newer_record_is_refused_with_a_sentence(folder, change, message):
    path = folder / "volumes.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    path.write_text(json.dumps({**record, **change}))
    with pytest.raises(MribenchError, match=message):
        open_cohort(folder)


def test_without_a_record_there_is_no_cohort(tmp_path):
    with pytest.raises(MribenchError, match=r"has no volumes.json. Run: mribench prepare SRC"):
        open_cohort(tmp_path)
