"""The whole fault matrix; its counts go into the file that MRIBENCH_FAULT_COUNTS names (benchmarks/faults.py)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import fault_adoptions
import fault_trials
import pytest

SEED = 22
WHOLE = {
    "flips": 1000,
    "kills": 200,
    "resumes": 60,
    "full_disks": 100,
    "little_memory": 40,
    "bad_volumes": 100,
    "hostile_texts": 60,
    "races": 45,
    "two_inits": 20,
    "streams": 15,
    "bundles": 1000,
    "adoptions": 90,
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", WHOLE)
def test_no_result_is_lost_or_wrong_and_nothing_ends_in_a_traceback(kind, setting):
    begun = time.monotonic()
    counts, bad = fault_trials.counted(fault_adoptions.TRIALS[kind](setting, SEED, WHOLE[kind]))
    _record(kind, {
        "seed": SEED,
        "trials": sum(sum(words.values()) for words in counts.values()),
        "not as promised": len(bad),
        "outcomes": {what: dict(words) for what, words in sorted(counts.items())},
        "seconds": round(time.monotonic() - begun, 1),
    })  # fmt: skip
    assert counts and not bad, "\n".join(bad)


def _record(kind: str, counts: dict[str, object]) -> None:
    if name := os.environ.get("MRIBENCH_FAULT_COUNTS"):
        path = Path(name)
        every = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**every, kind: counts}, indent=1) + "\n")
