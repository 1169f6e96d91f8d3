"""Join profiles in closed form, and which place stands out."""

import numpy as np
import pytest

from mribench.metrics.features.seams import Place, honest_changes, join_profile, places
from mribench.metrics.gates.joins import described, joined

SHAPE = (9, 7, 8)
NO_CHANGE = np.zeros((1, len(places(SHAPE))))


def at(profile, *place):
    return profile[places(SHAPE).index(Place(*place))]


@pytest.mark.parametrize("shape", [SHAPE, (3, 9, 9), (1, 5, 6), (2, 2, 4)])
def test_every_place_has_its_number(shape):
    assert join_profile(np.random.default_rng(0).random(shape)).shape == (len(places(shape)),)


def test_a_ramp_with_a_foreign_slice_has_the_numbers_of_the_formula():
    volume = np.ones(SHAPE) * np.arange(9.0)[:, None, None]
    volume[4] += 10  # steps 1, 1, 1, 11, 9, 1, 1, 1 along axis 0, and none along the others
    profile, damping = join_profile(volume), 0.5 * 26 / (8 + 6 + 7)
    assert at(profile, 0, 1, 4) == pytest.approx(np.log((9 + damping) / (2 + damping)))
    assert at(profile, 0, 1, 2) == pytest.approx(np.log((1 + damping) / (2 + damping)))
    assert at(profile, 0, 0, 4) == pytest.approx(
        np.log(11 + damping) - np.log((1 + damping) * (9 + damping)) / 2
    )
    assert at(profile, 0, 2, 4) == pytest.approx(np.log((1 + damping) / (3 + damping)))
    assert at(profile, 1, 1, 3) == pytest.approx(0)


def test_a_gain_changes_no_number():
    volume = np.random.default_rng(1).random(SHAPE)
    assert join_profile(3 * volume) == pytest.approx(join_profile(volume))


def profiles(count, seed):
    return np.random.default_rng(seed).normal(0, 0.1, (count, len(places(SHAPE))))


def test_the_place_that_was_raised_is_found_with_the_samples_that_show_it():
    samples, place = profiles(20, 0), Place(1, 2, 3)
    samples[:12, places(SHAPE).index(place)] += 1
    worst = joined(samples, profiles(40, 1), NO_CHANGE, SHAPE)
    assert worst.place == place
    assert worst.samples == list(range(12))
    assert worst.outlying > 8
    assert worst.p_value < 1e-6


def test_what_is_everywhere_or_lowers_a_place_makes_none_stand_out():
    samples = profiles(20, 2) + 3
    samples[:, 7] -= 3
    assert joined(samples, profiles(40, 3), NO_CHANGE, SHAPE).outlying < 5


def test_the_p_value_is_no_smaller_than_chance_allows():
    p_values = [
        joined(profiles(16, 2 * i), profiles(24, 2 * i + 1), NO_CHANGE, SHAPE).p_value for i in range(400)
    ]
    assert np.mean(np.array(p_values) <= 0.1) < 0.12


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(0, 0, 4), "the border of axial slices 3 and 4"),
        (Place(1, 1, 4), "coronal slice 4"),
        (Place(2, 3, 4), "sagittal slices 4 to 6"),
    ],
)
def test_a_place_is_named_by_its_view_and_slices(place, words):
    assert described(place) == words


def test_what_blur_and_a_pull_to_the_mean_do_makes_no_place_stand_out_and_hides_none():
    rng, place = np.random.default_rng(5), Place(1, 2, 3)
    honest = rng.normal(0, 0.3, (2, len(places(SHAPE))))
    samples = profiles(20, 6) + np.array([0.5, 3.0]) @ honest
    assert joined(samples, profiles(40, 7), NO_CHANGE, SHAPE).outlying > 8
    assert joined(samples, profiles(40, 7), honest, SHAPE).outlying < 3.5
    samples[:, places(SHAPE).index(place)] += 1
    worst = joined(samples, profiles(40, 7), honest, SHAPE)
    assert worst.place == place and worst.outlying > 8
    opposite = profiles(20, 6) - 3 * honest[0]  # sharper than people: nothing honest
    assert joined(opposite, profiles(40, 7), honest, SHAPE).outlying == pytest.approx(
        joined(opposite, profiles(40, 7), NO_CHANGE, SHAPE).outlying, rel=0.2
    )


def test_equal_volumes_do_not_change_by_a_pull_to_their_mean_but_by_blur():
    volume = np.random.default_rng(1).random(SHAPE)
    blurred, pulled = honest_changes(lambda i: volume, 3)
    assert pulled == pytest.approx(0, abs=1e-12)
    assert np.abs(blurred).max() > 0.1
