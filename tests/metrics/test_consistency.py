"""Slice consistency: seams in closed form, its scale by a loop, and what it tells apart."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mribench.errors import MribenchError
from mribench.metrics.consistency import SLICE_CONSISTENCY, conspicuousness, own_conspicuousness
from mribench.metrics.features.seams import seam_profile

SIZE, COUNT = 20, 16


def ramp(jump=0.0):
    """Steps of 0.01 along the first of 12 axial slices, with `jump` more between slices 5 and 6; `[12,8,8]`."""
    along = 0.01 * np.arange(12) + jump * (np.arange(12) > 5)
    return np.broadcast_to(along[:, None, None], (12, 8, 8))


def test_equal_steps_have_no_seam():
    profile = seam_profile(ramp())
    assert len(profile) == (9 + 8) + 2 * (5 + 4)  # single and double steps of each axis
    assert profile == pytest.approx(0, abs=1e-12)
    assert seam_profile(np.ones((5, 6, 7))) == pytest.approx(0)


def test_a_jump_is_the_logarithm_of_its_step_over_the_usual_one():
    profile, steps = seam_profile(ramp(0.05)), 11 + 7 + 7
    damping = 0.5 * (11 * 0.01 + 0.05) / steps
    jump = math.log((0.06 + damping) / (0.01 + damping))
    single = np.zeros(9)
    single[3:6] = -jump / 2, jump, -jump / 2  # the steps before and after it have it as a neighbour
    double = np.zeros(8)
    double[2:6] = -jump / 2, jump / 2, jump / 2, -jump / 2
    assert profile[:17] == pytest.approx(np.concatenate([single, double]), abs=1e-9)
    assert profile[17:] == pytest.approx(0, abs=1e-12)


def test_a_gain_changes_no_seam(formula_volume):
    volume = formula_volume(1, SIZE)
    assert seam_profile(3 * volume) == pytest.approx(seam_profile(volume), abs=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_thin_slab_has_the_seams_that_it_can_have(depth):
    profile = seam_profile(np.random.default_rng(0).random((depth, 9, 9)))
    assert len(profile) == max(0, depth - 3) + max(0, depth - 4) + 2 * (6 + 5) and np.isfinite(profile).all()


def test_a_reference_volume_is_compared_with_the_others():
    profiles = np.random.default_rng(0).normal(size=(7, 30))
    by_hand = [conspicuousness(profiles[i : i + 1], np.delete(profiles, i, 0))[0] for i in range(7)]
    assert own_conspicuousness(profiles) == pytest.approx(by_hand, rel=1e-9)


def value(samples, reference):
    keep = {"samples": np.arange(len(samples)), "reference": np.arange(len(reference))}
    return SLICE_CONSISTENCY.value((reference, samples), keep)


@pytest.mark.parametrize("m", [6, 30])
def test_a_perfect_generator_has_the_expected_value_zero(m):
    rng = np.random.default_rng(3)
    values = [value(rng.normal(size=(10, 40)), rng.normal(size=(m, 40))) for _ in range(300)]
    # Against one volume less a reference volume stands out a little more: at most 0.1 SD at six of them.
    assert abs(np.mean(values)) < 0.1 * 6 / m + 4 * np.std(values) / np.sqrt(300)


def test_identical_reference_volumes_are_refused():
    same = np.ones((5, 30))
    with pytest.raises(MribenchError, match="identical"):
        conspicuousness(np.zeros((3, 30)), same)
    with pytest.raises(MribenchError, match="identical"):
        own_conspicuousness(np.concatenate([same, np.zeros((1, 30))]))  # the others are, without the last


@pytest.fixture(scope="module")
def fresh(formula_volume):
    return np.stack([formula_volume(100 + i, SIZE, 0.5, 0.02) for i in range(COUNT)])


@pytest.fixture(scope="module")
def reference(formula_volume):
    return np.stack([seam_profile(formula_volume(1 + i, SIZE, 0.5, 0.02)) for i in range(COUNT)])


def mosaics(fresh):
    other, planes = np.roll(fresh, 5, axis=0), np.zeros((SIZE,) * 3, dtype=bool)
    planes[SIZE // 2] = planes[:, SIZE // 2] = planes[:, :, SIZE // 2] = True
    shuffled = [np.stack([fresh[(i + z) % COUNT, z] for z in range(SIZE)]) for i in range(COUNT)]
    return {
        "every slice of another subject": np.stack(shuffled),
        "three planes of another subject": np.where(planes, fresh, other),
        "three planes, the rest upside down": np.where(planes, fresh, other[:, ::-1]),
    }


def test_mosaics_stand_out_and_honest_volumes_do_not(fresh, reference):
    score = lambda volumes: value(np.stack([seam_profile(v) for v in volumes]), reference)  # noqa: E731
    honest = [score(fresh), score(gaussian_filter(fresh, (0, 0.5, 0.5, 0.5)))]
    values = {name: score(volumes) for name, volumes in mosaics(fresh).items()}
    assert max(map(abs, honest)) < 0.6, honest
    # Two halves meet in one seam of one axis, the others in seams of every axis.
    assert values.pop("halves of two subjects") > 0.9
    assert min(values.values()) > 2, values
