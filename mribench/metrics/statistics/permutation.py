"""Do two samples have one distribution? A permutation test of the squared MMD (Gretton et al. 2012, section 4)."""

from __future__ import annotations

import numpy as np

_PERMUTATIONS = 2000
SEED = 0
TEST = f"permutation-{_PERMUTATIONS}-seed-{SEED}"
ROUNDING = 1e-12  # relative; a split that equals the observed one must count


def permutation_p(gram: np.ndarray, m: int, permutations: int = _PERMUTATIONS, seed: int = SEED) -> float:
    """P(a random split has an unbiased MMD^2 at least as large), from kernel values `[M+N,M+N]`, first set first.

    p = (1 + count) / (1 + permutations), which keeps the level (Phipson and Smyth, Statistical Applications in
    Genetics and Molecular Biology 9, 2010) if the kernel does not depend on which volumes are in which set.
    """
    total = len(gram)
    rng = np.random.default_rng(seed)
    first = np.zeros((total, 1 + permutations))
    first[:m, 0] = 1
    for column in range(1, 1 + permutations):
        first[rng.permutation(total)[:m], column] = 1
    values = _mmd2_of_splits(gram, first, m)
    slack = ROUNDING * max(1e-300, float(np.abs(gram).max()))
    count = int((values[1:] >= values[0] - slack).sum())
    return (1 + count) / (1 + permutations)


def _mmd2_of_splits(gram: np.ndarray, first: np.ndarray, m: int) -> np.ndarray:
    """Unbiased MMD^2 of every split; columns of `first` `[M+N,P]` are 1 for the m members of the first set."""
    n = len(gram) - m
    kernel = gram - np.diag(np.diag(gram))
    products = kernel @ first
    within = (first * products).sum(axis=0)
    of_first = products.sum(axis=0)  # within the first set, and across once
    rest = kernel.sum() - 2 * of_first + within
    values: np.ndarray = within / (m * (m - 1)) + rest / (n * (n - 1)) - 2 * (of_first - within) / (m * n)
    return values
