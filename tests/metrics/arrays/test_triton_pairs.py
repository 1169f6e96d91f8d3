"""The GPU's kernels, run by Triton's interpreter on a CPU in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

PROGRAM = """
import torch
from mribench.metrics.arrays import similarity
from mribench.metrics.arrays.kernels import triton_pairs

torch.manual_seed(0)
triton_pairs._BATCH_VOXELS = 4000  # several batches
for side, taps in ((11, 3), (10, 7)):
    window = similarity.gaussian_window(taps)
    x, y = (similarity.statistics(torch.rand(n, side, side + 1, side + 2), window) for n in (3, 2))
    for last in (False, True):
        plain = similarity.factors(x, y, window, last)
        difference = (triton_pairs.factors(x, y, window, last) - plain).abs().max()
        assert 0 < plain.abs().min() and difference < 1e-6, (taps, last, difference)
print("equal")
"""


def test_triton_compares_as_torch_does():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == "equal", run.stderr[-2000:]
