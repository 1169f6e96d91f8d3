"""Every fault does what its docstring says, by its dose, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from mribench.data.volume_set import VolumeSet
from mribench.selftest.contract import phantoms
from mribench.selftest.degradations import DEGRADATIONS, Material, first_component

SIDE = 24
OF_ONE_VOLUME = [
    "blur",
    "noise_in_brain",
    "noise_everywhere",
    "bias_field",
    "intensity",
    "slice_shuffle",
    "seam_brightness",
    "seam_shift",
]


def as_set(volumes, name="volumes"):
    names = tuple(f"{name}-{i}" for i in range(len(volumes)))
    return VolumeSet(name, names, names, volumes.shape[1:], lambda i: volumes[i])


def same(volume, count=2):
    """Material whose volumes are all `volume`."""
    volumes = as_set(np.stack([np.asarray(volume, np.float32)] * count))
    return Material(volumes, volumes, volumes)


@pytest.fixture(scope="module")
def material():
    everyone = phantoms(18, SIDE, noise=0.1).stack()
    return Material(*(as_set(everyone[start : start + 6]) for start in (0, 6, 12)))


def apply(name, material, dose, seed=1):
    return DEGRADATIONS[name].apply(material, dose, seed)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_dose_0_changes_nothing_and_the_others_change_something(material, name):
    before = material.probes.stack()
    assert np.array_equal(apply(name, material, 0.0), before)
    for dose in DEGRADATIONS[name].doses:
        degraded = apply(name, material, dose)
        assert degraded.shape == before.shape and degraded.dtype == np.float32
        assert degraded.min() >= 0 and degraded.max() <= 1
        assert np.array_equal(degraded, apply(name, material, dose))
        assert not np.array_equal(degraded, before)
    assert np.array_equal(material.probes.stack(), before)
    assert list(DEGRADATIONS[name].doses) == sorted(set(DEGRADATIONS[name].doses))


@pytest.mark.parametrize("name", OF_ONE_VOLUME)
def test_a_volume_does_not_depend_on_the_others(material, name):
    alone = Material(material.probes.subset([0]), material.spare, material.train)
    dose = DEGRADATIONS[name].doses[-1]
    assert np.array_equal(apply(name, alone, dose)[0], apply(name, material, dose)[0])


@pytest.mark.parametrize("name", ["noise_in_brain", "noise_everywhere", "bias_field", "slice_shuffle"])
def test_each_volume_has_its_own_chance(name):
    first, second = apply(name, same(np.linspace(0.3, 0.6, SIDE**3).reshape([SIDE] * 3)), 2.0)
    assert not np.array_equal(first, second)


def test_blur_spreads_a_point_by_its_sd():
    point = np.zeros([25] * 3)
    point[12, 12, 12] = 1
    (blurred, _) = apply("blur", same(point), 1.5)
    profile = blurred.sum(axis=(1, 2), dtype=np.float64)
    assert profile.sum() == pytest.approx(1, abs=1e-5)
    assert ((np.arange(25) - 12) ** 2 * profile).sum() == pytest.approx(1.5**2, rel=0.01)


def test_noise_has_its_sd_and_its_place():
    half = np.zeros([SIDE] * 3)
    half[:, :, : SIDE // 2] = 0.5
    for name in ("noise_in_brain", "noise_everywhere"):
        noisy = apply(name, same(half), 0.05)[0]
        assert noisy[:, :, : SIDE // 2].std() == pytest.approx(0.05, rel=0.05)
        assert (noisy[:, :, SIDE // 2 :] > 0).mean() == pytest.approx(
            0.5 * (name == "noise_everywhere"), abs=0.02
        )


def test_a_bias_field_is_smooth_and_has_its_rms_in_the_brain():
    brain = np.zeros([SIDE] * 3)
    brain[4:20, 4:20, 4:20] = 0.2
    inside = brain > 0
    biased = apply("bias_field", same(brain), 0.1)[0]
    assert not biased[~inside].any()
    field = np.log(biased[4:20, 4:20, 4:20] / np.float32(0.2))
    assert (field.mean(), field.std()) == pytest.approx((0, 0.1), abs=1e-5)
    # of a field smoothed by a Gaussian of SD s, neighbours differ by its SD / (sqrt(2) s); here s = 24 / 6
    assert np.diff(field, axis=0).std() == pytest.approx(field.std() / (2**0.5 * 4), rel=0.3)


def test_intensity_is_a_factor(material):
    assert apply("intensity", material, 0.25) == pytest.approx(0.75 * material.probes.stack())


def test_shuffled_slices_are_all_there_and_move_less_than_the_dose():
    numbered = np.broadcast_to(np.arange(40)[:, None, None] / 40, (40, 4, 4))
    for dose in (2.0, 8.0):
        order = np.round(apply("slice_shuffle", same(numbered), dose)[0][:, 0, 0] * 40).astype(int)
        assert sorted(order) == list(range(40))
        assert 0 < np.abs(order - np.arange(40)).max() < dose


def test_brightness_steps_by_the_dose_at_every_tenth_slice_only():
    for stepped in apply("seam_brightness", same(np.full((32, 4, 4), 0.5)), 0.2):
        profile = stepped[:, 2, 2]
        assert np.flatnonzero(np.diff(profile)).tolist() == [9, 19, 29]
        assert np.abs(np.diff(profile)[[9, 19, 29]]) == pytest.approx(0.5 * 0.2, abs=1e-6)
        assert np.unique(profile) == pytest.approx([0.45, 0.55])


def test_every_other_slab_is_shifted_by_the_dose_in_the_plane():
    dot = np.zeros((32, 9, 9))
    dot[:, 4, 4] = 1
    shifts = set()
    for i, shifted in enumerate(apply("seam_shift", same(dot, 16), 3.0)):
        assert np.array_equal(shifted.sum(axis=(1, 2)), np.ones(32)), i
        moves = np.argwhere(shifted)[:, 1:] - 4
        by_turns = [tuple(moves[s]) for s in (0, 10, 20, 30)]
        assert by_turns[0] == by_turns[2] and by_turns[1] == by_turns[3] and (0, 0) in by_turns
        assert np.array_equal(moves, np.repeat(moves[[0, 10, 20, 30]], [10, 10, 10, 2], axis=0))
        shifts |= set(by_turns)
    assert shifts == {(0, 0), (3, 0), (-3, 0), (0, 3), (0, -3)}


def test_what_is_shifted_out_does_not_come_in_again():
    full = np.ones((8, 6, 6))
    moved = [v for v in apply("seam_shift", same(full, 8), 2.0) if not np.array_equal(v, full)]
    assert moved and [v.mean() for v in moved] == pytest.approx([4 / 6] * len(moved))


def test_collapse_goes_the_fraction_of_the_way(material):
    volumes = material.probes.stack()
    mean = volumes.mean(axis=0)
    assert apply("collapse", material, 0.25) - mean == pytest.approx(0.75 * (volumes - mean), abs=1e-6)
    assert np.ptp(apply("collapse", material, 1.0), axis=0).max() == 0


@pytest.mark.parametrize(("dose", "distinct"), [(0.5, 3), (0.75, 2), (0.9, 1)])
def test_repeats_leave_fewer_distinct_volumes(material, dose, distinct):
    found = {v.tobytes() for v in apply("repeats", material, dose)}
    assert found == {v.tobytes() for v in material.probes.stack()[:distinct]}


def test_a_dropped_mode_is_one_end_of_the_first_component():
    """Volumes c + a_i p + small noise: the first component is a_i, so that no large a_i may stay."""
    rng = np.random.default_rng(0)
    amounts = rng.permutation(20) / 20
    pattern = 0.2 * rng.random((6, 6, 6))
    volumes = 0.5 + amounts[:, None, None, None] * pattern + 1e-4 * rng.random((20, 6, 6, 6))
    volumes = volumes.astype(np.float32)
    assert abs(np.corrcoef(first_component(volumes), amounts)[0, 1]) > 0.999
    found = apply("dropped_mode", Material(as_set(volumes[:10]), as_set(volumes[10:]), None), 0.3)
    kept = [int(np.flatnonzero((volumes == v).all(axis=(1, 2, 3)))[0]) for v in found]
    assert len(set(kept)) == 10
    ranks = np.round(amounts[kept] * 20).astype(int)
    assert ranks.max() < 14 or ranks.min() >= 6


@pytest.mark.parametrize("name", ["training_copies", "mirrored_copies"])
def test_copies_are_of_training_volumes_in_their_orientation(material, name):
    train = material.train.stack()[..., :: -1 if name == "mirrored_copies" else 1]
    volumes, found = material.probes.stack(), apply(name, material, 0.5)
    assert np.array_equal(found[3:], volumes[3:])
    assert np.abs(found[:3] - train[:3]).max() < 0.06
    assert not found[:3][train[:3] == 0].any()
    inside = (train[:3] > 0.1) & (train[:3] < 0.9)
    assert (found[:3] - train[:3])[inside].std() == pytest.approx(0.01, rel=0.05)


def test_other_subjects_are_none_of_the_probes(material):
    found = {v.tobytes() for v in apply("other_subjects", material, 1.0)}
    assert found == {v.tobytes() for v in material.spare.stack()}
