"""A few trials of every kind of fault; `pytest -m faults` runs the whole matrix."""

from __future__ import annotations

import fault_adoptions
import fault_trials
import numpy as np
import pytest

from mribench.metrics.arrays import store

SEED = 1
QUICK = {
    "flips": 24,
    "kills": 6,
    "full_disks": 6,
    "little_memory": 6,
    "bad_volumes": 23,
    "hostile_texts": 8,
    "races": 6,
    "two_inits": 2,
    "streams": 7,
    "bundles": 20,
    "adoptions": 9,
}


@pytest.mark.parametrize("kind", QUICK)
def test_no_result_is_lost_or_wrong_and_nothing_ends_in_a_traceback(kind, setting):
    counts, bad = fault_trials.counted(fault_adoptions.TRIALS[kind](setting, SEED, QUICK[kind]))
    assert counts and not bad, "\n".join(bad)


def test_the_matrix_reports_a_bench_that_believes_its_arrays(setting, monkeypatch):
    """Arrays are read without their seal, as they were before: the flips in them give wrong scores."""

    def believing(path, rows):
        return np.load(path, allow_pickle=False) if path.exists() else None

    _, words, without = fault_trials.FLIPS["arrays/*.npy"]
    monkeypatch.setattr(fault_trials, "FLIPS", {"arrays/*.npy": (1000, words, without)})
    monkeypatch.setattr(store, "read_array", believing)
    _, bad = fault_trials.counted(fault_trials.flips(setting, SEED, 24))
    assert sum("WRONG" in line for line in bad) >= 2
