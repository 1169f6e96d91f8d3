"""Holm and letters by hand and by property; paired tests that hold their level."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind, ttest_rel

from mribench.metrics.score import Score
from mribench.metrics.statistics.comparison import (
    differing,
    holm,
    p_value,
    tie_letters,
)
from mribench.metrics.statistics.intervals import difference, paired
from mribench.metrics.statistics.jackknife import leave_out


def score(metric, value, replicates, *, n=None, **changes):
    record = {
        "metric": metric,
        "title": metric,
        "unit": "",
        "family": metric,
        "ranked": True,
        "value": value,
        "low": value,
        "high": value,
        "interval": "jackknife",
        "better": "lower",
        "target": None,
        "n": n or {side: len(values) for side, values in replicates.items()},
        "version": "0123",
        "signature": "metric",
        "digests": {},
        "seconds": 0.1,
        "replicates": {side: tuple(values) for side, values in replicates.items()},
    }
    return Score(**{**record, **changes})


def of_means(samples, reference=None, metric="m", **changes):
    """The score mean(samples) - mean(reference): its jackknife variances are the classical ones."""
    reference = np.zeros(2) if reference is None else reference
    replicates = {
        "samples": leave_out(lambda kept: samples[kept].mean() - reference.mean(), len(samples)),
        "reference": leave_out(lambda kept: samples.mean() - reference[kept].mean(), len(reference)),
    }
    n = {"samples": len(samples), "reference": len(reference)}
    return score(metric, samples.mean() - reference.mean(), replicates, n=n, **changes)


def test_p_value_is_that_of_welch():
    """With the same reference on both sides, only the samples differ: SciPy's Welch test of two means."""
    rng = np.random.default_rng(0)
    x, y, reference = rng.normal(0, 1, 9), rng.normal(0.7, 2, 9), rng.normal(0, 9, 7)
    expected = ttest_ind(x, y, equal_var=False).pvalue
    assert 0.05 < expected < 0.6
    assert p_value(of_means(x, reference), of_means(y, reference)) == pytest.approx(expected, rel=1e-9)


def test_p_value_is_paired_over_the_reference():
    """Two entrants whose samples carry no error differ by what each reference volume says: a paired t test."""
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 50, 12)
    a, b = shared + rng.normal(0, 1, 12), shared + rng.normal(0.8, 1, 12)
    scores = [
        score("m", one.mean(), {"reference": leave_out(lambda kept, one=one: one[kept].mean(), 12)})
        for one in (a, b)
    ]
    assert p_value(*scores) == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-9)


def test_p_value_agrees_with_the_interval_of_the_difference():
    rng = np.random.default_rng(2)
    a, b = (of_means(rng.normal(size=400), metric="m") for _ in range(2))
    delta, low, high = difference(a, b)
    assert (high - low) / 2 == pytest.approx(norm.ppf(0.975) * math.sqrt(paired(a, b).variance), rel=0.02)
    assert paired(a, b).freedom == pytest.approx(98, rel=0.05)  # two times 50 groups
    assert (p_value(a, b) < 0.05) == (low * high > 0)
    assert delta == a.value - b.value


def test_equal_scores_have_p_1_and_unlike_ones_without_any_error_0():
    flat = {"samples": (1.0, 1.0, 1.0)}
    assert p_value(score("m", 1.0, flat), score("m", 1.0, flat)) == 1
    assert p_value(score("m", 1.0, flat), score("m", 2.0, {"samples": (2.0, 2.0, 2.0)})) == 0


def test_holm_by_hand():
    """Sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, and the last may not fall below .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


def test_holm_as_statsmodels_does_it():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(3).uniform(size=21) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_seven_equal_entrants_are_seldom_told_apart():
    """The family-wise level holds: 150 leaderboards of seven equal entrants with 10 samples each."""
    rng, wrong = np.random.default_rng(4), 0
    for _ in range(150):
        reference = rng.normal(size=10)
        wrong += differing([of_means(rng.normal(size=10), reference) for _ in range(7)]).any()
    assert wrong / 150 < 0.09


def matrix(count, *pairs):
    different = np.zeros((count, count), dtype=bool)
    for i, j in pairs:
        different[i, j] = different[j, i] = True
    return different


@pytest.mark.parametrize(
    ("rank_keys", "pairs", "letters"),
    [
        ([1, 2, 3], [], ["a", "a", "a"]),
        ([1, 2, 3], [(0, 1), (0, 2), (1, 2)], ["a", "b", "c"]),
        ([3, 2, 1], [(0, 1), (0, 2), (1, 2)], ["c", "b", "a"]),
        ([1, 2, 3], [(0, 2)], ["a", "ab", "b"]),
        ([1, 2, 3, 4], [(0, 2), (0, 3)], ["a", "ab", "b", "b"]),
        ([1, 2, 3], [(0, 1)], ["a", "b", "ab"]),  # a vague third is like both
        ([1, 2, 3, 4], [(0, 1), (2, 3)], ["ab", "cd", "ac", "bd"]),
    ],
)
def test_letters_by_hand(rank_keys, pairs, letters):
    assert tie_letters(rank_keys, matrix(len(rank_keys), *pairs)) == letters


def test_letters_say_exactly_what_the_tests_say():
    rng = np.random.default_rng(5)
    for _ in range(300):
        count = int(rng.integers(1, 10))
        different = np.triu(rng.random((count, count)) < rng.random(), 1)
        different |= different.T
        rank_keys = rng.random(count)
        found = [set(text) for text in tie_letters(rank_keys, different)]
        for i, j in itertools.combinations(range(count), 2):
            assert bool(found[i] & found[j]) != different[i, j]
        assert all(found) and "a" in found[int(np.argmin(rank_keys))]


def test_more_groups_than_letters_stay_apart():
    count = 30
    found = tie_letters(np.arange(count), ~np.eye(count, dtype=bool))
    assert found[:2] == ["a", "b"] and found[25:28] == ["z", "a1", "b1"] and len(set(found)) == count
