"""The builder of cohorts: resuming, refusals, and what is never taken for finished."""

from __future__ import annotations

import numpy as np
import pytest

from mribench.data.cohort import CohortPlan, CohortSpec, open_cohort, volume_path
from mribench.data.grid import paper_grid
from mribench.data.prepare import builder
from mribench.data.prepare.builder import LEDGER, Product, Refusal, Task, make_volumes, write_cohort
from mribench.data.prepare.simulated import simulated_cohort
from mribench.errors import MribenchError

GRID = paper_grid(16)


class Factory:
    """Tasks v0, v1, ... whose outcomes a test may set; `made` lists the volumes that were worked on."""

    def __init__(self, count=6):
        self.outcomes = {f"v{i}": Product(np.full(GRID.shape, i, np.uint16), {}) for i in range(count)}
        self.made_from = dict.fromkeys(self.outcomes, "x")
        self.made = []

    def _make(self, name):
        self.made.append(name)
        return self.outcomes[name]

    def run(self, folder, progress=lambda *_: None):
        self.made.clear()
        tasks = [Task(name, self.made_from[name], lambda n=name: self._make(n)) for name in self.outcomes]
        return make_volumes(folder, GRID, tasks, progress)


@pytest.fixture
def factory():
    return Factory()


def test_a_killed_build_goes_on_volume_by_volume(factory, tmp_path):
    def stop(_what, done, _total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        factory.run(tmp_path, stop)
    with open(tmp_path / LEDGER, "a") as file:
        file.write('{"torn')
    steps = []
    lines = factory.run(tmp_path, lambda *step: steps.append(step))
    assert factory.made == ["v3", "v4", "v5"] and steps == [("volumes", done, 6) for done in (3, 4, 5, 6)]
    assert lines == Factory().run(tmp_path / "unbroken")
    factory.run(tmp_path)
    assert factory.made == []  # the line after the torn one was read


def test_other_inputs_and_altered_voxels_are_made_again(factory, tmp_path):
    factory.run(tmp_path)
    factory.made_from["v1"] = "another input"
    np.save(volume_path(tmp_path, "v2"), np.zeros(3))
    volume_path(tmp_path, "v3").write_bytes(b"")
    volume_path(tmp_path, "v4").unlink()
    factory.run(tmp_path)
    assert factory.made == ["v1", "v2", "v3", "v4"]


def test_a_refusal_stands_and_a_passing_one_is_tried_again(factory, tmp_path):
    factory.outcomes |= {"v1": Refusal("bad"), "v2": Refusal("no memory", passing=True)}
    lines = factory.run(tmp_path)
    assert (lines["v1"].reason, lines["v2"].reason) == ("bad", "no memory") and len(lines) == 6
    factory.run(tmp_path)
    assert factory.made == ["v2"]


def test_voxels_that_the_record_does_not_name_are_removed_when_it_is_written_and_not_before(
    factory, tmp_path
):
    def on_disk():
        return sorted(path.stem for path in (tmp_path / "volumes").iterdir())

    factory.run(tmp_path)
    del factory.outcomes["v5"]
    lines = factory.run(tmp_path)
    assert on_disk() == ["v0", "v1", "v2", "v3", "v4", "v5"]  # the other inputs may be a mistake
    spec = CohortSpec(source="prepared", size=16, train=2, reference=2, holdout=1)
    write_cohort(tmp_path, CohortPlan(spec, 1, ""), {}, [line.as_volume(()) for line in lines.values()])
    assert on_disk() == ["v0", "v1", "v2", "v3", "v4"]


def test_a_disk_that_refuses_ends_the_build_and_refuses_no_volume(factory, tmp_path, monkeypatch):
    def full(path, _array):
        raise MribenchError(f"{path} must be writable")

    with monkeypatch.context() as patch:
        patch.setattr(builder, "write_array", full)
        with pytest.raises(MribenchError, match="must be writable"):
            factory.run(tmp_path)
    assert not (tmp_path / LEDGER).exists()
    factory.run(tmp_path)
    assert len(factory.made) == 6


def test_a_prepared_cohort_is_identified_by_its_volumes_and_a_simulated_one_by_its_recipe(factory, tmp_path):
    lines = factory.run(tmp_path)
    digests = {}
    for source in ("simulated", "prepared"):
        spec = CohortSpec(source=source, size=16, train=2, reference=2, holdout=2)
        for count in (5, 6):
            volumes = [line.as_volume(("train",)) for line in list(lines.values())[:count]]
            cohort = write_cohort(tmp_path, CohortPlan(spec, 1, "p"), {"name": "constant"}, volumes)
            assert cohort.record == open_cohort(tmp_path).record
            digests[source, count] = cohort.digest
    assert digests["simulated", 5] == digests["simulated", 6] and len(set(digests.values())) == 3


@pytest.mark.parametrize("from_train", [False, True])
def test_simulated_subjects_have_their_roles(from_train, tmp_path, monkeypatch):
    volume = np.zeros(GRID.shape, np.float32)
    monkeypatch.setattr("mribench.data.prepare.simulated.simulate", lambda *_: (volume, {"age": 60.0}))
    spec = CohortSpec(
        source="simulated", size=16, train=5, reference=3, holdout=2, reference_from_train=from_train
    )
    cohort = simulated_cohort(tmp_path, CohortPlan(spec, 1, "p"), lambda *_: None)
    sets = {role: cohort.set(role).names for role in ("train", "reference", "holdout")}
    assert {role: len(names) for role, names in sets.items()} == {"train": 5, "reference": 3, "holdout": 2}
    assert (set(sets["reference"]) <= set(sets["train"])) == from_train
    assert not set(sets["holdout"]) & (set(sets["train"]) | set(sets["reference"]))
    assert len(cohort.record.volumes) == cohort.record.recipe["count"] == (7 if from_train else 10)
