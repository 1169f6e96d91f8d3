"""The all-pairs engine with kernels that count their work."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.metrics import pairs
from mribench.metrics.mmd import VoxelDistance
from mribench.metrics.pairs import pair_matrix


@dataclass(frozen=True)
class Counting(VoxelDistance):
    """Squared distance that counts compared pairs."""

    compared: list = field(default_factory=list)

    def compare(self, rows, columns):
        self.compared.append(len(rows[0]) * len(columns[0]))
        return super().compare(rows, columns)


@pytest.fixture
def volumes():
    return np.random.default_rng(0).random((7, 4, 5, 6)).astype(np.float32)


def brute_force(a, b):
    return np.array([[((x.astype(float) - y) ** 2).sum() for y in b] for x in a])


@pytest.mark.parametrize("rows", [1, 2, 3, 64])
def test_blocks_and_tiles_cover_every_pair(volumes, monkeypatch, rows):
    monkeypatch.setattr(pairs, "BLOCK_ROWS", rows)
    assert pair_matrix(volumes, None, VoxelDistance()) == pytest.approx(
        brute_force(volumes, volumes), abs=1e-9
    )
    assert pair_matrix(volumes[:3], volumes, VoxelDistance()) == pytest.approx(
        brute_force(volumes[:3], volumes)
    )


def test_symmetric_matrix_costs_about_half(volumes, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 2)
    kernel = Counting()
    pair_matrix(volumes, None, kernel)
    assert sum(kernel.compared) <= 7 * 8 // 2 + 4


def test_finished_blocks_are_not_computed_again(volumes, monkeypatch, tmp_path):
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 2)
    whole = pair_matrix(volumes, volumes[:5], VoxelDistance())

    def stop_after_two_blocks(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair_matrix(volumes, volumes[:5], VoxelDistance(), parts=tmp_path, progress=stop_after_two_blocks)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000-000002.npy", "000002-000004.npy"]
    kernel = Counting()
    resumed = pair_matrix(volumes, volumes[:5], kernel, parts=tmp_path)
    assert np.array_equal(resumed, whole)
    assert sum(kernel.compared) == 3 * 5


def test_a_torn_part_is_computed_again(volumes, tmp_path, caplog):
    whole = pair_matrix(volumes, volumes[:5], VoxelDistance(), parts=tmp_path)
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:50])
    assert np.array_equal(pair_matrix(volumes, volumes[:5], VoxelDistance(), parts=tmp_path), whole)
    assert "computing it again" in caplog.text


def test_progress_ends_at_the_number_of_rows(volumes, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 3)
    seen = []
    pair_matrix(volumes, None, VoxelDistance(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_a_volume_of_another_shape_is_named(volumes):
    mixed = [*volumes, volumes[0][:2]]
    with pytest.raises(MribenchError, match=r"Volume 7 must have the shape \[D,H,W\] = \[4, 5, 6\]"):
        pair_matrix(mixed, None, VoxelDistance())
