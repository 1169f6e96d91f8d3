"""The headline against closed forms, its probabilities against quadrature and simulation, and what is counted twice."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from mribench.metrics.score import RealBaseline, Score
from mribench.metrics.statistics.headline import Headlines, headlines, rank_chances
from mribench.metrics.statistics.intervals import jackknife, second_order
from mribench.metrics.statistics.jackknife import half_width, leave_out, squared_error

HALF = half_width(1.0, math.inf)
UNIT = RealBaseline(value=0.0, low=-HALF, high=HALF, n=9, how="real")  # an excess is the value itself


def of_means(samples, reference, metric="m", **changes):
    """The score mean(samples) - mean(reference): its jackknife variances are the classical ones."""
    value = samples.mean() - reference.mean()
    fields = {
        "metric": metric, "title": metric, "unit": "", "family": metric, "ranked": True, "value": value, "low": value,
        "high": value, "interval": "jackknife", "better": "lower", "target": None, "version": "0", "signature": "m",
        "n": {"samples": len(samples), "reference": len(reference)}, "digests": {}, "seconds": 0.1,
        "real_baseline": UNIT,
        "replicates": {
            "samples": leave_out(lambda rest: samples[rest].mean() - reference.mean(), len(samples)),
            "reference": leave_out(lambda rest: samples.mean() - reference[rest].mean(), len(reference)),
        },
    }  # fmt: skip
    return Score(**{**fields, **changes})


def known(values, covariance):
    return Headlines(np.array(values, float), np.array(covariance, float), np.zeros(len(values), int))


def test_the_error_covers_own_samples_and_the_shared_reference():
    rng = np.random.default_rng(0)
    x, y, reference = rng.normal(size=12), rng.normal(1, 2, size=12), rng.normal(size=9)
    headline = headlines([[{"m": of_means(x, reference)}], [{"m": of_means(y, reference)}]], [["m"]])
    shared = reference.var(ddof=1) / 9
    expected = [[x.var(ddof=1) / 12 + shared, shared], [shared, y.var(ddof=1) / 12 + shared]]
    assert headline.covariance == pytest.approx(np.array(expected))
    assert headline.values == pytest.approx([x.mean() - reference.mean(), y.mean() - reference.mean()])


def test_a_worse_family_decides_and_one_of_two_metrics_counts_half():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=9)
    a, b, c = (
        of_means(rng.normal(shift, size=12), reference, m) for m, shift in (("a", 1), ("b", 5), ("c", 2))
    )
    headline = headlines([[{"a": a, "b": b, "c": c}]], [["a", "b"], ["c"]])
    assert headline.values[0] == pytest.approx((a.value + b.value) / 2) and headline.families[0] == 0


def test_equal_entrants_share_their_places_and_a_certain_order_is_certain():
    assert rank_chances(known([2, 2, 2], np.eye(3))).mean(axis=0) == pytest.approx([1 / 3] * 3)
    assert rank_chances(known([1, 1], np.zeros((2, 2)))).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    certain = rank_chances(known([2, 0, 1], np.zeros((3, 3))))
    assert certain == pytest.approx(np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), abs=1e-3)


def test_what_all_entrants_share_changes_nothing():
    values, own = [0.0, 0.8, 1.5], np.diag([1.0, 0.5, 0.8])
    assert rank_chances(known(values, own + 50)) == pytest.approx(rank_chances(known(values, own)), abs=0.01)


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_two_entrants_by_quadrature(distance):
    """With error variance s of the difference, shrinkage u: posterior mean d (1 - u), variance s (1 - u)."""
    s = 2.0

    def evidence(u):
        return norm.pdf(distance, scale=math.sqrt(s / u))

    def better(u):
        return norm.cdf(distance * math.sqrt(1 - u) / math.sqrt(s))

    top = 2 / 3 * quad(lambda u: evidence(u) * better(u), 0, 1)[0] + evidence(1) / 3 * 0.5
    bottom = 2 / 3 * quad(evidence, 0, 1)[0] + evidence(1) / 3
    assert rank_chances(known([0, distance], np.eye(2)))[0, 0] == pytest.approx(top / bottom, abs=0.015)


def test_chances_hold_on_equal_close_and_far_entrants_and_plain_draws_do_not():
    rng = np.random.default_rng(2)
    said, plain, was = [], [], []
    for _ in range(400):
        true = rng.normal(size=4) * rng.choice([0.0, 0.7, 4.0])
        headline = known(true + rng.normal(size=4), np.eye(4))
        drawn = headline.values + rng.normal(size=(500, 4))
        said += rank_chances(headline, 500)[:, 0].tolist()
        plain += np.bincount(drawn.argmin(axis=1), minlength=4).tolist()
        was += ((true == true.min()) / (true == true.min()).sum()).tolist()
    said, plain, was = np.array(said), np.array(plain) / 500, np.array(was)
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 1.01)):
        inside = (said >= low) & (said < high)
        assert inside.sum() > 200 and abs(said[inside].mean() - was[inside].mean()) < 0.05
    sure = (plain > 0.6) & (plain < 0.95)
    assert plain[sure].mean() - was[sure].mean() > 0.1  # what draws about the observed scores claim


def trainings(rng, centres, spread, reference):
    """Of every centre a model with one or several trainings."""
    return [
        [{"m": of_means(rng.normal(c + spread * z, 0.1, size=20), reference)} for z in zs]
        for c, zs in centres
    ]


def test_several_trainings_are_one_entrant_whose_error_includes_the_seed():
    rng, reference = np.random.default_rng(3), np.random.default_rng(4).normal(size=9) * 0.01
    entrants = trainings(rng, [(1, [-1, 0, 1]), (2, [0])], 3.0, reference)
    headline = headlines(entrants, [["m"]])
    values = [run["m"].value for run in entrants[0]]
    assert headline.values[0] == pytest.approx(np.mean(values))
    assert headline.covariance[0, 0] == pytest.approx(1.32**2 * np.var(values, ddof=1) / 3, rel=0.02)
    assert headline.covariance[1, 1] == pytest.approx(3 * headline.covariance[0, 0], rel=0.02)
    alone = headlines([entrants[0][:1], entrants[1]], [["m"]])
    assert rank_chances(alone)[:, 0].max() > 0.99 > rank_chances(headline)[:, 0].max()


def product_of_means():
    return SimpleNamespace(
        resampled=("samples", "reference"),
        target_resampled=(),
        target=None,
        proportion_of=None,
        needs={"samples": 3},
        value=lambda sets, keep: (
            sets["samples"][keep["samples"]].mean() * sets["reference"][keep["reference"]].mean()
        ),
    )


def square_of_mean():
    """Unbiased: the mean product of two different samples."""

    def value(sets, keep):
        x = sets["samples"][keep["samples"]]
        return (x.sum() ** 2 - (x**2).sum()) / (len(x) * (len(x) - 1))

    return SimpleNamespace(
        needs={"samples": 3},
        resampled=("samples",),
        target_resampled=(),
        target=None,
        proportion_of=None,
        value=value,
    )


@pytest.mark.parametrize(
    ("metric", "variance"), [(product_of_means(), 1 / (14 * 20)), (square_of_mean(), 2 / (14 * 13))]
)
def test_the_jackknife_counts_terms_of_two_volumes_twice(metric, variance):
    """Both statistics have no term of one volume: the jackknife is twice the variance, without it once."""
    rng, sums, extra = np.random.default_rng(5), [], []
    for _ in range(300):
        sets = {"samples": rng.normal(size=14), "reference": rng.normal(size=20)}
        everything = {side: np.arange(len(sets[side])) for side in metric.resampled}
        replicates = jackknife(metric, sets, everything)
        value = metric.value(sets, everything)
        sums.append(sum(squared_error(value, of, len(of)) for of in replicates.values()))
        extra.append(second_order(metric, sets, everything, replicates))
    assert np.mean(sums) == pytest.approx(2 * variance, rel=0.25)
    assert np.mean(sums) - np.mean(extra) == pytest.approx(variance, rel=0.25)
