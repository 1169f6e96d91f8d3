"""Inputs given by closed formulas over NumPy's PCG64 stream, and what public libraries make of them."""

import hashlib
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mribench.data.volume_set import VolumeSet


def field(rng, n, terms=16, highest=6):
    """Sum of cosines with integer frequencies 1..highest and unit RMS amplitude, float64 `[n,n,n]`."""
    frequency = 1 + np.floor(rng.random((terms, 3)) * highest)
    phase = 2 * np.pi * rng.random(terms)
    amplitude = rng.random(terms)
    u = (np.arange(n) + 0.5) / n
    total = np.zeros((n, n, n))
    for f, p, a in zip(frequency, phase, amplitude, strict=True):
        t = (f[0] * u)[:, None, None] + (f[1] * u)[None, :, None] + (f[2] * u)[None, None, :]
        total += a * np.cos(2 * np.pi * t + p)
    return total / math.sqrt(0.5 * float((amplitude**2).sum()))


@cache
def _volume(seed, n=128, share=0.8, noise=0.06):
    """A shared template, a subject's own field and noise inside an ellipsoid; float32 `[n,n,n]` in [0,1]."""
    template = field(np.random.default_rng(0), n)
    rng = np.random.default_rng(seed)
    own = field(rng, n)
    uniform = rng.random((n, n, n))
    u = (np.arange(n) + 0.5) / n - 0.5
    r = (u / 0.42)[:, None, None] ** 2 + (u / 0.46)[None, :, None] ** 2 + (u / 0.40)[None, None, :] ** 2
    v = 0.5 + 0.15 * (share * template + math.sqrt(1 - share * share) * own) + noise * (uniform - 0.5)
    return np.clip(np.where(r < 1.0, v, 0.0), 0.0, 1.0).astype(np.float32)


def _features(seed, n, d, rank=None, shift=0.0, scale=1.0):
    """Non-negative 'pooled' features, float64 `[n,d]`."""
    rank = rank or d
    mix = (np.random.default_rng(777).random((rank, d)) - 0.5) * math.sqrt(12.0 / rank)
    z = (np.random.default_rng(seed).random((n, rank)) - 0.5) * math.sqrt(12.0)
    return np.maximum(0.4 + shift + scale * 0.3 * (z @ mix), 0.0)


def _volume_set(name, volumes, slab=None):
    volumes = [np.asarray(v, dtype=np.float32) for v in volumes]
    digests = tuple(hashlib.sha256(v.tobytes()).hexdigest() for v in volumes)
    names = tuple(f"{name}-{i}" for i in range(len(volumes)))
    return VolumeSet(name, names, digests, volumes[0].shape, lambda i: volumes[i], slab)


@pytest.fixture(scope="session")
def formula_volume():
    return _volume


@pytest.fixture(scope="session")
def formula_features():
    return _features


@pytest.fixture(scope="session")
def volume_set():
    return _volume_set


@pytest.fixture(scope="session")
def expected():
    return json.loads((Path(__file__).parent / "reference_values.json").read_text())
