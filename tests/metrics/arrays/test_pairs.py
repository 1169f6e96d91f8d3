"""The all-pairs engine with kernels that count their work."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from mribench.errors import MribenchError, TooLittleMemory
from mribench.metrics.arrays import pairs
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.arrays.distances import VoxelDistance
from mribench.metrics.arrays.nearest import nearest_neighbours
from mribench.metrics.arrays.pairs import DEFAULT_MEMORY, allot, pair_matrix
from mribench.metrics.arrays.similarity import Definition


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
def test_groups_and_tiles_cover_every_pair(volumes, monkeypatch, rows):
    monkeypatch.setattr(pairs, "GROUP_ROWS", rows)
    assert pair_matrix(volumes, None, VoxelDistance()) == pytest.approx(
        brute_force(volumes, volumes), abs=1e-9
    )
    assert pair_matrix(volumes[:3], volumes, VoxelDistance()) == pytest.approx(
        brute_force(volumes[:3], volumes)
    )


def test_symmetric_matrix_costs_about_half(volumes, monkeypatch):
    monkeypatch.setattr(pairs, "GROUP_ROWS", 2)
    kernel = Counting()
    pair_matrix(volumes, None, kernel)
    assert sum(kernel.compared) <= 7 * 8 // 2 + 4


def test_finished_groups_are_not_computed_again(volumes, monkeypatch, tmp_path):
    monkeypatch.setattr(pairs, "GROUP_ROWS", 2)
    whole = pair_matrix(volumes, volumes[:5], VoxelDistance())

    def stop_after_two_groups(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair_matrix(volumes, volumes[:5], VoxelDistance(), parts=tmp_path, progress=stop_after_two_groups)
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
    monkeypatch.setattr(pairs, "GROUP_ROWS", 3)
    seen = []
    pair_matrix(volumes, None, VoxelDistance(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_a_volume_of_another_shape_is_named(volumes):
    mixed = [*volumes, volumes[0][:2]]
    with pytest.raises(MribenchError, match=r"Volume 7 must have the shape \[D,H,W\] = \[4, 5, 6\]"):
        pair_matrix(mixed, None, VoxelDistance())


@pytest.fixture
def brains():
    """Zeros outside, so that spans differ."""
    volumes = np.random.default_rng(3).random((11, 20, 40, 21)).astype(np.float32)
    volumes[:, :4], volumes[::2, :, 30:], volumes[1::3, ..., :9] = 0, 0, 0
    return volumes


@pytest.fixture
def threads():
    """Sets the number of threads, and back in the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


MS_SSIM = Definition(3, 3)


def state_bytes(volume, kernel=MS_SSIM):
    return sum(tensor.nbytes for tensor in kernel.prepare(torch.from_numpy(volume[None])))


def budget(volume, states, workers=1):
    """Bytes for so many prepared volumes."""
    return states * state_bytes(volume) + workers * pairs.VOLUMES_IN_WORK * volume.nbytes


@pytest.mark.parametrize("states", [2, 3, 5, 9, 40])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_budget_and_threads_change_no_bit(brains, threads, monkeypatch, states, count):
    whole = pair_matrix(brains, None, MS_SSIM)
    found = nearest_neighbours(brains[:4], brains[4:], 2, MS_SSIM)
    threads(count)
    size = budget(brains[0], states, min(count, states - 1))
    assert np.array_equal(pair_matrix(brains, None, MS_SSIM, memory=size), whole)
    assert np.array_equal(pair_matrix(brains[:4], brains, MS_SSIM, memory=size), whole[:4])
    again = nearest_neighbours(brains[:4], brains[4:], 2, MS_SSIM, memory=2 * size)
    assert np.array_equal(again.indices, found.indices)
    assert np.array_equal(again.scores, found.scores)


def test_order_of_tiles_and_groups_changes_no_bit(brains, monkeypatch, tmp_path):
    """Tiles in any order; parts in any order: made by two killed runs from both ends."""
    whole = pair_matrix(brains, None, MS_SSIM)
    ordered = pairs._tiles
    for seed in range(3):
        monkeypatch.setattr(
            pairs, "_tiles", lambda *a, s=seed: random.Random(s).sample(t := ordered(*a), len(t))
        )
        assert np.array_equal(pair_matrix(brains, None, MS_SSIM, memory=budget(brains[0], 7)), whole)
        assert np.array_equal(pair_matrix(brains, brains[:5], MS_SSIM), whole[:, :5])
    pair_matrix(brains, None, MS_SSIM, memory=budget(brains[0], 4), parts=tmp_path)
    made = sorted(tmp_path.iterdir())
    for part in (*made[::2], made[1]):
        part.unlink()
        assert np.array_equal(
            pair_matrix(brains, None, MS_SSIM, memory=budget(brains[0], 4), parts=tmp_path), whole
        )


def test_permuted_volumes_permute_the_matrix(brains):
    order = np.random.default_rng(0).permutation(len(brains))
    whole = pair_matrix(brains, None, MS_SSIM)
    assert np.array_equal(whole, whole.T)
    assert np.array_equal(np.diag(whole), np.ones(len(brains)))
    assert np.array_equal(pair_matrix(brains[order], None, MS_SSIM), whole[np.ix_(order, order)])
    assert np.array_equal(pair_matrix(brains[order], brains, MS_SSIM), whole[order])


def test_parts_of_another_budget_are_never_misread(brains, tmp_path):
    whole = pair_matrix(brains, None, MS_SSIM)
    for states in (4, 9, 3, 40, 4):
        size = budget(brains[0], states)
        assert np.array_equal(pair_matrix(brains, None, MS_SSIM, memory=size, parts=tmp_path), whole)


@dataclass(frozen=True)
class Weighing(Definition):
    """MS-SSIM that counts the states that are alive, copies of them by the engine excepted."""

    alive: list = field(default_factory=list)
    most: list = field(default_factory=list)

    def prepare(self, volumes, first=0):
        state = super().prepare(volumes, first)
        self.alive.append(1)
        self.most.append(len(self.alive))
        weakref.finalize(state[0], self.alive.pop)
        return state


def search(volumes, kernel, memory):
    """Its states hold the coarse scales twice for a moment, and so need a larger budget."""
    nearest_neighbours(volumes[:9], volumes[9:], 1, kernel, memory=memory + state_bytes(volumes[0]))


JOBS = {
    "symmetric": lambda volumes, kernel, memory: pair_matrix(volumes, None, kernel, memory=memory),
    "rectangular": lambda volumes, kernel, memory: pair_matrix(
        volumes[:9], volumes[9:], kernel, memory=memory
    ),
    "nearest": search,
}


@pytest.mark.parametrize("states", [2, 3, 6, 12, 30])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("job", JOBS)
def test_memory_stays_within_the_budget(threads, job, states, count):
    """All that numpy allocates; and of states not copied into a group, one per worker (a search copies none)."""
    threads(count)
    volumes = np.random.default_rng(0).random((20, 48, 48, 64)).astype(np.float32)
    size, kernel = budget(volumes[0], states, min(count, states - 1)), Weighing(3, 3)
    pair_matrix(volumes[:2], None, Definition(3, 3))  # compiles outside of the count
    tracemalloc.start()
    JOBS[job](volumes, kernel, size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scratch = 10**6  # the matrix, rings
    assert peak <= size + scratch + (state_bytes(volumes[0]) if job == "nearest" else 0)
    if job != "nearest":
        assert max(kernel.most) <= count + 1


def test_a_small_budget_says_what_is_needed(brains):
    least = budget(brains[0], 2)
    named = -(-least // 10**6)
    with pytest.raises(TooLittleMemory, match=f"at least --memory {named}M"):
        pair_matrix(brains, None, MS_SSIM, memory=least - 1)
    pair_matrix(brains, None, MS_SSIM, memory=least)
    with pytest.raises(TooLittleMemory, match="one pair"):
        nearest_neighbours(brains[:2], brains, 1, MS_SSIM, memory=least - 1)


def test_budgets_by_hand():
    """State 100, volume 1 voxel: 12 bytes in work per worker."""
    assert allot(212, 100, (1, 1, 1), 50, 50, 8) == (1, 1, 1)
    assert allot(324, 100, (1, 1, 1), 50, 50, 8) == (1, 1, 2)
    assert allot(10_000, 100, (1, 1, 1), 64, 1000, 2) == (64, 4, 2)
    assert allot(5_024, 100, (1, 1, 1), 64, 1000, 2) == (40, 4, 2)
    assert allot(10_000, 100, (1, 1, 1), 5, 1000, 2) == (5, 4, 2)
    with pytest.raises(TooLittleMemory):
        allot(211, 100, (1, 1, 1), 50, 50, 8)
    for states in range(2, 200):
        for threads in (1, 2, 7):
            rows, columns, workers = allot(states * 100 + 12 * threads, 100, (1, 1, 1), 500, 500, threads)
            assert rows + workers * (columns + 1 if columns > 1 else 1) <= states
            assert min(rows, columns, workers) >= 1
    assert allot(DEFAULT_MEMORY, 28 * 10**6, (128, 128, 128), 64, 1262, 2).rows > 50


def test_two_evaluations_of_one_bench_at_once(brains, tmp_path, volume_set, monkeypatch):
    """One computes, the other waits; neither loses its parts to the other."""
    sets = {"samples": volume_set("samples", brains[:6]), "reference": volume_set("reference", brains[6:])}
    computed, original = [], pairs._row_group
    monkeypatch.setattr(pairs, "GROUP_ROWS", 2)

    def slow(*arguments):
        computed.append(arguments[1])
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(pairs, "_row_group", slow)
    found = [None, None]

    def evaluate(index):
        found[index] = Arrays(sets, tmp_path).pairs("samples", "reference", MS_SSIM)

    both = [threading.Thread(target=evaluate, args=(index,)) for index in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert computed == [0, 2, 4]
    assert np.array_equal(found[0], found[1])
    assert found[0].shape == (6, 5)


CHILD = """
    import os, sys
    from pathlib import Path
    import numpy as np, torch
    from mribench.metrics.arrays import pairs
    from mribench.metrics.arrays.similarity import Definition
    torch.set_num_threads(1)
    pairs.GROUP_ROWS = 2
    original = pairs._row_group
    def noted(job, start, *rest):
        with open({log!r}, "a") as file:
            file.write(f"{{start}}\\n")
        return original(job, start, *rest)
    pairs._row_group = noted
    volumes = np.load({volumes!r})
    matrix = pairs.pair_matrix(volumes, None, Definition(7, 3), parts=Path({parts!r}))
    np.save({out!r}, matrix)
"""


@pytest.mark.slow
def test_killed_ten_times_and_restarted(tmp_path):
    """SIGKILL at random moments: the matrix is an uninterrupted run's, and a kill costs one group of rows at most."""
    volumes = np.random.default_rng(0).random((50, 96, 96, 96)).astype(np.float32)
    volumes[:, :20], volumes[..., 70:] = 0, 0
    np.save(tmp_path / "volumes.npy", volumes)

    def child(name):
        names = {key: str(tmp_path / f"{name}.{key}") for key in ("log", "parts")}
        names |= {"out": str(tmp_path / f"{name}.npy"), "volumes": str(tmp_path / "volumes.npy")}
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD).format(**names)])

    def lines(name):
        log = tmp_path / f"{name}.log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def started(name):
        """A child that has begun its first group."""
        before, process = lines(name), child(name)
        while lines(name) == before and process.poll() is None:
            time.sleep(0.01)
        return process

    whole, begun = started("whole"), time.monotonic()
    assert whole.wait() == 0
    seconds, moments = time.monotonic() - begun, random.Random(0)
    for _ in range(10):
        killed = started("killed")
        time.sleep(moments.uniform(0, seconds / 10))
        assert killed.poll() is None, "it must be too long to end between ten kills"
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    assert child("killed").wait() == 0
    assert (tmp_path / "killed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    arrays = [int(line) for line in (tmp_path / "killed.log").read_text().split()]
    assert sorted(set(arrays)) == list(range(0, 50, 2))
    assert 25 < len(arrays) <= 25 + 10
