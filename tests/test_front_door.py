"""`import mribench`: a dozen names, loaded at their first use; evaluate takes folders, arrays and sets alike."""

from __future__ import annotations

import doctest
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import mribench
from mribench import evaluation
from mribench.data.grid import quantise
from mribench.data.nifti import write_nifti
from mribench.errors import MribenchError, UsageError

METRICS = ("ms_ssim", "mmd_voxel")


def brains(first, count):
    """Smooth volumes `[N,20,18,16]`, rounded as files hold them."""
    volumes = []
    for seed in range(first, first + count):
        noise = gaussian_filter(np.random.default_rng(seed).normal(size=(20, 18, 16)), 1.5)
        volumes.append(np.clip(0.5 + noise, 0, 1))
    return (quantise(np.array(volumes)) / 65535).astype(np.float32)


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, mribench; assert not {'torch', 'numpy', 'pandas'} & sys.modules.keys(); "
        "mribench.read_nifti; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists_and_is_documented():
    for name in mribench.__all__:
        value = getattr(mribench, name)
        assert name == "__version__" or value.__doc__
    assert set(dir(mribench)) == set(mribench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evaluator'"):
        _ = mribench.evaluator


@pytest.mark.parametrize("module", [mribench, evaluation])
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


def test_folders_and_arrays_of_the_same_volumes_have_the_same_scores(tmp_path):
    samples, real = brains(0, 4), brains(50, 5)
    for name, volumes in (("samples", samples), ("real", real)):
        for i, volume in enumerate(volumes):
            write_nifti(tmp_path / name / f"{i}.nii.gz", volume, np.eye(4))
    values = [
        [score.value for score in mribench.evaluate(*pair, metrics=METRICS, device="cpu").scores]
        for pair in (
            (tmp_path / "samples", str(tmp_path / "real")),
            (samples, real),
            (samples[:, None], real[:, None]),
        )
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6) and values[1] == values[2]


def test_training_volumes_add_the_search_for_copies():
    samples, real, train = brains(0, 4), brains(50, 5), brains(90, 6)
    chosen = ("memorisation", "copy_rate")
    without = mribench.evaluate(samples, real, metrics=chosen, device="cpu")
    assert [absent.metric for absent in without.missing] == list(chosen) and without.failures
    honest = mribench.evaluate(samples, real, train, metrics=chosen, device="cpu")
    copied = mribench.evaluate(train[:4], real, train, metrics=chosen, device="cpu")
    assert honest.score("copy_rate").value == 0 and copied.score("copy_rate").value == 1
    tripped = [
        [gate.gate for gate in each.gates if gate.passed is False] for each in (without, honest, copied)
    ]
    assert tripped == [[], [], ["copies"]]
    assert honest.score("memorisation").n["holdout"] == len(real)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((20, 18, 16)), r"\[N,D,H,W\]"),
        (np.zeros((0, 20, 18, 16)), r"\[N,D,H,W\]"),
        (np.zeros((3, 20, 18, 16)), r"range \[0,1\]"),
        (brains(0, 3)[:, :10], "one grid"),
        ("no-such-folder", "must be a folder"),
    ],
)
def test_unusable_samples_are_refused_with_a_sentence(samples, message):
    with pytest.raises(MribenchError, match=message):
        mribench.evaluate(samples, brains(50, 4), metrics=METRICS, device="cpu")


def test_an_unknown_metric_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'ms_ssim'"):
        mribench.evaluate(brains(0, 3), brains(50, 4), metrics=("msssim",), device="cpu")
