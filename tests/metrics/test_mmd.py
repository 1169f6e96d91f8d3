"""MMD against published values, double loops, and its invariances."""

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.metrics.arrays.distances import join_views
from mribench.metrics.mmd import mmd2


@pytest.fixture(scope="module")
def voxels(formula_volume):
    real = np.stack([formula_volume(seed, 32).ravel() for seed in range(11, 19)])
    fake = np.stack([formula_volume(seed, 32, share=0.7).ravel() for seed in range(21, 29)])
    return real.astype(np.float64), fake.astype(np.float64)


@pytest.mark.parametrize(
    ("kernel", "estimator", "key"),
    [
        ("linear", "unbiased", "mmd/linear unbiased, sum over voxels (oracle)"),
        ("linear", "biased", "mmd/linear biased, sum over voxels (alpha-WGAN lineage form)"),
        ("gaussian", "unbiased", "mmd/gaussian median unbiased [value, sigma]"),
        ("gaussian", "biased", "mmd/gaussian median biased [value, sigma]"),
    ],
)
def test_published_values_on_voxels(voxels, expected, kernel, estimator, key):
    known = expected[key][0] if isinstance(expected[key], list) else expected[key]
    assert mmd2(*voxels, kernel=kernel, estimator=estimator) == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize(
    ("tag", "m", "n", "d", "rank"),
    [
        ("full_rank m=400 n=300 d=64", 400, 300, 64, 64),
        ("rank_deficient m=120 n=100 d=256", 120, 100, 256, 256),
        ("n=500 d=2048", 500, 500, 2048, 256),
    ],
)
def test_published_values_on_features(formula_features, expected, tag, m, n, d, rank):
    real = formula_features(31, m, d, rank)
    fake = formula_features(32, n, d, rank, shift=0.05, scale=1.15)
    assert real.sum() == pytest.approx(expected[f"input/features {tag}"]["real_sum"], rel=1e-9)
    known = expected[f"mmd/{tag}/gaussian median unbiased [value, sigma]"][0]
    assert mmd2(real, fake, kernel="gaussian") == pytest.approx(known, rel=1e-5)


def test_gaussian_bank_equals_its_definition_by_double_loop():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(6, 3)), rng.normal(0.5, 1, size=(5, 3))
    median = np.median([np.linalg.norm(real[i] - real[j]) for i in range(6) for j in range(i)])

    def kernel(x, y):
        return np.mean([np.exp(-((x - y) @ (x - y)) / (2 * (f * median) ** 2)) for f in (0.5, 1, 2)])

    within_real = np.mean([kernel(real[i], real[j]) for i in range(6) for j in range(6) if i != j])
    within_fake = np.mean([kernel(fake[i], fake[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([kernel(x, y) for x in real for y in fake])
    assert mmd2(real, fake, kernel="gaussian-bank") == pytest.approx(within_real + within_fake - 2 * across)


def test_biased_linear_mmd_is_the_squared_distance_of_the_means(voxels):
    real, fake = voxels
    shift = real.mean(0) - fake.mean(0)
    assert mmd2(real, fake, estimator="biased") == pytest.approx(shift @ shift, rel=1e-9)


def test_unbiased_mmd_of_equal_laws_averages_to_zero_and_goes_below():
    rng = np.random.default_rng(1)
    values = [
        mmd2(rng.normal(size=(20, 5)), rng.normal(size=(20, 5)), kernel="gaussian-bank") for _ in range(200)
    ]
    assert min(values) < 0
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)


def test_the_biased_form_prefers_a_collapsed_generator():
    """Why the legacy number is labelled and never ranked."""
    rng = np.random.default_rng(2)
    real, good = rng.normal(size=(30, 50)), rng.normal(size=(30, 50))
    collapsed = np.zeros((30, 50))
    assert mmd2(real, collapsed, estimator="biased") < mmd2(real, good, estimator="biased")


def test_views_weigh_equally_whatever_their_scale():
    rng = np.random.default_rng(0)
    views = {
        (name, view): rng.normal(size=(4, 2, 3)) * scale
        for name in ("reference", "samples")
        for view, scale in (("axial", 1), ("coronal", 100), ("sagittal", 0.01))
    }
    joined = join_views(lambda name, view: views[name, view], "reference")
    assert joined.shape == (4, 18)
    assert [(joined[:, 6 * i : 6 * i + 6] ** 2).sum(1).mean() for i in range(3)] == pytest.approx([1, 1, 1])
    first = views["reference", "axial"].reshape(4, 6)
    assert joined[:, :6] / first == pytest.approx(np.full((4, 6), joined[0, 0] / first[0, 0]))


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.ones((4, 3)), np.ones((4, 2)), "equal F"),
        (np.ones((1, 3)), np.ones((4, 3)), "at least 2 rows"),
        (np.ones((4, 3)), np.zeros((4, 3)), "volumes that differ"),
    ],
)
def test_impossible_inputs_are_refused(real, fake, message):
    with pytest.raises(MribenchError, match=message):
        mmd2(real, fake, kernel="gaussian-bank")


def test_unknown_kernel_is_refused():
    with pytest.raises(MribenchError, match="not 'cubic'"):
        mmd2(np.eye(3), np.eye(3), kernel="cubic")
