"""A few trials of every kind of fault; `pytest -m faults` runs the whole matrix."""

from __future__ import annotations

import fault_trials
import pytest

SEED = 1
QUICK = {"flips": 32, "kills": 10, "full_disks": 10, "little_memory": 5, "races": 6, "two_inits": 3}


@pytest.mark.parametrize("kind", QUICK)
def test_no_result_is_lost_or_wrong_and_nothing_ends_in_a_traceback(kind, setting):
    counts, bad = fault_trials.counted(getattr(fault_trials, kind)(setting, SEED, QUICK[kind]))
    assert counts and not bad, "\n".join(bad)
