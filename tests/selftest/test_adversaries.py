"""Every adversary is what its sentence says, by its dose, and leaves the real volumes as they are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mribench.data.grid import paper_grid
from mribench.data.prepare.simulated import simulated_again
from mribench.data.simulate import RECIPE, Planted, simulate
from mribench.data.volume_set import VolumeSet
from mribench.errors import UsageError
from mribench.selftest import alterations, real_volumes
from mribench.selftest.adversaries import ADVERSARIES, HONEST
from mribench.selftest.contract import phantoms
from mribench.selftest.degradations import bias_field, blur
from mribench.selftest.real_volumes import RealVolumes, split
from mribench.selftest.unlisted import UNLISTED

SIDE, COUNT, TRAIN = 24, 10, 14
HALF, CENTRE = SIDE // 2, SIDE // 2
ENTRANTS = {
    name: entrant
    for name, entrant in (HONEST | ADVERSARIES | UNLISTED).items()
    if not entrant.needs_simulator
}


def as_set(volumes, name):
    volumes.flags.writeable = False  # whoever writes into a real volume raises
    names = tuple(f"{name}-{i}" for i in range(len(volumes)))
    return VolumeSet(name, names, names, volumes.shape[1:], lambda i: volumes[i])


@pytest.fixture(scope="module")
def real():
    counts = {"train": TRAIN, "reference": COUNT, "holdout": COUNT, "fresh": COUNT}
    sets = {
        role: as_set(phantoms(count, SIDE, seed=i, noise=0.1).stack(), role)
        for i, (role, count) in enumerate(counts.items())
    }
    return RealVolumes(**sets, grid=paper_grid(SIDE))


@pytest.fixture(scope="module")
def made(real):
    return {name: entrant.volumes(real, seed=1) for name, entrant in ENTRANTS.items()}


@pytest.fixture(scope="module")
def train(real):
    return real.train.stack()


@pytest.fixture(scope="module")
def fresh(real):
    return real.fresh.stack()


def another(volumes):
    """For each of the first volumes, the one half the set further on."""
    return np.stack([volumes[(i + len(volumes) // 2) % len(volumes)] for i in range(COUNT)])


@pytest.mark.parametrize("name", ENTRANTS)
def test_an_entrant_has_as_many_volumes_as_there_are_fresh_ones_and_the_same_ones_again(real, made, name):
    volumes = made[name]
    assert volumes.shape == (COUNT, SIDE, SIDE, SIDE) and volumes.dtype == np.float32
    assert volumes.min() >= 0 and volumes.max() <= 1
    assert np.array_equal(volumes, ENTRANTS[name].volumes(real, seed=1))


def test_no_two_entrants_are_the_same(made):
    assert len({volumes.tobytes() for volumes in made.values()}) == len(made)


def test_kinds_and_sentences_are_complete():
    assert {entrant.kind for entrant in HONEST.values()} == {"honest"}
    kinds = [entrant.kind for entrant in ADVERSARIES.values()]
    assert [kinds.count(kind) for kind in ("perfect", "cheat", "defect", "minority")] == [1, 21, 7, 3]
    for entrant in (HONEST | ADVERSARIES | UNLISTED).values():
        assert (
            entrant.wrong.endswith(".") and entrant.wrong.count(".") == 1 and entrant.dose and entrant.title
        )


@pytest.mark.parametrize("name", ["noisy_copies", "noise", "bias_field", "warped_copies_two"])
def test_another_seed_gives_other_volumes(real, made, name):
    assert not np.array_equal(made[name], ENTRANTS[name].volumes(real, seed=2))


def test_the_perfect_entrant_is_the_fresh_volumes(made, fresh):
    assert np.array_equal(made["fresh"], fresh)


def test_the_honest_entrants_are_mildly_imperfect_fresh_volumes(made, fresh, train):
    rng = np.random.default_rng(0)
    assert np.array_equal(made["blur"][3], np.clip(blur(fresh[3], 0.5, rng), 0, 1))
    assert made["towards_mean"] == pytest.approx(0.75 * fresh + 0.25 * train.mean(axis=0), abs=1e-6)
    inside = (fresh > 0.15) & (fresh < 0.85)
    assert (made["noise"] - fresh)[inside].std() == pytest.approx(0.03, rel=0.03)
    logs = [np.log(b[v > 0.05] / v[v > 0.05]) for b, v in zip(made["bias_field"], fresh, strict=True)]
    expected = np.log(bias_field(fresh[0], 0.05, rng)[fresh[0] > 0.05] / fresh[0][fresh[0] > 0.05])
    assert np.std(logs[0]) == pytest.approx(expected.std(), rel=0.3) and np.std(logs[0]) < 0.06


def test_copies_are_training_volumes_of_their_dose(made, train):
    copied = train[:COUNT]
    assert made["darker_copies"] == pytest.approx(0.9 * copied, abs=1e-6)
    assert made["gamma_copies"] == pytest.approx(copied**0.8, abs=1e-6)
    assert np.array_equal(made["mirrored_copies"], copied[..., ::-1])
    assert made["averaged_copies"] == pytest.approx((copied + another(train)) / 2, abs=1e-6)
    noise = made["noisy_copies"] - copied
    assert noise[(copied > 0.1) & (copied < 0.9)].std() == pytest.approx(0.01, rel=0.03)
    assert not noise[copied == 0].any()


def test_shifted_copies_are_one_voxel_away_on_each_axis(made, train):
    shifted = made["shifted_copies"]
    assert np.array_equal(shifted[:, :-1, :-1, :-1], train[:COUNT, 1:, 1:, 1:])
    assert not shifted[:, -1].any() and not shifted[:, :, -1].any() and not shifted[..., -1].any()


def test_copies_of_other_roles_are_exact(real, made):
    assert np.array_equal(made["reference_copies"], real.reference.stack())
    assert np.array_equal(made["holdout_copies"], real.holdout.stack())


@pytest.mark.parametrize(
    ("name", "count"),
    [("half_copies", 5), ("minority_10", 1), ("minority_25", 2), ("minority_shifted", 1)],
)
def test_the_share_of_copies_is_the_dose_and_the_rest_is_fresh(made, fresh, train, name, count):
    volumes = made[name]
    assert np.array_equal(volumes[count:], fresh[count:])
    copied = train[:count]
    if name == "minority_shifted":
        copied = made["shifted_copies"][:count]
    assert np.abs(volumes[:count] - copied).max() < 0.06
    assert not any(np.array_equal(a, b) for a, b in zip(volumes[:count], fresh, strict=False))


def test_half_brains_join_two_training_volumes_at_the_midline(made, train):
    assert np.array_equal(made["half_brains"][..., :HALF], train[:COUNT, ..., :HALF])
    assert np.array_equal(made["half_brains"][..., HALF:], another(train)[..., HALF:])


@pytest.mark.parametrize(
    ("name", "role", "flip"),
    [("real_planes", "fresh", 1), ("real_planes_inverted", "fresh", -1), ("training_planes", "train", 1)],
)
def test_only_the_three_compared_planes_are_of_the_first_subject(real, made, name, role, flip):
    volumes = getattr(real, role).stack()
    planes = np.zeros([SIDE] * 3, dtype=bool)
    planes[CENTRE] = planes[:, CENTRE] = planes[:, :, CENTRE] = True
    assert np.array_equal(made[name][:, planes], volumes[:COUNT][:, planes])
    assert np.array_equal(made[name][:, ~planes], another(volumes)[:, ::flip][:, ~planes])


def test_neighbouring_slices_are_of_different_subjects(made, fresh):
    inner = range(5, SIDE - 5)  # the outermost slices of phantoms are empty

    def subject(plane, z):
        return next(k for k in range(COUNT) if np.array_equal(plane, fresh[k, z]))

    sources = np.array([[subject(volume[z], z) for z in inner] for volume in made["mixed_slices"]])
    assert (np.diff(sources, axis=1) != 0).all()
    assert all(len(set(column)) == COUNT for column in sources.T)


def test_orientation_and_swap_entrants_reverse_or_exchange_one_axis_only(made, fresh):
    assert np.array_equal(made["upside_down"], fresh[:, ::-1])
    assert np.array_equal(made["front_back"], fresh[:, :, ::-1])
    swapped = made["hemispheres_exchanged"]
    assert np.array_equal(swapped[..., :HALF], fresh[..., HALF:])
    assert np.array_equal(swapped[..., HALF:], fresh[..., :HALF])


def test_repeats_show_five_subjects(made, fresh):
    shown = {volume.tobytes() for volume in made["repeats"]}
    assert shown == {volume.tobytes() for volume in fresh[:5]}


def test_inverted_contrast_keeps_the_background(made, fresh):
    inverted, inside = made["contrast_inverted"], fresh > 0
    assert inverted[inside] == pytest.approx(1 - fresh[inside], abs=1e-6)
    assert not inverted[~inside].any()


def test_the_sphere_is_empty_has_its_radius_and_lies_left_of_the_midline(made):
    (hole,) = np.where(alterations.without_sphere(np.ones([64] * 3), None) == 0)[:1]
    assert len(hole) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.05)
    empty = np.argwhere(alterations.without_sphere(np.ones([SIDE] * 3), None) == 0)
    assert empty[:, 2].max() < HALF and {CENTRE} <= set(empty[:, 0]) and {CENTRE} <= set(empty[:, 1])
    assert not made["sphere"][:, *empty.T].any()


@pytest.mark.parametrize("degrees", [2.0, 5.0])
def test_a_rotation_turns_a_point_in_the_axial_plane_by_its_angle(degrees):
    z, y, x = np.indices([41] * 3) - 20
    dot = np.exp(-((z - 3) ** 2 + y**2 + (x - 14) ** 2) / 8)
    turned = alterations.rotated(degrees)(dot, None)
    mean = [float((turned * axis).sum() / turned.sum()) for axis in (z, y, x)]
    assert mean[0] == pytest.approx(3, abs=0.01)
    assert abs(np.degrees(np.arctan2(mean[1], mean[2]))) == pytest.approx(degrees, abs=0.05)


def test_rotated_entrants_are_rotations_of_training_and_of_fresh_volumes(made, train, fresh):
    for name, degrees, volumes in (("rotated_copies", 2, train), ("rotated", 5, fresh)):
        expected = alterations.rotated(degrees)(volumes[0], None)
        assert made[name][0] == pytest.approx(np.clip(expected, 0, 1), abs=1e-6)


@pytest.mark.parametrize("voxels", [0.5, 2.0])
def test_a_warp_moves_voxels_smoothly_by_the_rms_of_its_dose(voxels):
    """A warped ramp shows one component of the displacement; the same generator draws the same warp."""
    inner = (slice(8, -8),) * 3
    places = np.indices([40] * 3).astype(float)
    field = np.stack(
        [alterations.warped(voxels)(ramp, np.random.default_rng(4))[inner] - ramp[inner] for ramp in places]
    )
    assert np.sqrt((field**2).sum(axis=0).mean()) == pytest.approx(voxels, rel=0.25)
    assert np.abs(np.diff(field, axis=1)).mean() < 0.3 * np.abs(field).mean()


def test_warped_copies_are_warped_training_volumes(made, train):
    for name, limit in (("warped_copies_half", 0.9), ("warped_copies_two", 0.5)):
        volume, copied = made[name][0].ravel(), train[0].ravel()
        assert limit < np.corrcoef(volume, copied)[0, 1] < 1 - 1e-3


@pytest.fixture(scope="module")
def brain():
    """A simulated brain as every fresh volume."""
    volume = simulate(5, 0, 48)[0]
    volumes = as_set(np.stack([volume]), "brain")
    return volume, RealVolumes(volumes, volumes, volumes, volumes, paper_grid(48))


def fluid(volume):
    """Voxels left and right of the midline that are dark, within the box of the lateral ventricles."""
    x, y, z = (paper_grid(48).origin_mm[a] + np.arange(48) * paper_grid(48).spacing_mm[a] for a in range(3))
    deep = np.ix_((z > 2) & (z < 34), (y > -55) & (y < 38))
    dark = volume[deep] < 0.5
    return dark[..., (x > -32) & (x < 0)].sum(), dark[..., (x > 0) & (x < 32)].sum()


def test_wide_ventricles_hold_more_fluid_on_both_sides_and_asymmetric_ones_on_the_left_only(brain):
    volume, real = brain
    wide, asymmetric = (ADVERSARIES[name].volumes(real, 0)[0] for name in ("wide_ventricles", "asymmetry"))
    assert fluid(wide)[0] > 1.1 * fluid(volume)[0] and fluid(wide)[1] > 1.1 * fluid(volume)[1]
    assert fluid(asymmetric)[0] > 1.1 * fluid(volume)[0]
    assert np.array_equal(asymmetric[..., 24:], volume[..., 24:])
    assert wide.mean() == pytest.approx(volume.mean(), rel=0.05)


def simulated(counts):
    """A cohort whose record says that the present simulator made it, at 16^3."""
    recipe = {"name": RECIPE, "seed": 3, "size": 16}
    facts = {"source": "simulated", "record": SimpleNamespace(recipe=recipe)}
    return SimpleNamespace(**(vars(cohort(**counts)) | facts))


def test_anatomy_of_a_simulated_cohort_is_simulated_again_once_and_stays_in_the_folder(tmp_path, monkeypatch):
    calls = []

    def again(of, name, planted):
        calls.append((name, planted))
        return np.full([16] * 3, planted.atrophy, dtype=np.float32)

    monkeypatch.setattr(real_volumes, "simulated_again", again)
    for _ in range(2):
        real = split(simulated({"train": 10, "reference": 10, "holdout": 20}), 10, tmp_path)
        thin = ADVERSARIES["thin_cortex"].volumes(real, 0)
        assert thin == pytest.approx(1.0)
    assert calls == [(name, Planted(atrophy=1.0)) for name in real.fresh.names]
    ADVERSARIES["missing_age_mode"].volumes(real, 0)
    assert calls[10:] == [(name, Planted(ageing=0.4)) for name in real.fresh.names]
    ADVERSARIES["asymmetry"].volumes(split(simulated({"train": 10, "reference": 10, "holdout": 20}), 10), 0)
    assert calls[20:] == [(name, Planted(left_ventricle_mm=4)) for name in real.fresh.names]


def test_a_subject_is_simulated_again_by_its_name():
    counts = {"train": 10, "reference": 10, "holdout": 20}
    volume = simulated_again(simulated(counts), "sim-00002", Planted())
    assert np.array_equal(volume, simulate(3, 2, 16)[0])
    older = simulated(counts)
    older.record.recipe["name"] = "mni-sim-0"
    assert split(older, 10).simulated_again is None
    assert split(cohort(**counts), 10).simulated_again is None


def test_unlisted_mosaics_and_disguises_are_what_their_rows_say(made, real, train, fresh):
    assert np.array_equal(made["top_and_bottom"][:, :HALF], train[:COUNT, :HALF])
    assert np.array_equal(made["top_and_bottom"][:, HALF:], another(train)[:, HALF:])
    assert np.array_equal(made["interleaved"][:, ::2], train[:COUNT, ::2])
    assert np.array_equal(made["interleaved"][:, 1::2], another(train)[:, 1::2])
    assert np.array_equal(
        made["copied_core"][:, CENTRE, CENTRE, CENTRE], train[:COUNT, CENTRE, CENTRE, CENTRE]
    )
    assert np.array_equal(made["copied_core"][:, :3], fresh[:, :3])
    assert np.array_equal(made["mirrored_reference"], real.reference.stack()[..., ::-1])
    assert np.array_equal(made["half_turn"], fresh[:, :, ::-1, ::-1])
    assert np.array_equal(made["axes_exchanged"], fresh.transpose(0, 1, 3, 2))
    assert made["blends"] == pytest.approx(0.7 * train[:COUNT] + 0.3 * another(train), abs=1e-6)
    disguised = made["disguised_copies"][:, :-1, :-1, :-1] - train[:COUNT, 1:, 1:, 1:] ** 0.85
    assert disguised[train[:COUNT, 1:, 1:, 1:] > 0.1].std() == pytest.approx(0.03, rel=0.1)
    for name in ("minority_disguised", "minority_half_brains", "minority_holdout"):
        assert np.array_equal(made[name][2:], fresh[2:]) and not np.array_equal(made[name][1], fresh[1])


def test_every_block_is_of_one_training_volume_and_neighbours_differ(made, train):
    block = SIDE // 4
    sources = set()
    for z in range(0, SIDE, block):
        part = made["blocks"][0, z : z + block, 6:12, 6:12]
        owners = [k for k in range(TRAIN) if np.array_equal(part, train[k, z : z + block, 6:12, 6:12])]
        assert owners
        sources.add(owners[0])
    assert len(sources) > 1


def cohort(**counts):
    return SimpleNamespace(
        set=lambda role: phantoms(counts[role], 16, seed=len(role)), grid=paper_grid(16), source="prepared"
    )


def test_fresh_volumes_are_every_other_held_out_one_and_no_role_is_smaller_than_an_entrant():
    real = split(cohort(train=12, reference=11, holdout=30), 64)
    assert (len(real.fresh), len(real.holdout)) == (11, 15)
    assert not set(real.fresh.digests) & set(real.holdout.digests)
    assert len(split(cohort(train=12, reference=11, holdout=30), 10).fresh) == 10


@pytest.mark.parametrize("role", ["train", "reference", "holdout"])
def test_too_few_volumes_of_a_role_are_refused_with_the_counts(role):
    counts = {"train": 10, "reference": 10, "holdout": 20}
    assert len(split(cohort(**counts), 10).fresh) == 10
    counts[role] -= 1
    with pytest.raises(UsageError, match=f"needs 10 training.* there are .*{counts[role]}"):
        split(cohort(**counts), 32)
    with pytest.raises(UsageError, match="--volumes 9"):
        split(cohort(train=10, reference=10, holdout=20), 9)
