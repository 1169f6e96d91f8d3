"""Turns and shifts of all samples together, below those that change an orientation."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mribench.data.volume_set import volume_set
from mribench.metrics.gates.judge import judge
from mribench.metrics.gates.pose import displacement

LEVEL = 0.001


def poses(n, seed, turn=(0, 0, 0), shift=(0, 0, 0)):
    """Affine maps `[N,3,4]`: people lie within about a degree and a fifth of a voxel, zoomed by 5 %."""
    rng = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(rng.normal(0, 0.9, (n, 3)) + turn, degrees=True).as_matrix()
    shifts = rng.normal(0, 0.2, (n, 3)) + shift
    return np.concatenate([turns * np.exp(rng.normal(0, 0.05, (n, 1, 1))), shifts[..., None]], axis=2)


def test_people_and_what_is_tolerated_pass():
    for turn, shift in (((0, 0, 0), (0, 0, 0)), ((0, 2, 0), (0, 0, 0)), ((0, 0, 0), (0.64, 0, 0))):
        alarms = [
            displacement(poses(24, i, turn, shift), poses(96, i + 700), (32,) * 3).p_value for i in range(200)
        ]
        assert sum(p <= LEVEL for p in alarms) <= 2


@pytest.mark.parametrize(
    ("turn", "shift", "what"),
    [
        ((5, 0, 0), (0, 0, 0), "turned by 5.0 degrees about the bottom-top axis"),
        ((0, 0, -4), (0, 0, 0), "turned by 4.0 degrees about the left-right axis"),
        ((0, 0, 0), (0, 1.6, 0), "shifted by 5.0 % of the back-front side"),
    ],
)
def test_a_common_turn_or_shift_is_measured(turn, shift, what):
    found = displacement(poses(900, 1, turn, shift), poses(900, 2), (32,) * 3)
    assert (found.what, found.p_value < LEVEL) == (what, True)


def test_people_turned_by_ten_degrees_trip_the_gate_of_orientation(bench, people):
    turned = ndimage.rotate(people["samples"], 10, axes=(2, 3), reshape=False, order=1)
    samples = volume_set(np.clip(turned, 0, 1).astype(np.float32), "samples")
    result = next(r for r in judge(bench.with_samples(samples)) if r.gate == "orientation")
    assert result.passed is False
    assert "degrees about the bottom-top axis" in result.reason


def test_one_sample_is_not_asked_where_a_set_lies(bench, people):
    turned = ndimage.rotate(people["samples"][:1], 10, axes=(2, 3), reshape=False, order=1)
    samples = volume_set(np.clip(turned, 0, 1).astype(np.float32), "samples")
    result = next(r for r in judge(bench.with_samples(samples)) if r.gate == "orientation")
    assert "degrees about" not in result.reason
