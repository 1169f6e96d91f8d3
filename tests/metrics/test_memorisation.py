"""Memorisation on similarities that are given, so that every value is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from mribench.metrics.memorisation import COPY_RATE, MEMORISATION


def blocks(train, holdout, samples=None, held=None):
    """A source of the similarities `[N,T]` and `[N,H]`, with digests that are equal where asked."""
    matrices = {"train": np.asarray(train, float), "holdout": np.asarray(holdout, float)}
    digests = {
        "samples": samples or [f"s{i}" for i in range(len(train))],
        "holdout": held or [f"h{i}" for i in range(len(holdout[0]))],
    }

    def nearest(_, name, k):
        order = np.argsort(-matrices[name], axis=1)[:, :k]
        return order, np.take_along_axis(matrices[name], order, axis=1)

    sets = {name: SimpleNamespace(digests=tuple(found)) for name, found in digests.items()}
    return SimpleNamespace(sets=sets, pairs=lambda _, name: matrices[name], nearest=nearest)


def value(metric, source):
    prepared = metric.prepare(source)
    return metric.value(prepared, {"samples": np.arange(len(prepared))})


def test_equal_sides_give_the_share_of_wins_with_ties_counting_half():
    train = [[0.9, 0.1], [0.2, 0.3], [0.5, 0.4], [0.1, 0.8]]
    holdout = [[0.8, 0.2], [0.6, 0.1], [0.1, 0.5], [0.7, 0.7]]
    assert value(MEMORISATION, blocks(train, holdout)) == pytest.approx(2.5 / 4)


def test_the_larger_side_is_not_favoured():
    """12 training against 4 held-out volumes of one law: the former win 3 of 4 times, the value is 1/2."""
    rng = np.random.default_rng(0)
    source = blocks(rng.random((20000, 12)), rng.random((20000, 4)))
    assert MEMORISATION.prepare(source)[:, 0].sum() * 12 / 20000 == pytest.approx(0.75, abs=0.01)
    assert value(MEMORISATION, source) == pytest.approx(0.5, abs=0.01)


def test_every_copy_counts_however_many_training_volumes_there_are():
    rng = np.random.default_rng(0)
    train, holdout = rng.random((30, 40)), rng.random((30, 4))
    train[np.arange(30), np.arange(30)] = 1.0
    assert value(MEMORISATION, blocks(train, holdout)) == 1


def test_a_sample_is_not_compared_with_itself_in_the_held_out_set():
    rng = np.random.default_rng(0)
    train, holdout = rng.random((5000, 6)), rng.random((5000, 6))
    names = [f"h{i % 6}" for i in range(5000)]
    holdout[np.arange(5000), np.arange(5000) % 6] = 1.0
    found = value(MEMORISATION, blocks(train, holdout, samples=names))
    assert found == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("similarities", "copies"),
    [
        ([[0.99, 0.9, 0.5]], 1),  # 0.01 against 0.1
        ([[0.9, 0.81, 0.5]], 0),  # 0.1 against 0.19
        ([[1.0, 1.0, 0.5]], 1),  # a copy of a volume that is in the training set twice
        ([[0.5, 0.5, 0.5]], 0),
    ],
)
def test_a_copy_is_twice_as_near_as_the_next(similarities, copies):
    assert value(COPY_RATE, blocks(similarities, [[0.5]])) == copies
