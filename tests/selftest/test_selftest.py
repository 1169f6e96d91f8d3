"""The self-test finds planted copies, judges by the intervals it names, resumes, and fails when it has to."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from torch import nn

from mribench.bench.folder import create_bench
from mribench.bench.protocol import EvaluationSpec, Protocol
from mribench.cli import main
from mribench.data.cohort import CohortSpec, open_cohort
from mribench.data.grid import paper_grid, quantise
from mribench.data.prepare.builder import Product, Task, make_volumes, write_cohort
from mribench.data.simulate import simulate
from mribench.metrics import default_metrics, get_metric
from mribench.metrics.arrays import cache as cache_module
from mribench.metrics.features import slices as features
from mribench.metrics.memorisation import Copies
from mribench.metrics.score import Score
from mribench.runtime import make_context
from mribench.selftest import planted, run, verdicts
from mribench.selftest.contract import phantoms
from mribench.selftest.degradations import DEGRADATIONS, Material
from mribench.selftest.record import FreshVolumes, PlantedResult, SelfTest

# The bench of 24^3 has voxels larger than anatomy allows.
COMPUTED = [name for name in default_metrics() if name != "anatomy"]


def protocol(train, reference, holdout, size=32):
    cohort = CohortSpec(source="simulated", size=size, train=train, reference=reference, holdout=holdout)
    evaluation = EvaluationSpec(samples=4, tsne_samples=4)
    return Protocol(name="small", version=1, seed=5, cohort=cohort, evaluation=evaluation)


def call(*args):
    return CliRunner().invoke(main, ["-q", *(str(a) for a in args)])


class Coarse(nn.Module):
    """A network without weights: the slice on a 7 x 7 grid."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x[:, :1], 7).flatten(1)


def phantom_bench(folder, train, reference, holdout):
    """A bench with phantoms for a cohort, 24^3."""
    made = create_bench(folder, protocol(train, reference, holdout, size=24))
    volumes = phantoms(train + reference + holdout, 24, noise=0.2)
    roles = ["train"] * train + ["reference"] * reference + ["holdout"] * holdout
    plan = made.protocol.cohort_plan
    tasks = [
        Task(name, "", lambda i=i: Product(quantise(volumes[i]), {"age": float(i % 7)}))
        for i, name in enumerate(volumes.names)
    ]
    lines = make_volumes(made.cohort_folder, plan.spec.voxels, tasks, lambda *_: None)
    entries = [lines[name].as_volume((role,)) for name, role in zip(volumes.names, roles, strict=True)]
    write_cohort(made.cohort_folder, plan, {}, entries)
    return made


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return phantom_bench(tmp_path_factory.mktemp("selftest"), 8, 8, 16)


@pytest.fixture(scope="module")
def finished(bench):
    """What the command says and writes, quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "load_network", lambda *_: Coarse())
        result = call("selftest", "--quick", "--bench", bench.folder)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result, SelfTest.read(bench.folder / "selftest.json").as_json()


def test_every_fault_and_metric_is_in_the_record_and_the_table(finished):
    result, record = finished
    assert record["metrics"] == list(default_metrics())
    asked = {(fault, metric) for fault in DEGRADATIONS for metric in COMPUTED}
    assert {(v["degradation"], v["metric"]) for v in record["verdicts"]} == asked
    assert record["n"] == {"samples": 8, "reference": 8, "train": 8, "holdout": 8}
    assert record["failures"] == []
    for fault in DEGRADATIONS.values():
        assert f"| {fault.title} ({fault.unit}" in result.stdout
    detects = {(control, name) for name in COMPUTED for control in get_metric(name).detects}
    assert {(c["control"], c["metric"]) for c in record["controls"]} == detects
    assert set(record["first_component"]) == {"age"}


def test_the_exit_code_says_whether_there_were_problems(finished):
    result, record = finished
    assert result.exit_code == (1 if record["problems"] else 0)
    assert all(problem in result.output for problem in record["problems"])


def test_the_csv_holds_every_dose_with_its_verdict(bench, finished):
    _, record = finished
    table = pd.read_csv(bench.folder / "selftest.csv")
    doses = sum(1 + len(d["doses"]) for d in record["degradations"])
    assert len(table) == doses * len(COMPUTED) == len(record["cells"])
    zero = table[table.dose == 0]
    assert (zero.difference == 0).all()
    assert table.groupby("metric").value.nunique().min() > 1
    assert pd.read_csv(io.StringIO(verdicts.as_csv(SelfTest.from_json(record, "record")))).equals(table)


def test_a_second_run_computes_no_array(bench, finished, monkeypatch):
    _, record = finished

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(cache_module, "pair_matrix", refuse)
    monkeypatch.setattr(cache_module, "nearest_neighbours", refuse)
    monkeypatch.setattr(features, "load_network", refuse)
    result = call("selftest", "--quick", "--json", "--bench", bench.folder)
    again = json.loads(result.stdout)
    differing = {key for key in record if record[key] != again[key]}
    assert differing <= {"seconds"}


@pytest.mark.parametrize("problem", [[], ["planted copies (exact): 0 of 4 found"]])
def test_a_problem_is_exit_code_1(bench, finished, monkeypatch, problem):
    record = SelfTest.from_json(finished[1] | {"problems": problem}, "record")
    monkeypatch.setattr(run, "run", lambda *_, **__: record)
    result = call("selftest", "--bench", bench.folder)
    assert result.exit_code == len(problem)
    assert all(one in result.output for one in problem)


@pytest.mark.parametrize("args", [["--volumes", "3"], ["--device", "tpu"], ["extra"]])
def test_wrong_usage_is_exit_code_2(tmp_path, args):
    assert call("selftest", "--bench", tmp_path, *args).exit_code == 2


def test_too_few_held_out_volumes_are_refused(tmp_path):
    phantom_bench(tmp_path, 2, 2, 7)
    result = call("selftest", "--bench", tmp_path)
    assert result.exit_code == 2
    assert "at least 8 held-out volumes, but this cohort has 7" in result.output


def test_probes_and_the_held_out_rest_are_disjoint(bench):
    material = run.material_of(open_cohort(bench.cohort_folder), 4)
    assert len(material.probes) == 4 and len(material.spare) == 8
    assert not set(material.probes.digests) & set(material.spare.digests)


def test_an_odd_number_held_out_leaves_as_many_spare_as_probes(tmp_path):
    material = run.material_of(open_cohort(phantom_bench(tmp_path, 4, 4, 9).cohort_folder), 32)
    assert len(material.probes) == 4 and len(material.spare) == 4
    for name in ("dropped_mode", "other_subjects"):
        assert len(DEGRADATIONS[name].apply(material, 0.5, 0)) == 4


def test_a_bench_is_made_only_where_there_is_none(bench, tmp_path):
    assert run.start_bench(bench.folder, quick=True).protocol.name == "small"
    full, quick = (run.start_bench(tmp_path / str(q), q).protocol for q in (False, True))
    assert full.cohort.train == 2 * quick.cohort.train and full.cohort.size == quick.cohort.size == 32


@pytest.fixture(scope="module")
def garden(tmp_path_factory):
    """Two copies of every kind of four simulated brains at 32^3 among three fresh ones."""
    grid = paper_grid(32)
    scorer = run.Scorer({}, grid, tmp_path_factory.mktemp("garden"), "effnet-lite0", make_context("cpu"))
    brains = scorer.samples(np.stack([simulate(5, i, 32)[0] for i in range(7)]))
    fresh, train = brains.subset(range(3)), brains.subset(range(3, 7))
    scorer.real = {"reference": train, "train": train}
    return Material(fresh, fresh, train), scorer.planted(Material(fresh, fresh, train), 2, seed=1)


def test_planted_copies_are_found_and_no_fresh_volume_is_taken_for_one(garden):
    _, result = garden
    kinds = {row.kind: row for row in result.kinds}
    assert [name for name, row in kinds.items() if row.must_be_found and row.found < 2] == []
    assert sum(row.must_be_found for row in kinds.values()) == 7
    assert kinds["exact"].largest_ratio < 1e-6 > kinds["mirrored"].largest_ratio
    assert result.fresh.taken_for_copies == 0 and result.fresh.volumes == 3
    assert planted.problems(result) == []


@pytest.mark.parametrize("wrong", ["neighbour", "mirrored", "similarity"])
def test_a_copy_counts_as_found_only_with_its_source_and_orientation(garden, wrong):
    material, _ = garden
    planting = planted.plant(material.probes, material.train, 2, seed=1)
    fresh, count = planting.fresh, len(planting.volumes)
    found = Copies(
        neighbour=np.array([0] * fresh + list(planting.sources)),
        mirrored=np.array([False] * fresh + [kind.mirrored for kind in planting.kinds]),
        similarity=np.array([0.9] * fresh + [1.0] * (count - fresh)),
        second=np.full(count, 0.89),
    )
    assert planted.problems(planted.outcome(planting, found)) == []
    spoilt = {"neighbour": found.neighbour + 1, "mirrored": ~found.mirrored, "similarity": found.second}
    result = planted.outcome(planting, found._replace(**{wrong: spoilt[wrong]}))
    assert len(planted.problems(result)) == 7
    greedy = planted.outcome(planting, found._replace(similarity=np.ones(count)))
    assert planted.problems(greedy) == ["3 of 3 fresh real volumes were taken for copies"]


def score(rank_key, error=0.1, count=40):
    """A score of 40 samples whose rank key has that standard error."""
    pattern = np.resize([1.0, -1.0], count)
    replicates = rank_key + error * pattern / np.sqrt(count - 1)
    half = 1.96 * error
    return Score(
        metric="m",
        title="M",
        unit="",
        family="fid",
        ranked=True,
        value=rank_key,
        low=rank_key - half,
        high=rank_key + half,
        interval="jackknife",
        better="lower",
        target=None,
        n={"samples": count},
        version="1",
        signature="metric:m",
        digests={},
        seconds=0,
        replicates={"samples": tuple(replicates)},
    )


@pytest.mark.parametrize(
    ("rank_keys", "noticed", "monotone"),
    [
        ([0, 1, 2, 3], 1, True),
        ([0, 0.1, 2, 3], 2, True),
        ([0, 1, 0.1, 3], 3, False),  # what is noticed must stay noticed
        ([0, 0, 0, 0], None, True),
        ([0, -1, -2, -3], None, False),
        ([0, 1, 2, 0.2], None, False),
        ([0, 0.25, 0.5, 0.45], 2, True),  # 0.25 is within 1.96 SE of the difference, sqrt(2) x 0.1
    ],
)
def test_verdicts_follow_the_intervals(rank_keys, noticed, monotone):
    scores = [score(rank_key) for rank_key in rank_keys]
    ladder = [(float(dose), {"m": one}) for dose, one in enumerate(scores)]
    (verdict,) = verdicts.verdicts("fault", ladder)
    assert (verdict.notices_from, verdict.monotone) == (noticed, monotone)
    rows = verdicts.cells("fault", ladder)
    assert [row.difference for row in rows] == pytest.approx(
        [rank_key - rank_keys[0] for rank_key in rank_keys]
    )
    assert all(row.difference_low <= row.difference <= row.difference_high for row in rows)


def test_a_metric_that_fails_at_one_dose_gets_no_verdict():
    ladder = [(0.0, {"m": score(0), "other": score(0)}), (1.0, {"m": score(1)})]
    assert [verdict.metric for verdict in verdicts.verdicts("fault", ladder)] == ["m"]


def test_an_unseen_control_is_a_problem():
    base, far, near = {"m": score(0)}, {"m": score(1)}, {"m": score(0.1)}
    results = verdicts.control_results("noise", ["m"], base, far)
    results += verdicts.control_results("mean_volume", ["m"], base, near)
    nothing = PlantedResult(kinds=(), fresh=FreshVolumes(volumes=1, taken_for_copies=0, smallest_ratio=0.9))
    problems = verdicts.problems(results, ["x: broke"], nothing)
    assert problems == ["not computed: x: broke", "m does not detect mean_volume"]


def test_few_volumes_that_point_the_right_way_decide_nothing():
    base, near, wrong = ({"m": score(rank_key, count=16)} for rank_key in (0, 0.1, -0.1))
    near, wrong = (verdicts.control_results("noise", ["m"], base, scores) for scores in (near, wrong))
    assert [(one.seen, one.missed) for one in (*near, *wrong)] == [(False, False), (False, True)]
    assert "Too few volumes to decide: m (noise)" in verdicts._controls_line(near)
