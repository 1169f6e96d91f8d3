"""What a metric declares, the jackknife in closed form, groups of volumes, and the record of a score."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_ind

from mribench.bench.controls import CONTROLS
from mribench.commands.list import list_metrics
from mribench.errors import MribenchError, UsageError
from mribench.metrics import METRICS, default_metrics, get_metric
from mribench.metrics.metric import Metric
from mribench.metrics.score import Display, Score
from mribench.metrics.statistics.intervals import difference, interval, least_variance, paired
from mribench.metrics.statistics.jackknife import (
    combined,
    half_width,
    jackknife_groups,
    leave_out,
    squared_error,
    wilson,
)


def score(value=1.0, samples=(), reference=(), **changes):
    record = {
        "metric": "fid_a",
        "title": "FID-A",
        "unit": "",
        "family": "fid",
        "ranked": True,
        "value": value,
        "low": value - 1,
        "high": value + 1,
        "interval": "jackknife",
        "better": "lower",
        "target": None,
        "n": {"samples": len(samples), "reference": len(reference)},
        "version": "0123",
        "signature": "metric:fid_a",
        "digests": {},
        "seconds": 0.1,
        "replicates": {"samples": tuple(samples), "reference": tuple(reference)},
    }
    return Score(**{**record, **changes})


def test_jackknife_of_the_mean_is_its_classical_error():
    data = np.random.default_rng(0).normal(size=30)
    replicates = leave_out(lambda kept: data[kept].mean(), 30)
    assert squared_error(data.mean(), replicates, 30) == pytest.approx(data.var(ddof=1) / 30, rel=1e-9)


def test_group_jackknife_of_the_mean_is_the_error_of_its_groups():
    """200 volumes in 50 groups of 4: exactly the variance of the group means over 50."""
    data = np.random.default_rng(0).normal(size=200)
    replicates = leave_out(lambda kept: data[kept].mean(), 200)
    assert len(replicates) == 50
    arrays = data.reshape(50, 4).mean(axis=1)
    assert squared_error(data.mean(), replicates, 200) == pytest.approx(arrays.var(ddof=1) / 50, rel=1e-9)


@pytest.mark.parametrize("n", [2, 100, 101, 149, 500])
def test_groups_cut_the_volumes_into_nearly_equal_parts(n):
    arrays = jackknife_groups(n)
    assert np.array_equal(np.concatenate(arrays), np.arange(n))
    assert len(arrays) == (n if n <= 100 else 50)
    assert max(map(len, arrays)) - min(map(len, arrays)) <= 1


def test_uneven_groups_do_not_turn_bias_into_variance():
    """A statistic that is pure bias, 1 / n, has no error, though groups of 2 and 3 shift it unequally."""
    replicates = leave_out(lambda kept: 1 / len(kept), 101)
    assert len(set(replicates)) == 2
    assert math.sqrt(squared_error(1 / 101, replicates, 101)) < 1e-5


def test_degrees_of_freedom_are_satterthwaites():
    assert combined([(2.0, 11)]) == (2.0, pytest.approx(10))
    assert combined([(2.0, 11), (2.0, 11)]) == (4.0, pytest.approx(20))
    assert combined([(3.0, 16), (1.0, 6)]) == (4.0, pytest.approx(16 / (9 / 15 + 1 / 5)))
    assert half_width(4.0, 10) == pytest.approx(2 * 2.2281, rel=1e-4)
    assert half_width(*combined([(0.0, 5)])) == 0


def test_the_interval_of_a_proportion_ends_at_0_and_1():
    precision, sizes = get_metric("precision"), {"samples": 16, "reference": 16}
    assert interval(precision, 0.9, [(0.04, 16)], sizes)[1] == 1
    assert interval(precision, 0.1, [(0.04, 16)], sizes)[0] == 0
    assert interval(get_metric("density"), 0.9, [(0.04, 16)], sizes)[1] > 1.2


def test_wilsons_interval():
    expected = [tuple(binomtest(k, 16).proportion_ci(0.95, method="wilson")) for k in (0, 5, 16)]
    assert [wilson(k / 16, 16) for k in (0, 5, 16)] == [pytest.approx(x, abs=1e-12) for x in expected]


def test_a_gap_to_a_known_target_has_the_values_own_interval():
    assert score(0.5, better="match", target=0.2).gap_interval == pytest.approx((-0.7, 1.3))


def test_interval_of_a_u_statistic_covers():
    """Mean product over pairs of 20 normal numbers of mean 1: the interval holds 1 in 95 % of cases."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        x = rng.normal(1, 1, 20)

        def pairs(kept, x=x):
            y = x[kept]
            return (y.sum() ** 2 - (y**2).sum()) / (len(y) * (len(y) - 1))

        value = pairs(np.arange(20))
        half = half_width(squared_error(value, leave_out(pairs, 20), 20), 19)
        covered += abs(value - 1) < half
    assert 0.9 < covered / 300 < 0.99


def test_score_survives_json():
    original = score(2.5, samples=(1.0, 2.0), reference=(3.0, 4.0), notes=("a slab",))
    assert Score.model_validate_json(original.model_dump_json()) == original


def test_score_refuses_what_json_cannot_hold():
    with pytest.raises(ValueError, match="finite"):
        score(math.nan)


@pytest.mark.parametrize(
    ("better", "target", "rank_key"), [("lower", None, -3.0), ("higher", None, 3.0), ("match", 0.5, 3.5)]
)
def test_rank_key_by_direction(better, target, rank_key):
    assert score(-3.0, better=better, target=target).rank_key == rank_key


def test_gap_interval_counts_the_error_of_an_estimated_target():
    data = np.random.default_rng(0).normal(size=(2, 10))
    means = [leave_out(lambda kept, row=row: row[kept].mean(), 10) for row in data]
    one = score(
        float(data[0].mean()),
        *means,
        better="match",
        target=float(data[1].mean()),
        target_sides=("reference",),
    )
    welch = ttest_ind(*data, equal_var=False).confidence_interval(0.95)
    assert one.gap_interval == pytest.approx((welch.low, welch.high))


def test_a_gap_of_zero_is_as_uncertain_as_any_other():
    """AUC exactly 1/2: leaving out a win and leaving out a loss move it to either side."""
    replicates = (24 / 49, 25 / 49) * 25
    perfect = score(0.5, replicates, better="match", target=0.5)
    assert squared_error(
        perfect.rank_key, perfect.rank_key_replicates("samples").tolist(), 50
    ) == pytest.approx(0.25 / 49)
    assert sorted(perfect.rank_key_replicates("samples"))[0] < 0


def test_scores_that_count_have_a_least_variance():
    """8 of 8 wins against 4 of 8: the jackknife of the first has no width."""
    half = score(0.5, (3 / 7, 4 / 7) * 4, (0.5,) * 4, better="match", target=0.5)
    sizes = {"samples": 8, "train": 10, "holdout": 10}
    least = least_variance(get_metric("memorisation"), 1.0, sizes)
    sure = score(1.0, (1.0,) * 8, (1.0,) * 4, better="match", target=0.5, least_variance=least)
    low, high = wilson(1.0, 8)
    assert least == pytest.approx(((high - low) / 2 / 1.959964) ** 2)
    assert paired(sure, half).variance == pytest.approx(least + 0.25 / 7)
    assert least_variance(get_metric("fid_a"), 1.0, sizes) == 0


def test_difference_of_two_entrants_cancels_their_shared_reference():
    shared = (1.0, 3.0, 2.0, 6.0)
    a = score(3.0, samples=(2.9, 3.0, 3.1), reference=[3.0 + r for r in shared])
    b = score(2.0, samples=(1.9, 2.0, 2.1), reference=[2.0 + r for r in shared])
    delta, low, high = difference(a, b)
    assert delta == 1
    of_samples = 2 * squared_error(2.0, (1.9, 2.0, 2.1), 3)
    assert (high - low) / 2 == pytest.approx(2.7764 * math.sqrt(of_samples), rel=1e-4)  # t of 4 degrees
    assert difference(b, a)[0] == -1


def test_scores_of_two_definitions_have_no_difference():
    with pytest.raises(MribenchError, match="one definition"):
        difference(score(), score(version="4567"))


class Plain(Metric[None]):
    """The least that a metric must write."""

    def definition(self, arrays):
        return {}

    def gather(self, arrays):
        return None

    def value(self, gathered, keep):
        return 0.0


FACTS = {
    "name": "plain",
    "title": "Plain",
    "measures": "Nothing.",
    "blind_to": "Everything.",
    "better": "lower",
    "family": "plain",
}


def test_a_metric_needs_six_facts_and_three_methods():
    metric = Plain(**FACTS)
    assert (metric.ranked, metric.opt_in, metric.in_slab, metric.display) == (
        False, False, "not compared", Display(),
    )  # fmt: skip
    assert metric.needs == {"samples": 3, "reference": 3} and metric.resampled == ("samples", "reference")
    assert metric.target(None, {}) is None and metric.exchangeable(None) is None
    for fact in FACTS:
        with pytest.raises(TypeError, match=fact):
            Plain(**{name: value for name, value in FACTS.items() if name != fact})
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (Metric,), {})(**FACTS)


def test_a_default_that_a_dataclass_would_ignore_is_refused():
    with pytest.raises(TypeError, match="Silent must annotate its defaults: better, ranked"):

        class Silent(Plain):
            better = "higher"
            ranked = True


def test_every_metric_is_in_the_table_under_its_own_name():
    for name in METRICS:
        metric = get_metric(name)
        assert metric.name == name
        assert {*metric.resampled, *metric.target_resampled} <= set(metric.needs)
        assert metric.proportion_of in (None, *metric.resampled)
        assert set(metric.detects) <= set(CONTROLS)
        assert (metric.better == "match") == (name in MATCH)
        assert metric.measures.endswith(".") and metric.blind_to.endswith(".")


MATCH = {
    *("ms_ssim", "mmd", "memorisation", "kid_a", "kid_c", "kid_s", "mmd_voxel", "ms_ssim_kwon2019"),
    "anatomy",
    "slice_consistency",
}


def test_a_metric_that_opts_in_is_no_default():
    assert set(METRICS) - set(default_metrics()) == {"ms_ssim_kwon2019", "fid_3d"}


def test_the_list_of_metrics_comes_from_their_classes(monkeypatch):
    monkeypatch.setitem(METRICS, "plain", f"{__name__}:PLAIN")
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(PLAIN=Plain(**FACTS, unit="mm", opt_in=True)))
    assert list_metrics()[-1] == {
        "metric": "plain",
        "title": "Plain",
        "unit": "mm",
        "family": "plain",
        "ranked": False,
        "default": False,
        "better": "lower",
        "needs": {"samples": 3, "reference": 3},
        "in a slab": "not compared",
        "detects": [],
        "package": "",
    }


def test_unknown_metric_has_a_guess():
    with pytest.raises(UsageError, match="Did you mean 'ms_ssim'"):
        get_metric("msssim")
