"""Segmentation on phantoms of known volumes; traits, rows and distance against closed forms."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from mribench.data.grid import paper_grid
from mribench.errors import MribenchError, NotApplicable
from mribench.metrics.anatomy import ANATOMY, SHRINKAGE
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features.anatomy import _priors, lattice_of, region_volumes, segment
from mribench.metrics.regions import REGIONS, TRAITS, traits
from mribench.metrics.scoring import score
from mribench.metrics.statistics.permutation import permutation_p
from mribench.metrics.statistics.regions import compare_regions

SIZE = 48
LATTICE = lattice_of((SIZE,) * 3, None)
LEVELS = np.array([0.25, 0.6, 0.85])  # of CSF, grey and white matter


def volumes_of(trait_values):
    """Region volumes `[N,8]` in ml that have exactly these traits `[N,8]`."""
    ventricles, outer, grey, white, cerebellum, *ratios = np.asarray(trait_values).T

    def halves(whole, ratio):
        right = np.exp(whole) / (1 + np.exp(ratio))
        return np.exp(whole) - right, right

    both = np.log(np.exp(ventricles) + 1)  # 1 ml is added to each side of what is halved
    sides = [halves(whole, ratio) for whole, ratio in zip((both, grey, white), ratios, strict=True)]
    columns = (*sides[0], np.exp(outer), *sides[1], *sides[2], np.exp(cerebellum))
    return np.stack(columns, axis=1) - 1.0


def people(n, seed, mean=0.0, spread=1.0):
    """Traits of n simulated people; `mean` in standard deviations and `spread` apply to the ventricles."""
    centre = np.array([3.5, 5.5, 6.3, 6.2, 4.8, 0.0, 0.0, 0.0])
    deviations = np.array([0.3, 0.1, 0.06, 0.06, 0.08, 0.1, 0.01, 0.01])
    rows = np.random.default_rng(seed).normal(size=(n, 8))
    rows[:, 0] = mean + spread * rows[:, 0]
    return centre + deviations * rows


@pytest.fixture(scope="module")
def tissues():
    """CSF, grey and white matter `[3,D,H,W]` of the template on the grid, made symmetric, without mixed voxels."""
    priors = _priors()
    maps = priors.lattice.sample(priors.maps, LATTICE.points(), "zeros").numpy()
    grey, white, brain = (maps + maps[..., ::-1]) / 2
    winner = np.argmax([1 - grey - white, grey, white], axis=0)
    return np.stack([(winner == tissue) & (brain > 0.5) for tissue in range(3)])


def painted(tissues):
    """The picture of a phantom; no noise, a little blur of the levels so that no class is a single value."""
    texture = 1 + 0.02 * np.sin(np.arange(SIZE) * 2.1)[:, None, None]
    return np.tensordot(LEVELS, tissues, 1) * texture


@pytest.fixture(scope="module")
def phantom(tissues):
    return painted(tissues)


def test_a_phantom_has_the_volumes_it_was_made_of(tissues, phantom):
    found = segment(phantom, LATTICE)
    true_ml = tissues.sum(axis=(1, 2, 3)) * found.voxel_ml
    assert found.proportions.sum(axis=0) == pytest.approx(1)
    assert found.proportions.sum(axis=1) * found.voxel_ml == pytest.approx(true_ml, rel=0.05)


def test_fluid_added_to_the_ventricles_is_measured_there_and_nowhere_else(tissues, phantom):
    x, y, z = np.moveaxis(LATTICE.points().numpy(), -1, 0)
    ball = ((abs(x) - 18) ** 2 + (y + 20) ** 2 + (z - 20) ** 2 < 12**2) & ~tissues[0] & (tissues.any(axis=0))
    wide = np.stack([tissues[0] | ball, tissues[1] & ~ball, tissues[2] & ~ball])
    before, after = region_volumes(phantom, LATTICE), region_volumes(painted(wide), LATTICE)
    added_ml = ball.sum() * float(np.prod(LATTICE.spacing_mm)) / 1000
    change = dict(zip(REGIONS, after - before, strict=True))
    assert change["ventricles left"] + change["ventricles right"] == pytest.approx(added_ml, rel=0.1)
    assert abs(change["outer CSF"]) + abs(change["cerebellum"]) < 0.1 * added_ml


def test_fluid_added_to_the_left_ventricle_is_measured_on_the_left(tissues, phantom):
    x, y, z = np.moveaxis(LATTICE.points().numpy(), -1, 0)
    ball = ((x + 18) ** 2 + (y + 20) ** 2 + (z - 20) ** 2 < 12**2) & ~tissues[0] & tissues.any(axis=0)
    wide = np.stack([tissues[0] | ball, tissues[1] & ~ball, tissues[2] & ~ball])
    before, after = (traits(region_volumes(each, LATTICE)[None])[0] for each in (phantom, painted(wide)))
    change = dict(zip(TRAITS, after - before, strict=True))
    assert change["ventricle asymmetry"] > 0.3
    assert abs(change["grey asymmetry"]) < 0.05


def test_gain_leaves_volumes_and_gamma_moves_none_by_four_percent(phantom):
    before = region_volumes(phantom, LATTICE)
    assert region_volumes(0.6 * phantom, LATTICE) == pytest.approx(before, rel=1e-6)
    for gamma in (0.7, 1.4):
        assert region_volumes(phantom**gamma, LATTICE) == pytest.approx(before, rel=0.04)


def test_a_smooth_field_over_the_volume_moves_no_volume_by_six_percent(phantom):
    ramp = np.linspace(0.85, 1.15, SIZE)
    before = region_volumes(phantom, LATTICE)
    assert region_volumes(phantom * ramp[:, None, None], LATTICE) == pytest.approx(before, rel=0.06)


def test_a_mirrored_brain_exchanges_left_and_right(tissues):
    thin = tissues.copy()
    thin[1][..., : SIZE // 2] &= (
        thin[1][..., : SIZE // 2] & (np.indices((SIZE,) * 3)[0] % 4 > 0)[..., : SIZE // 2]
    )
    lopsided = painted(thin)
    here, there = region_volumes(lopsided, LATTICE), region_volumes(lopsided[..., ::-1], LATTICE)
    assert here[3] < 0.9 * here[4]
    assert there[[1, 0, 2, 4, 3, 6, 5, 7]] == pytest.approx(here, rel=1e-3)


def test_an_empty_volume_has_no_regions_and_finite_traits():
    nothing = region_volumes(np.zeros((SIZE,) * 3), LATTICE)
    assert not nothing.any()
    assert np.isfinite(traits(nothing[None])).all()


@pytest.mark.parametrize("picture", [np.ones((SIZE,) * 3), np.eye(SIZE)[None] * np.ones((SIZE, 1, 1))])
def test_pictures_that_are_no_brain_have_finite_volumes(picture):
    assert np.isfinite(region_volumes(picture, LATTICE)).all()


def test_coarse_voxels_other_spaces_and_turned_axes_are_refused():
    with pytest.raises(NotApplicable, match=r"voxels of at most 5.5 mm, but these are"):
        lattice_of((24,) * 3, None)
    with pytest.raises(NotApplicable, match="have no affine"):
        lattice_of((64, 72, 64), None)
    turned = paper_grid(64).affine[[1, 0, 2, 3]]
    small = np.diag([1.0, 1.0, 1.0, 1.0])
    for affine in (turned, small):
        with pytest.raises(NotApplicable, match="needs volumes in MNI152 space"):
            lattice_of((64,) * 3, affine.tolist())


def arrays(volume_set, reference, samples):
    return Arrays(
        {"reference": volume_set("reference", reference), "samples": volume_set("samples", samples)}, None
    )


def test_a_volume_that_is_no_number_is_an_error_that_names_it(volume_set, phantom):
    broken = phantom.astype(np.float32)
    broken[3, 3, 3] = np.nan
    volumes = [phantom.astype(np.float32)] * 9
    with pytest.raises(MribenchError, match="finite"):
        score(ANATOMY, arrays(volume_set, volumes, [*volumes[:3], broken]))


def test_volumes_below_the_resolution_are_not_applicable(volume_set, formula_volume):
    volumes = [formula_volume(seed, 16) for seed in range(9)]
    with pytest.raises(NotApplicable, match=r"at least 32 x 32 x 32 voxels"):
        score(ANATOMY, arrays(volume_set, volumes, volumes))


def test_traits_are_logarithms_of_sums_and_of_left_over_right():
    rows = people(5, 0)
    assert traits(volumes_of(rows)) == pytest.approx(rows, abs=1e-12)


@pytest.mark.parametrize("wrong", [np.ones((3, 7)), np.ones(8), -np.ones((3, 8)), np.full((3, 8), np.nan)])
def test_traits_of_anything_else_are_refused(wrong):
    with pytest.raises(MribenchError, match="Traits need"):
        traits(wrong)


def test_rows_are_the_textbook_effect_sizes_and_tests():
    reference, samples = people(20, 1), people(15, 2, mean=1.5)
    rows = compare_regions(volumes_of(reference), volumes_of(samples))
    a, b = reference[:, 0], samples[:, 0]
    pooled = math.sqrt((19 * a.var(ddof=1) + 14 * b.var(ddof=1)) / 33)
    assert [row.trait for row in rows] == list(TRAITS)
    assert rows[0].d == pytest.approx((b.mean() - a.mean()) / pooled)
    assert rows[0].change == pytest.approx(100 * (math.exp(b.mean() - a.mean()) - 1))
    assert rows[0].spread == pytest.approx(b.std(ddof=1) / a.std(ddof=1))
    smallest = stats.ttest_ind(a, b, equal_var=False).pvalue  # Holm: 8 traits, 2 tests
    assert rows[0].p_mean == pytest.approx(16 * smallest)
    assert all(
        row.d_low < row.d < row.d_high and row.spread_low < row.spread < row.spread_high for row in rows
    )


def test_the_intervals_of_rows_hold_the_truth_as_often_as_they_say():
    """40 draws of 24 and 24 people, ventricles 1 deviation wider, spread 0.5: pooled d = 1 / sqrt(0.625)."""
    d, spread = 1 / math.sqrt(0.625), 0.5
    held = np.zeros(2)
    for seed in range(40):
        row = compare_regions(
            volumes_of(people(24, 2 * seed)), volumes_of(people(24, 2 * seed + 1, mean=1, spread=0.5))
        )[0]
        held += [row.d_low <= d <= row.d_high, row.spread_low <= spread <= row.spread_high]
    assert (held / 40 >= 0.85).all()


def smallest_p(reference, samples):
    rows = compare_regions(volumes_of(reference), volumes_of(samples))
    return min(min(row.p_mean, row.p_spread) for row in rows)


def test_equal_people_rarely_have_a_significant_row():
    smallest = [smallest_p(people(24, seed), people(24, seed + 900)) for seed in range(25)]
    assert np.mean(np.array(smallest) <= 0.05) <= 0.16


def test_a_side_that_never_varies_has_finite_rows():
    alike = np.repeat(volumes_of(people(1, 0)), 5, axis=0)
    for samples in (alike, volumes_of(people(5, 1))):
        assert np.isfinite(
            [list(row.model_dump(exclude={"trait"}).values()) for row in compare_regions(alike, samples)]
        ).all()


def test_fewer_than_three_volumes_have_no_rows():
    with pytest.raises(MribenchError, match="3 volumes on each side, but got 5 and 2"):
        compare_regions(volumes_of(people(5, 0)), volumes_of(people(2, 1)))


def energy(reference, samples, distance):
    """2 E|X-Y| - E|X-X'| - E|Y-Y'| over different pairs."""
    m, n = len(reference), len(samples)
    within = [distance(a, a).sum() / (k * (k - 1)) for a, k in ((reference, m), (samples, n))]
    return 2 * distance(reference, samples).mean() - sum(within)


def test_the_value_is_the_mean_of_the_energy_distances_of_all_traits_together_and_of_each_alone():
    reference, samples = people(12, 3), people(9, 4, mean=2)
    deviations = reference.std(axis=0, ddof=1)
    shrunk = (1 - SHRINKAGE) * np.corrcoef(reference.T) + SHRINKAGE * np.eye(8)
    inverse = np.linalg.inv(shrunk * np.outer(deviations, deviations))
    joint = energy(reference, samples, lambda a, b: np.sqrt(cdist(a, b, "mahalanobis", VI=inverse)))
    alone = [
        energy(a[:, None], b[:, None], lambda a, b, s=s: np.sqrt(cdist(a, b) / s))
        for a, b, s in zip(reference.T, samples.T, deviations, strict=True)
    ]
    everything = {"reference": np.arange(12), "samples": np.arange(9)}
    assert ANATOMY.value((reference, samples), everything) == pytest.approx((4 * joint + sum(alone)) / 12)


def test_the_distance_of_equal_people_is_zero_on_average():
    everything = {"reference": np.arange(24), "samples": np.arange(24)}
    values = [ANATOMY.value((people(24, s), people(24, s + 500)), everything) for s in range(200)]
    assert (
        abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(200) + 0.02
    )  # whitening by few people adds little


CHEATS = {
    "the mean volume": lambda seed: np.repeat(people(200, seed).mean(axis=0)[None], 24, axis=0),
    "five people repeated": lambda seed: np.resize(people(5, seed), (24, 8)),
    "ventricles 1.3 deviations too wide": lambda seed: people(24, seed, mean=1.3),
    "one side thin, by turns": lambda seed: (
        people(24, seed) + np.outer(np.resize([1, -1], 24), np.eye(8)[6] / 25)
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_people_with_the_wrong_anatomy_are_mostly_told_from_the_reference(cheat):
    draws = [ANATOMY.exchangeable((people(24, 10 + i), CHEATS[cheat](50 + i))) for i in range(5)]
    assert np.median([permutation_p(gram, m) for gram, m in draws]) <= 0.05


def test_a_missing_range_of_ages_is_told_by_the_rows_where_the_distance_has_little_power():
    assert (
        np.median([smallest_p(people(24, 10 + i), people(24, 50 + i, spread=0.3)) for i in range(5)]) <= 0.05
    )


def test_traits_that_do_not_go_together_make_the_distance_larger_on_average():
    """Ventricles grow where grey matter shrinks; the cheat draws both separately. 24 samples cannot show it."""

    def aged(seed, together):
        rows, age = people(200, seed), np.random.default_rng(seed + 1).normal(size=200)
        other = age if together else np.random.default_rng(seed + 2).normal(size=200)
        rows[:, 0] += 0.9 * age
        rows[:, 2] -= 0.18 * other
        return rows

    everything = {"reference": np.arange(200), "samples": np.arange(200)}
    apart, alike = (
        [ANATOMY.value((aged(i, True), aged(i + 5000, together)), everything) for i in range(0, 300, 10)]
        for together in (False, True)
    )
    assert stats.ttest_ind(apart, alike).pvalue < 0.001 and np.mean(apart) > np.mean(alike)


def test_the_rows_of_a_real_comparison_reach_the_caller(tissues):
    from mribench import evaluate

    rng = np.random.default_rng(0)
    brains = [painted(tissues) + 0.02 * rng.normal(size=(SIZE,) * 3) * tissues.any(axis=0) for _ in range(12)]
    volumes = np.clip(np.stack(brains), 0, 1).astype(np.float32)
    found = evaluate(volumes[9:], volumes[:9], metrics=("anatomy",), device="cpu")
    assert found.score("anatomy").ranked and [row.trait for row in found.regions] == list(TRAITS)
    coarse = volumes[:, ::3, ::3, ::3]
    assert not evaluate(coarse[9:], coarse[:9], metrics=("anatomy",), device="cpu").regions
