"""Volumes through a network: one pass, the same features whatever lies beside them, and nothing done twice."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from mribench.data.volume_set import VIEWS
from mribench.errors import MribenchError
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features import medicalnet
from mribench.metrics.features.extraction import slice_features, volume_features
from mribench.metrics.features.slices import EXTRACTORS, grey_slice, load_network, network_input
from mribench.runtime import Context

EFFNET = EXTRACTORS["effnet-lite0"]
COUNT = 18  # a part of 16 volumes and one of 2; the last batch is not full


@pytest.fixture(scope="module")
def effnet():
    return load_network(EFFNET, None)


@pytest.fixture(scope="module")
def cut(formula_volume):
    """Slices of three views of a volume that is no cube."""

    def of(index):
        volume = formula_volume(index + 1, 32)[:, :30, :26]
        return [grey_slice(volume, view, 12) for view in VIEWS]

    return of


@pytest.fixture(scope="module")
def axial(cut):
    return lambda index: cut(index)[:1]


@pytest.fixture(scope="module")
def together(effnet, axial):
    return slice_features(axial, COUNT, effnet, EFFNET)


def test_a_feature_depends_on_its_slice_alone(together, effnet, axial):
    """Alone in a batch, in another place of another batch, and with another number of threads."""
    assert together.shape == (COUNT, 1, 1280) and together.dtype == np.float32
    assert np.abs(together[0] - together[1]).max() > 1e-2
    alone = slice_features(lambda _: axial(17), 1, effnet, EFFNET)
    assert np.abs(alone[0] - together[17]).max() <= 1e-5
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        turned = slice_features(lambda index: axial(COUNT - 1 - index), COUNT, effnet, EFFNET)
    finally:
        torch.set_num_threads(before)
    assert np.abs(turned[::-1] - together).max() <= 1e-5


class Sums(nn.Module):
    """A network at once: the sum of every plane."""

    def forward(self, x):
        return x.sum(dim=(-2, -1)).flatten(1)


def test_rows_are_volumes_and_columns_are_views(cut):
    found = slice_features(cut, COUNT, Sums(), EFFNET)
    assert found.shape == (COUNT, len(VIEWS), 1)
    for index, view in ((0, 2), (17, 1)):
        pixels = network_input(cut(index)[view][None], EFFNET)
        assert found[index, view, 0] == pytest.approx(float(pixels.sum()), rel=1e-5)
    assert len(np.unique(found)) == COUNT * len(VIEWS)


def counted(cut):
    """`cut`, and the list of the volumes it was asked for."""
    asked = []

    def of(index):
        asked.append(index)
        return cut(index)

    return of, asked


def test_every_volume_is_read_once_and_progress_moves_on_the_way(cut):
    reading, asked = counted(cut)
    seen = []
    slice_features(reading, 40, Sums(), EFFNET, progress=lambda done: seen.append((done, len(asked))))
    assert asked == list(range(40))
    assert [done for done, _ in seen] == [16, 32, 40]
    assert seen[0][1] < 40  # not everything was read before the first part was done


def test_a_killed_extraction_goes_on_where_it_stopped(cut, tmp_path):
    whole = slice_features(cut, 40, Sums(), EFFNET)

    def dying(index):
        if index == 39:
            raise MribenchError("killed")
        return cut(index)

    with pytest.raises(MribenchError, match="killed"):
        slice_features(dying, 40, Sums(), EFFNET, parts=tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept and set(kept) <= {"000000-000016.npy", "000016-000032.npy"}
    reading, asked = counted(cut)
    assert np.array_equal(slice_features(reading, 40, Sums(), EFFNET, parts=tmp_path), whole)
    assert asked == list(range(16 * len(kept), 40))
    reading, asked = counted(cut)
    assert np.array_equal(slice_features(reading, 40, Sums(), EFFNET, parts=tmp_path), whole)
    assert asked == []


def test_a_torn_part_is_computed_again(cut, tmp_path, caplog):
    whole = slice_features(cut, 20, Sums(), EFFNET, parts=tmp_path)
    part = tmp_path / "000000-000016.npy"
    part.write_bytes(part.read_bytes()[:-50])
    reading, asked = counted(cut)
    assert np.array_equal(slice_features(reading, 20, Sums(), EFFNET, parts=tmp_path), whole)
    assert asked == list(range(16)) and "computing it again" in caplog.text


def test_whole_volumes_go_one_at_a_time_and_in_order(formula_volume):
    shapes, lock = [], threading.Lock()

    class Watching(nn.Module):
        def forward(self, x):
            with lock:
                shapes.append(tuple(x.shape))
            return x.sum(dim=(-3, -2, -1))

    def read(index):
        return torch.full((1, 1, 2, 3, 4), float(index))

    found = volume_features(read, 5, Watching())
    assert found[:, 0].tolist() == [0, 24, 48, 72, 96]
    assert shapes == [(1, 1, 2, 3, 4)] * 5


@pytest.fixture
def sets(formula_volume, volume_set):
    samples = [formula_volume(seed, 16) for seed in range(1, 5)]
    return {"samples": volume_set("samples", samples), "reference": volume_set("reference", samples[::-1])}


def test_blocks_keep_volume_features_by_the_weights_digest(sets, tmp_path, monkeypatch):
    loaded = []

    def load(path, device):
        loaded.append(path)
        return Sums()

    monkeypatch.setattr(medicalnet, "load_network", load)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    for _ in range(2):
        arrays = Arrays(sets, tmp_path / "cache", context=Context(weights_3d=path))
        first, other = arrays.volume_features("samples"), arrays.volume_features("reference")
    assert len(loaded) == 1 and first.dtype == np.float64
    assert np.array_equal(first, other[::-1])
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == [".npy", ".npy"]
    path.write_bytes(b"another")
    arrays = Arrays(sets, tmp_path / "cache", context=Context(weights_3d=path))
    arrays.volume_features("samples")
    assert len(loaded) == 2
