"""Pruned nearest neighbours equal the full matrix's, ties included, and skip most of scale 1 where they can."""

import doctest

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.metrics import ms_ssim
from mribench.metrics.arrays import nearest, pairs
from mribench.metrics.arrays.nearest import nearest_neighbours
from mribench.metrics.arrays.similarity import Definition
from mribench.metrics.ms_ssim import ms_ssim_matrix


def noise(n, seed=0, shape=(24, 26, 29)):
    return np.random.default_rng(seed).random((n, *shape), dtype=np.float32)


def near_copies():
    """Around two volumes, exact copies among them, so that scores differ by little or not at all."""
    rng = np.random.default_rng(1)
    base = noise(2)[rng.integers(0, 2, 14)]
    strength = rng.choice([0, 1e-4, 1e-3, 1e-2], (14, 1, 1, 1))
    return np.clip(base + strength * noise(14, 2), 0, 1).astype(np.float32)


def constants():
    values = np.float32([0, 0, 0.2, 0.2, 0.5, 0.50001, 1, 1, 0.5, 0.3])
    return np.broadcast_to(values[:, None, None, None], (10, 24, 26, 29)).copy()


def smooth():
    """Of few waves each, so that scores span a wide range."""
    rng = np.random.default_rng(4)
    u = np.indices((24, 26, 29)) / 26
    waves = [
        np.cos(2 * np.pi * np.tensordot(f, u, 1) + p)
        for f, p in zip(rng.integers(0, 3, (12, 3)), rng.random(12), strict=True)
    ]
    mixed = np.tensordot(rng.normal(size=(12, 12)), np.stack(waves), 1)
    return (0.5 + 0.4 * mixed / np.abs(mixed).max()).astype(np.float32)


CASES = {"noise": noise(12), "near copies": near_copies(), "constants": constants(), "smooth": smooth()}


@pytest.mark.parametrize("definition", [None, Definition(7, 2), Definition(3, 1)])
@pytest.mark.parametrize("case", [*CASES, "all"])
def test_equals_brute_force_to_the_last_bit(monkeypatch, case, definition):
    monkeypatch.setattr(pairs, "GROUP_ROWS", 4)
    reference = np.concatenate(list(CASES.values())) if case == "all" else CASES[case]
    queries = np.concatenate([reference[:3], noise(2, 3)])
    matrix = ms_ssim_matrix(queries, reference, definition)
    order = np.argsort(-matrix, axis=1, kind="stable")
    for k in (1, 2, len(reference)):
        found = nearest_neighbours(queries, reference, k, definition)
        assert np.array_equal(found.indices, order[:, :k])
        assert np.array_equal(found.scores, np.take_along_axis(matrix, order[:, :k], axis=1))
        assert k / len(reference) <= found.share <= 1
    assert found.share == 1


def test_most_pairs_of_independent_subjects_need_no_scale_1(formula_volume):
    volumes = np.stack([formula_volume(seed, 32) for seed in range(32)])
    found = nearest_neighbours(volumes[:8], volumes[8:], 1)
    assert found.share < 0.3
    assert np.array_equal(found.indices[:, 0], ms_ssim_matrix(volumes[:8], volumes[8:]).argmax(axis=1))


@pytest.mark.parametrize("module", [ms_ssim, nearest])
def test_examples_in_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried >= 5


def test_impossible_requests_are_refused():
    for k in (0, 13):
        with pytest.raises(MribenchError, match=f"{k} nearest volumes were asked for, but there are 12"):
            nearest_neighbours(noise(2), CASES["noise"], k)
    spoilt = CASES["noise"].copy()
    spoilt[5, 0, 0, 0] = np.nan
    with pytest.raises(MribenchError, match="Volume 5 must be finite"):
        nearest_neighbours(noise(2), spoilt, 1)


def test_progress_ends_at_the_number_of_queries(monkeypatch):
    monkeypatch.setattr(pairs, "GROUP_ROWS", 2)
    seen = []
    nearest_neighbours(noise(3), noise(4), 1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]
