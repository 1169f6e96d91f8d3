"""KID against published values, another library's full subset, and its definition."""

import numpy as np
import pytest
from torch import from_numpy
from torchmetrics.image.kid import poly_mmd

from mribench.errors import MribenchError
from mribench.metrics.kid import kid


@pytest.mark.parametrize(
    ("tag", "m", "n", "d", "rank"),
    [
        ("full_rank m=400 n=300 d=64", 400, 300, 64, 64),
        ("rank_deficient m=120 n=100 d=256", 120, 100, 256, 256),
        ("n=500 d=2048", 500, 500, 2048, 256),
    ],
)
def test_published_values(formula_features, expected, tag, m, n, d, rank):
    real = formula_features(31, m, d, rank)
    fake = formula_features(32, n, d, rank, shift=0.05, scale=1.15)
    oracle = expected[f"kid/{tag}/cubic unbiased all samples (oracle)"]
    subset = expected[f"kid/{tag}/torch-fidelity kernel_mmd first {n} of each"]
    assert kid(real, fake) == pytest.approx(oracle, rel=1e-9)
    assert kid(real[:n], fake) == pytest.approx(subset, rel=1e-9)


def test_torchmetrics_with_one_full_subset(formula_features):
    real, fake = formula_features(31, 40, 32), formula_features(32, 40, 32, shift=0.1)
    assert kid(real, fake) == pytest.approx(float(poly_mmd(from_numpy(real), from_numpy(fake))), rel=1e-9)


def test_two_against_two_by_hand():
    """Features of one number: k(x, y) = (x y + 1)^3."""
    real, fake = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kid(real, fake) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_equal_laws_average_to_zero():
    rng = np.random.default_rng(1)
    values = [kid(rng.normal(size=(20, 8)), rng.normal(size=(30, 8))) for _ in range(200)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.ones((4, 3)), np.ones((4, 2)), "KID needs two arrays .* equal F"),
        (np.ones((1, 3)), np.ones((4, 3)), "at least 2 rows"),
        (np.ones((4, 3)), np.full((4, 3), np.inf), "finite"),
    ],
)
def test_impossible_inputs_are_refused(real, fake, message):
    with pytest.raises(MribenchError, match=message):
        kid(real, fake)
