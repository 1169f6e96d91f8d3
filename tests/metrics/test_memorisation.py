"""Memorisation on similarities that are given, so that every value is known, and on volumes against full matrices."""

from types import SimpleNamespace

import numpy as np
import pytest

from mribench.data.volume_set import VolumeSet
from mribench.metrics import get_metric
from mribench.metrics.arrays import cache as cache_module
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.memorisation import COPY_RATE, MEMORISATION, copies
from mribench.metrics.ms_ssim import ms_ssim_matrix
from mribench.metrics.statistics.jackknife import wilson
from mribench.selftest.contract import phantoms


def arrays(train, holdout, samples=None, held=None, mirrored_train=None, mirrored_holdout=None):
    """A source of the similarities `[N,T]` and `[N,H]`, with digests that are equal where asked.

    Unless given, mirrored samples are unlike everything.
    """
    matrices = {("train", False): np.asarray(train, float), ("holdout", False): np.asarray(holdout, float)}
    for name, mirrored in (("train", mirrored_train), ("holdout", mirrored_holdout)):
        matrix = np.zeros_like(matrices[name, False]) if mirrored is None else np.asarray(mirrored, float)
        matrices[name, True] = matrix
    digests = {
        "samples": samples or [f"s{i}" for i in range(len(train))],
        "holdout": held or [f"h{i}" for i in range(len(holdout[0]))],
        "train": [f"t{i}" for i in range(len(train[0]))],
    }

    def nearest(_, name, k, mirrored=False):
        matrix = matrices[name, mirrored]
        order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(matrix, order, axis=1)

    sets = {name: VolumeSet(name, tuple(d), tuple(d), (1, 1, 1), None) for name, d in digests.items()}
    return SimpleNamespace(sets=sets, nearest=nearest)


def value(metric, source):
    prepared = metric.gather(source)
    return metric.value(prepared, {"samples": np.arange(len(prepared))})


def test_the_interval_of_certain_wins_is_wilsons_in_units_of_the_value():
    metric, sizes = get_metric("memorisation"), {"samples": 8, "train": 30, "holdout": 10}
    assert metric.least_interval(1.0, {**sizes, "train": 10}) == pytest.approx(wilson(1.0, 8))
    low, high = metric.least_interval(1.0, sizes)
    wins = wilson(1.0, 8)[0]
    assert high == pytest.approx(1) and low == pytest.approx((wins / 30) / (wins / 30 + (1 - wins) / 10))


def test_equal_sides_give_the_proportion_of_wins_with_ties_counting_half():
    train = [[0.9, 0.1], [0.2, 0.3], [0.5, 0.4], [0.1, 0.8]]
    holdout = [[0.8, 0.2], [0.6, 0.1], [0.1, 0.5], [0.7, 0.7]]
    assert value(MEMORISATION, arrays(train, holdout)) == pytest.approx(2.5 / 4)


def test_the_larger_side_is_not_favoured():
    """12 training against 4 held-out volumes of one distribution: the former win 3 of 4 times, the value is 1/2."""
    rng = np.random.default_rng(0)
    source = arrays(rng.random((20000, 12)), rng.random((20000, 4)))
    assert MEMORISATION.gather(source)[:, 0].sum() * 12 / 20000 == pytest.approx(0.75, abs=0.01)
    assert value(MEMORISATION, source) == pytest.approx(0.5, abs=0.01)


def test_every_copy_counts_however_many_training_volumes_there_are():
    rng = np.random.default_rng(0)
    train, holdout = rng.random((30, 40)), rng.random((30, 4))
    train[np.arange(30), np.arange(30)] = 1.0
    assert value(MEMORISATION, arrays(train, holdout)) == 1


def test_a_sample_is_not_compared_with_itself_in_the_held_out_set():
    rng = np.random.default_rng(0)
    train, holdout = rng.random((5000, 6)), rng.random((5000, 6))
    names = [f"h{i % 6}" for i in range(5000)]
    holdout[np.arange(5000), np.arange(5000) % 6] = 1.0
    found = value(MEMORISATION, arrays(train, holdout, samples=names))
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
    assert value(COPY_RATE, arrays(similarities, [[0.5]])) == copies


def test_both_sides_search_both_orientations_so_that_the_null_is_one_half():
    """Searching flips on one side only would give 2/3 instead, and with 12 against 4 volumes the same holds."""
    rng = np.random.default_rng(0)
    for sizes in ((5, 5), (12, 4)):
        train, holdout = (rng.random((20000, n)) for n in sizes)
        flipped = {
            f"mirrored_{name}": rng.random((20000, n))
            for name, n in zip(("train", "holdout"), sizes, strict=True)
        }
        assert value(MEMORISATION, arrays(train, holdout, **flipped)) == pytest.approx(0.5, abs=0.01)


def test_a_sample_is_not_compared_with_itself_mirrored_either():
    rng = np.random.default_rng(0)
    train, holdout, flipped = rng.random((4000, 6)), rng.random((4000, 6)), rng.random((4000, 6))
    names = [f"h{i % 6}" for i in range(4000)]
    for matrix in (holdout, flipped):
        matrix[np.arange(4000), np.arange(4000) % 6] = 1.0
    source = arrays(train, holdout, names, mirrored_train=rng.random((4000, 6)), mirrored_holdout=flipped)
    assert value(MEMORISATION, source) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("as_is", "mirrored", "expected"),
    [
        ([0.9, 0.5, 0.4], [0.3, 0.3, 0.3], (0, False, 0.9, 0.5)),
        ([0.9, 0.5, 0.4], [0.2, 0.1, 0.99], (2, True, 0.99, 0.9)),
        ([0.9, 0.5, 0.4], [0.95, 0.1, 0.6], (0, True, 0.95, 0.6)),  # 0.9 is of the same training volume
        ([0.9, 0.5, 0.4], [0.9, 0.8, 0.4], (0, False, 0.9, 0.8)),  # of equals the sample as it is
    ],
)
def test_the_second_is_of_another_training_volume(as_is, mirrored, expected):
    found = copies(arrays([as_is], [[0.5]], mirrored_train=[mirrored]))
    assert (found.neighbour[0], found.mirrored[0], found.similarity[0], found.second[0]) == expected
    assert found.ratio[0] == pytest.approx((1 - expected[2]) / (1 - expected[3]))


def test_the_ratio_of_a_copy_of_two_equal_volumes_is_defined():
    found = copies(arrays([[1.0, 1.0, 0.5]], [[0.5]]))
    assert found.ratio[0] == 1 and found.copied[0]


@pytest.fixture(scope="module")
def real():
    """Volumes that are not symmetric, and samples: two of them held out, the rest fresh, one flipped copy."""
    everyone = phantoms(26, 24, noise=0.3)
    train, holdout, fresh = (everyone.subset(range(*span)) for span in ((0, 9), (9, 16), (16, 20)))
    stacks = [fresh.stack(), holdout.subset([3, 5]).stack(), train.subset([4]).mirrored().stack()]
    volumes = np.concatenate(stacks)
    digests = (*fresh.digests, holdout.digests[3], holdout.digests[5], "flipped")
    samples = VolumeSet("samples", digests, digests, train.shape, lambda i: volumes[i])
    return {"samples": samples, "reference": holdout, "train": train, "holdout": holdout}


def test_values_are_those_of_the_full_matrices_to_the_last_bit(real, monkeypatch):
    x = real["samples"].stack()
    similar = {
        name: np.maximum(*(ms_ssim_matrix(rows, real[name].stack()) for rows in (x, x[..., ::-1].copy())))
        for name in ("train", "holdout")
    }
    itself = np.array(real["samples"].digests)[:, None] == np.array(real["holdout"].digests)
    others = np.where(itself, -np.inf, similar["holdout"])
    win = np.heaviside(similar["train"].max(axis=1) - others.max(axis=1), 0.5)
    expected = np.stack([win / 9, (1 - win) / (7 - itself.sum(axis=1))], axis=1)
    monkeypatch.setattr(cache_module, "pair_matrix", lambda *a, **k: pytest.fail("a full matrix"))
    source = Arrays(real, None)
    assert np.array_equal(MEMORISATION.gather(source), expected)
    found, ordered = copies(source), np.sort(similar["train"], axis=1)
    assert np.array_equal(found.neighbour, similar["train"].argmax(axis=1))
    assert np.array_equal([found.similarity, found.second], ordered[:, :-3:-1].T)
    assert np.array_equal(COPY_RATE.gather(source), [False] * 6 + [True])
    assert found.neighbour[6] == 4 and found.mirrored.tolist() == [False] * 6 + [True]


def test_a_generator_of_flipped_copies_is_caught(real, tmp_path):
    sets = {**real, "samples": real["train"].mirrored()}
    source = Arrays(sets, tmp_path)
    assert value(MEMORISATION, source) == 1
    assert value(COPY_RATE, source) == 1
    again = Arrays({**real, "samples": real["train"]}, tmp_path)  # the cache must not mix up the orientations
    assert not copies(again).mirrored.any() and copies(source).mirrored.all()


def test_mirroring_exchanges_left_and_right_and_nothing_else(real):
    volumes = real["train"]
    mirrored = volumes.mirrored()
    assert np.array_equal(mirrored[0], volumes[0][:, :, ::-1]) and mirrored[0].flags.c_contiguous
    assert mirrored.names == volumes.names and not set(mirrored.digests) & set(volumes.digests)
    assert np.array_equal(mirrored.crop((3, 20))[1], volumes.crop((3, 20)).mirrored()[1])
    assert mirrored.digests == volumes.mirrored().digests
