"""Small made-up brains: an ellipsoid with tissue that all share, and folds of each person."""

import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mribench.data.volume_set import volume_set
from mribench.metrics.arrays.cache import Arrays

SIDE = 24


@functools.cache
def _template(lopsided):
    z, y, x = (np.indices((SIDE,) * 3) - (SIDE - 1) / 2) / (SIDE / 2)
    inside = (z / 0.75) ** 2 + (y / 0.85) ** 2 + (x / 0.7) ** 2 < 1
    tissue = (
        0.55 + 0.2 * np.cos(5 * z + 1) * np.cos(4 * y + 0.5) + 0.15 * z + 0.15 * y + lopsided * np.sin(4 * x)
    )
    return gaussian_filter(inside * tissue, 0.7)


def _brain(number, lopsided):
    """Person `number`, float32 `[24,24,24]` in [0,1]."""
    rng = np.random.default_rng((5, number))
    folds = gaussian_filter(rng.standard_normal((SIDE,) * 3), 1.2)
    template = _template(lopsided)
    volume = template * (1 + 0.25 * folds / folds.std()) + 0.01 * rng.standard_normal((SIDE,) * 3) * (
        template > 0.1
    )
    return np.clip(volume, 0, 1).astype(np.float32)


def _brains(start, stop, lopsided=0.0):
    return np.stack([_brain(i, lopsided) for i in range(start, stop)])


@pytest.fixture(scope="session")
def brains():
    """`brains(start, stop, lopsided=0)`: people with these numbers, float32 `[N,24,24,24]`."""
    return _brains


@pytest.fixture(scope="session")
def people():
    """Training people 0 to 31, reference 100 to 115, held-out 200 to 215, fresh 300 to 319."""
    return {
        "train": _brains(0, 32),
        "reference": _brains(100, 116),
        "holdout": _brains(200, 216),
        "samples": _brains(300, 320),
    }


@pytest.fixture(scope="session")
def bench(people):
    """Arrays of these people; `bench.with_samples` shares what is aligned."""
    return Arrays({name: volume_set(volumes, name) for name, volumes in people.items()}, None)
