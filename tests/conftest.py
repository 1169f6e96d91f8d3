"""Shared fixtures: a protocol and a bench so small that the whole pipeline takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two test processes share the cores, so each computes with one thread; before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PROTOCOL = """
name = "test"
version = 1
seed = 7
[cohort]
source = "simulated"
size = 16
train = 6
reference = 5
holdout = 5
[evaluation]
samples = 4
tsne_samples = 4
metrics = ["ms_ssim", "mmd", "mmd_voxel", "fid_a", "fid_c", "fid_s", "memorisation", "copy_rate"]
[training]
preset = "tiny"
[training.cdpm]
size = 16
budget = 12
base = 8
multipliers = [1, 2]
tau_max = 6
stage_slices = 3
ddim_steps = 2
"""


@pytest.fixture(scope="session")
def protocol_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("protocol") / "test.toml"
    path.write_text(PROTOCOL)
    return path
