"""One bench for all fault trials; everything that commands import is imported before the first fork."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def setting(tmp_path_factory):
    from fault_bench import build, build_prepared, results
    from fault_trials import Setting

    folder = tmp_path_factory.mktemp("faults")
    bench, room = build(folder), tmp_path_factory.mktemp("prepared")
    prepared = build_prepared(folder)
    own = Setting(prepared, room, results(prepared))
    return Setting(bench, folder, results(bench), prepared=own)
