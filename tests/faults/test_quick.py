"""A few trials of every kind of fault; `pytest -m faults` runs the whole matrix."""

from __future__ import annotations

import fault_inputs
import fault_trials
import pytest

SEED = 1
QUICK = {
    "flips": 32,
    "kills": 6,
    "full_disks": 6,
    "little_memory": 6,
    "bad_volumes": 23,
    "hostile_texts": 8,
    "races": 6,
    "two_inits": 2,
    "streams": 7,
}


@pytest.mark.parametrize("kind", QUICK)
def test_no_result_is_lost_or_wrong_and_nothing_ends_in_a_traceback(kind, setting):
    counts, bad = fault_trials.counted(fault_inputs.TRIALS[kind](setting, SEED, QUICK[kind]))
    assert counts and not bad, "\n".join(bad)
