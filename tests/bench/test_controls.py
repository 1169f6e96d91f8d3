"""Every metric separates from held-out real volumes the controls that it declares to see."""

from __future__ import annotations

import pytest

from mribench.bench import controls
from mribench.bench.cohort import start_cohort
from mribench.bench.folder import create_bench
from mribench.bench.protocol import load_protocol
from mribench.data.prepare.simulated import simulated_cohort
from mribench.evaluation import comparison_sets
from mribench.generation import make_control
from mribench.metrics import get_metric
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.scoring import score_all
from mribench.metrics.statistics.intervals import difference
from mribench.runtime import make_context

METRICS = load_protocol("demo").evaluation.metrics


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Scores of every control under the demo protocol: control -> metric -> Score."""
    bench = create_bench(tmp_path_factory.mktemp("controls"), load_protocol("demo"))
    cohort = start_cohort(bench, lambda *_: None)
    found = {}
    context = make_context("cpu")
    for control, count in controls.possible_controls(cohort, bench.protocol.evaluation.samples):
        assert make_control(bench, cohort, control, count, context) == "done"
        sets = comparison_sets(cohort, bench.run(control.name).samples())
        values, missing = score_all(Arrays(sets, bench.arrays, context=context), METRICS)
        assert not missing
        found[control.name] = {score.metric: score for score in values}
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_declared_faults_are_seen(scores, metric):
    for control in get_metric(metric).detects:
        _, low, _ = difference(scores[control][metric], scores["real_heldout"][metric])
        assert low > 0, f"{metric} does not tell {control} from real_heldout"


def test_every_fault_but_a_mild_blur_is_declared_by_some_metric():
    seen = {control for metric in METRICS for control in get_metric(metric).detects}
    assert seen >= set(controls.CONTROLS) - {"real_heldout", "blurred_real"}


def test_controls_are_functions_of_cohort_index_and_seed(scores, tmp_path):
    protocol = load_protocol("demo")
    counts = {"train": 2, "reference": 2, "holdout": 2}
    protocol = protocol.model_copy(update={"cohort": protocol.cohort.model_copy(update=counts)})
    cohort = simulated_cohort(tmp_path, protocol.cohort_plan, lambda *_: None)
    for control in controls.CONTROLS.values():
        make = controls.make_volumes(cohort, control, seed=1)
        together, alone = make([0, 1]), make([1])
        assert (together[1] == alone[0]).all()
        assert together.shape == (2, 32, 32, 32) and together.min() >= 0 and together.max() <= 1
    assert controls.available(cohort, controls.CONTROLS["real_heldout"], 16) == 2
