"""Precision, recall, density and coverage against published values and by hand."""

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.metrics.prdc import PRDC, prdc


@pytest.mark.parametrize(
    ("tag", "m", "n", "d"),
    [("full_rank m=400 n=300 d=64", 400, 300, 64), ("rank_deficient m=120 n=100 d=256", 120, 100, 256)],
)
def test_published_values(formula_features, expected, tag, m, n, d):
    real = formula_features(31, m, d)
    fake = formula_features(32, n, d, shift=0.05, scale=1.15)
    found = prdc(real, fake, 5)._asdict()
    assert found == pytest.approx(expected[f"prdc/{tag}/prdc package k=5"], abs=1e-9)
    shuffled = np.random.default_rng(0).permutation(m)
    assert prdc(real[shuffled], fake[::-1], 5)._asdict() == pytest.approx(found, abs=1e-12)


def column(*values):
    return np.array(values, dtype=float)[:, None]


def test_by_hand_on_a_line():
    """k = 1. Real balls: 0 and 1 of radius 1, 4 of 3, 9 of 5. Fake balls: 2 and 3 of radius 1, 30 of 27.

    2 lies in the ball of 4 alone, for its distance to 1 is not below 1, and 7 to 9 is not below 5; 3 lies in
    the ball of 4; 30 in none. Real 0 and 1 lie in no fake ball (1 to 2 is not below 1), 4 and 9 in that of 30.
    """
    found = prdc(column(0, 1, 4, 9), column(2, 3, 30), 1)
    assert found == PRDC(precision=2 / 3, recall=1 / 2, density=2 / 3, coverage=1 / 4)


def test_the_boundary_is_outside():
    """Fake 2 lies exactly on the balls of 1 and of 3; the others are far off. The mean of all is exact too."""
    found = prdc(column(1, 0, 3, 4), column(2, 50, 59), 1)
    assert (found.precision, found.density, found.coverage) == (0, 0, 0)


def test_a_collapsed_set_has_no_recall_and_a_scattered_one_no_precision():
    rng = np.random.default_rng(0)
    real, mean = rng.normal(size=(60, 20)), np.zeros((60, 20))
    collapsed, scattered = prdc(real, mean), prdc(real, 10 * rng.normal(size=(60, 20)))
    assert (collapsed.precision, collapsed.recall) == (1, 0)
    assert collapsed.density > 1
    assert (scattered.precision, scattered.density, scattered.coverage) == (0, 0, 0)


def test_coverage_of_equal_laws_is_naeems_expectation():
    """1 - ((n-1)...(n-k)) / ((2n-1)...(2n-k)) for equal sizes (Naeem et al. 2020, section 3.3), any distribution."""
    rng, n, k = np.random.default_rng(3), 40, 5
    found = [prdc(rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), k).coverage for _ in range(300)]
    steps = np.arange(1, k + 1)
    assert np.mean(found) == pytest.approx(1 - np.prod((n - steps) / (2 * n - steps)), abs=0.01)


@pytest.mark.parametrize(
    ("real", "fake", "k", "message"),
    [
        (np.ones((9, 3)), np.ones((9, 2)), 5, "PRDC needs two arrays .* equal F"),
        (np.ones((9, 3)), np.full((9, 3), np.nan), 5, "finite"),
        (np.ones((5, 3)), np.ones((9, 3)), 5, "k \\+ 1 rows"),
        (np.ones((9, 3)), np.ones((9, 3)), 0, "at least 1"),
    ],
)
def test_impossible_inputs_are_refused(real, fake, k, message):
    with pytest.raises(MribenchError, match=message):
        prdc(real, fake, k)
