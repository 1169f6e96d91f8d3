"""The joint embedding."""

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.metrics.statistics.tsne import joint_embedding


def test_one_fit_keeps_sets_apart_that_are_apart_and_is_repeatable():
    rng = np.random.default_rng(0)
    sets = {
        "train": rng.normal(size=(12, 30)),
        "near": rng.normal(size=(5, 30)),
        "far": rng.normal(50, 1, (6, 30)),
    }
    points = joint_embedding(sets)
    assert {name: array.shape for name, array in points.items()} == {
        "train": (12, 2),
        "near": (5, 2),
        "far": (6, 2),
    }
    centres = {name: array.mean(0) for name, array in points.items()}
    away = np.linalg.norm(centres["far"] - centres["train"])
    assert away > 2 * np.linalg.norm(centres["near"] - centres["train"])
    again = joint_embedding(sets)
    assert all(np.array_equal(points[name], again[name]) for name in sets)


def test_too_few_or_mixed_features_are_refused():
    with pytest.raises(MribenchError, match="at least 4 volumes"):
        joint_embedding({"a": np.zeros((3, 2))})
    with pytest.raises(MribenchError, match="equal features"):
        joint_embedding({"a": np.zeros((3, 2)), "b": np.zeros((3, 4))})
