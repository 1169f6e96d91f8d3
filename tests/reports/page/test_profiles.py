import numpy as np
import pytest

from mribench.data.volume_set import VolumeSet
from mribench.reports.page.profiles import MOST_VOLUMES, Profiles, measure, profile_plot


def volumes(stack, slab=None):
    names = tuple(str(i) for i in range(len(stack)))
    return VolumeSet("x", names, names, stack.shape[1:], lambda i: stack[i], slab)


def test_brightness_and_steps_of_slices():
    stack = np.zeros((2, 3, 2, 2))
    stack[0, 1] = [[1, 0], [0, 0]]
    stack[0, 2] = 0.5
    found = measure(volumes(stack, (4, 7)))
    np.testing.assert_allclose(found.brightness, [[0, 0.25, 0.5], [0, 0, 0]])
    np.testing.assert_allclose(found.steps, [[0.25, 0.5], [0, 0]])  # |0.5 - 1| and three times 0.5
    assert found.start == 4


def test_a_seam_shows_in_the_steps_and_not_in_the_brightness():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 8, 8))
    seamed = np.stack([first] * 4 + [first.T * 0 + second / second.mean() * first.mean()] * 4)
    found = measure(volumes(seamed[None]))
    assert found.steps[0].argmax() == 3 and found.steps[0, 3] > 0.1
    assert np.ptp(found.brightness) < 1e-6


def test_only_the_first_volumes_are_read():
    read = []
    names = tuple(str(i) for i in range(100))
    many = VolumeSet("x", names, names, (2, 2, 2), lambda i: read.append(i) or np.zeros((2, 2, 2)))
    assert measure(many).brightness.shape == (MOST_VOLUMES, 2) and read == list(range(MOST_VOLUMES))


@pytest.mark.parametrize(("shift", "outside"), [(0.0, 0), (0.5, 3)])
def test_alt_text_counts_what_lies_outside_the_band(shift, outside):
    reference = Profiles(
        np.linspace(0, 0.2, 10)[:, None] + np.zeros(6), np.linspace(0, 0.2, 10)[:, None] * np.ones(5)
    )
    own = Profiles(np.full((2, 3), 0.1 + shift), np.full((2, 2), 0.1), start=2)
    picture = profile_plot(own, reference, "X")
    assert f"in {outside} of 3 axial slices" in picture.alt and "in 0 of 2" in picture.alt
    assert picture.uri.startswith("data:image/webp;base64,")
