"""The permutation test against all splits, on what it must see, and on its level."""

from itertools import combinations

import numpy as np
import pytest

from mribench.metrics.mmd import mmd2_of_gram
from mribench.metrics.statistics.permutation import _mmd2_of_splits, permutation_p


def gram(*sets):
    rows = np.concatenate(sets)
    return np.exp(-((rows[:, None] - rows[None]) ** 2).sum(-1) / 2)


def every_split(kernel, m):
    total = len(kernel)
    for chosen in combinations(range(total), m):
        rest = [i for i in range(total) if i not in chosen]
        order = [*chosen, *rest]
        yield mmd2_of_gram(kernel[np.ix_(order, order)], m, "unbiased")


def test_it_comes_near_the_proportion_of_all_splits():
    rng = np.random.default_rng(0)
    kernel = gram(rng.normal(size=(4, 2)), rng.normal(0.8, 1, size=(5, 2)))
    splits = list(every_split(kernel, 4))
    exact = np.mean([value >= splits[0] - 1e-12 for value in splits])
    assert permutation_p(kernel, 4, permutations=20000) == pytest.approx(exact, abs=0.01)


def test_one_product_gives_the_mmd_of_each_split():
    rng = np.random.default_rng(1)
    kernel = gram(rng.normal(size=(5, 2)), rng.normal(size=(3, 2)))
    orders = [rng.permutation(8) for _ in range(6)]
    first = np.zeros((8, 6))
    for column, order in enumerate(orders):
        first[order[:5], column] = 1
    expected = [mmd2_of_gram(kernel[np.ix_(o, o)], 5, "unbiased") for o in orders]
    assert _mmd2_of_splits(kernel, first, 5) == pytest.approx(np.array(expected), abs=1e-12)


def test_different_laws_have_the_smallest_p_and_one_set_twice_a_large_one():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, 3))
    assert permutation_p(gram(x, x + 5), 20, permutations=500) == pytest.approx(1 / 501)
    assert permutation_p(gram(x, x[::-1]), 20, permutations=500) > 0.9


def test_identical_volumes_are_not_told_apart():
    assert permutation_p(np.ones((9, 9)), 4, permutations=50) == 1


def test_the_level_is_kept():
    """P(p <= 0.1) = 0.1 for equal distributions, with unequal sizes and one bandwidth for all volumes."""
    rng = np.random.default_rng(3)
    p = [
        permutation_p(gram(rng.normal(size=(8, 2)), rng.normal(size=(13, 2))), 8, permutations=99, seed=i)
        for i in range(400)
    ]
    assert 0.055 < np.mean(np.array(p) <= 0.1) < 0.145
