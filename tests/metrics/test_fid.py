"""The Frechet distance against published values and closed forms."""

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.metrics.fid import FrechetSubsets, frechet_distance


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
    value = frechet_distance(real, fake)
    assert value == pytest.approx(expected[f"fid/{tag}/svd_f64 (oracle)"], rel=1e-5)
    assert frechet_distance(fake, real) == pytest.approx(value, rel=1e-9)


def exact_sample(mean, deviations):
    """Rows whose sample mean and (n - 1) covariance are exactly `mean` and diag(deviations^2)."""
    d = len(deviations)
    scale = np.sqrt((2 * d - 1) / 2)
    arms = scale * np.diag(deviations)
    return np.asarray(mean) + np.concatenate([arms, -arms])


def test_closed_form_of_commuting_gaussians():
    """|m1-m2|^2 + sum (s1-s2)^2."""
    real = exact_sample([0, 0, 0], [1, 2, 3])
    fake = exact_sample([1, 0, -2], [2, 2, 0.5])
    assert frechet_distance(real, fake) == pytest.approx(1 + 4 + (1 + 0 + 6.25), rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 30.0], ids=["centred", "far from 0"])
@pytest.mark.parametrize(
    ("m", "n", "d"), [(60, 50, 200), (60, 50, 20), (60, 15, 20), (15, 60, 20), (21, 60, 20), (4, 3, 1)]
)
def test_subsets_score_as_if_they_were_all(formula_features, m, n, d, offset):
    """More and fewer rows than features on either side, and the step between when rows are left out."""
    real, fake = formula_features(31, m, d) + offset, formula_features(32, n, d, scale=1.3) + offset
    rng, subsets = np.random.default_rng(0), FrechetSubsets(real, fake)
    for left in (0, 1, 2):
        x, y = rng.permutation(m)[: max(2, m - left)], rng.permutation(n)[: max(2, n - 2 * left)]
        assert subsets.distance(x, y) == pytest.approx(frechet_distance(real[x], fake[y]), rel=1e-9)


def test_a_shift_alone_is_its_square(formula_features):
    features = formula_features(31, 30, 100)
    subsets = FrechetSubsets(features, features + 3)
    assert subsets.distance(np.arange(30), np.arange(30)) == pytest.approx(900, rel=1e-9)


def test_zero_against_itself_and_under_reordering(formula_features):
    features = formula_features(31, 40, 64)
    shuffled = features[np.random.default_rng(0).permutation(40)]
    assert frechet_distance(features, shuffled) == pytest.approx(0, abs=1e-9)


def test_a_collapsed_set_has_no_covariance(formula_features):
    real = formula_features(31, 30, 64)
    collapsed = np.repeat(real.mean(0)[None], 5, axis=0)
    assert frechet_distance(real, collapsed) == pytest.approx(real.var(axis=0, ddof=1).sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.ones((4, 3)), np.ones((4, 2)), "equal F"),
        (np.ones((1, 3)), np.ones((4, 3)), "at least 2 rows"),
        (np.ones((4, 3)), np.full((4, 3), np.nan), "finite"),
    ],
)
def test_impossible_inputs_are_refused(real, fake, message):
    with pytest.raises(MribenchError, match=message):
        frechet_distance(real, fake)
    with pytest.raises(MribenchError, match=message):
        FrechetSubsets(real, fake)
