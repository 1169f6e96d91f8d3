"""Simulated subjects: repeatable, distinct, the same at every size, upright, unfolded, as diverse as real ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mribench.data import simulate as simulator
from mribench.data.anatomy import mni_anatomy
from mribench.data.grid import paper_grid
from mribench.data.simulate import Planted, simulate
from mribench.errors import UsageError
from mribench.metrics.ms_ssim import mean_of_pairs, ms_ssim_matrix
from mribench.metrics.statistics.jackknife import leave_out, squared_error

SEED = 11
VOLUMES = ("brain_cm3", "gm_cm3", "wm_cm3", "csf_cm3")


@pytest.fixture(scope="module")
def subjects() -> list[tuple[np.ndarray, dict[str, float]]]:
    """Six subjects at 32^3."""
    return [simulate(SEED, index, 32) for index in range(6)]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    brain = (a > 0) | (b > 0)
    return float(np.corrcoef(a[brain], b[brain])[0, 1])


def halved(volume: np.ndarray) -> np.ndarray:
    n = len(volume) // 2
    return volume.reshape(n, 2, n, 2, n, 2).mean(axis=(1, 3, 5))


def test_voxels_repeat_in_any_order_and_with_any_number_of_threads(subjects, threads):
    for index, count in ((3, 1), (0, 3)):
        torch.set_num_threads(count)
        volume, truth = simulate(SEED, index, 32)
        assert np.array_equal(volume, subjects[index][0])
        assert truth == subjects[index][1]


def test_subjects_and_seeds_differ(subjects):
    volumes = [volume for volume, _ in subjects] + [simulate(SEED + 1, 0, 32)[0]]
    similar = np.corrcoef([volume.ravel() for volume in volumes])[np.triu_indices(len(volumes), 1)]
    assert similar.min() > 0.8 and similar.max() < 0.98
    assert len({truth["age"] for _, truth in subjects}) == len(subjects)


def test_every_size_shows_the_same_subject(subjects):
    large, truth = simulate(SEED, 0, 64)
    assert correlation(halved(large), subjects[0][0]) > 0.99
    assert correlation(halved(large), subjects[1][0]) < 0.9
    for name, value in truth.items():
        assert subjects[0][1][name] == pytest.approx(value, abs=5 if name in VOLUMES else 0)


def test_an_odd_size_is_centred_like_the_others(subjects):
    volume, _ = simulate(SEED, 0, 11)
    mass = [centre_mm(volume), centre_mm(subjects[0][0])]
    assert np.abs(mass[0] - mass[1]).max() < 0.5


def centre_mm(volume: np.ndarray) -> np.ndarray:
    """Centre of mass in world mm (x, y, z)."""
    index = [(np.indices(volume.shape)[axis] * volume).sum() / volume.sum() for axis in (2, 1, 0)]
    return paper_grid(len(volume)).affine[:3] @ [*index, 1]


def test_intensities_fill_the_unit_range_and_background_is_exactly_zero(subjects):
    for volume, truth in subjects:
        assert volume.dtype == np.float32 and volume.shape == (32, 32, 32)
        assert volume.min() == 0 and 0.9 < volume.max() <= 1
        faces = [volume[-1, :2, :2], volume[:, :, 0], volume[:, :, -1]]
        assert not any(face.any() for face in faces)
        brain_share = truth["brain_cm3"] / (176 * 176 * 128 / 1000)
        # Voxels on the brain's edge count as a whole, so there are more of them than brain.
        assert brain_share < (volume > 0).mean() < 1.4 * brain_share


def test_the_axes_are_inferior_to_superior_and_posterior_to_anterior(subjects):
    anatomy = mni_anatomy()
    tissue_mean = torch.tensor(anatomy.class_means).view(3, 1, 1, 1) * anatomy.tissues
    points = simulator._finer_lattice(paper_grid(32), (1, 1, 1)).points()
    template = anatomy.lattice.sample(tissue_mean.sum(0, keepdim=True), points, "zeros")[0].numpy()
    mean = np.mean([volume for volume, _ in subjects], axis=0)
    upright = np.corrcoef(mean.ravel(), template.ravel())[0, 1]
    assert upright > 0.85
    for axis in (0, 1):
        assert np.corrcoef(np.flip(mean, axis).ravel(), template.ravel())[0, 1] < upright - 0.05
    # The lowest slices hold brainstem and cerebellum, which lie behind the middle of the brain (y = -18 mm).
    assert centre_mm(np.where(np.arange(32)[:, None, None] < 4, mean, 0))[1] < -30


def test_left_is_low_in_the_last_axis(monkeypatch):
    def shifted(random):
        return np.array([[1.0, 0, 0, 20.0], [0, 1, 0, 0], [0, 0, 1, 0]])

    monkeypatch.setattr(simulator, "_draw_affine", shifted)
    # Each voxel takes the template's tissue 20 mm to its right, so the brain moves 20 mm to the left.
    assert centre_mm(simulate(SEED, 0, 16)[0])[0] == pytest.approx(-20, abs=2.5)


def test_the_brain_is_as_large_as_an_adults_and_in_view(subjects):
    for _, truth in subjects:
        assert 1200 < truth["brain_cm3"] < 1700
        assert truth["brain_cm3"] == pytest.approx(sum(truth[name] for name in VOLUMES[1:]))
        assert 55 <= truth["age"] <= 90
    crown = np.mean([32 - np.flatnonzero(volume.any(axis=(1, 2)))[-1] - 1 for volume, _ in subjects])
    assert crown * 4 < 6  # empty slices of 4 mm above the crown


def test_no_subject_folds(subjects):
    assert all(truth["jacobian_min"] > 0 for _, truth in subjects)
    for index in range(2):
        traits = simulator._draw_traits(simulator._generator(SEED, index, "traits"))
        warp = simulator._draw_warp(simulator._generator(SEED, index, "warp"), traits.ventricle_mm)
        points = simulator._template_points(
            simulator._finer_lattice(paper_grid(64), (1, 1, 1)), traits, warp
        ).numpy()
        steps = [np.diff(points, axis=axis)[:63, :63, :63] for axis in (2, 1, 0)]
        assert np.linalg.det(np.stack(steps, axis=-1)).min() > 0


def test_a_warp_that_would_fold_is_weakened(monkeypatch):
    monkeypatch.setattr(simulator, "STRENGTH", 3.0)
    truth = simulate(SEED, 0, 8)[1]
    assert truth["strength"] < 3.0
    assert truth["jacobian_min"] > 0.05


def test_the_smallest_jacobian_of_a_linear_map_is_its_determinant():
    x, y, z = simulator.WARP_LATTICE.points().unbind(-1)
    displacement = torch.stack([0.2 * x + 0.3 * y, -0.1 * y, 0.5 * x - 0.4 * z])
    assert simulator._smallest_jacobian(displacement) == pytest.approx(1.2 * 0.9 * 0.6, rel=1e-3)
    assert simulator._smallest_jacobian(torch.stack([-2 * x, 0 * y, 0 * z])) == pytest.approx(-1, rel=1e-3)


def test_the_warp_of_the_opposite_velocity_undoes_it():
    field = simulator._random_fields(np.random.default_rng(0), 3, simulator.WARP_LATTICE, ((30.0, 2.0),))
    there, back = simulator._exponential(field), simulator._exponential(-field)
    points = simulator.WARP_LATTICE.points()
    moved = simulator.WARP_LATTICE.sample(back, points + there.movedim(0, -1))
    interior = (slice(None), *[slice(5, -5)] * 3)
    assert (there + moved)[interior].abs().max() < 0.25 * there[interior].abs().max()
    assert (there + moved)[interior].pow(2).mean().sqrt() < 0.05 * there[interior].pow(2).mean().sqrt()


def test_random_fields_have_the_stated_size_and_strength():
    fields = simulator._random_fields(
        np.random.default_rng(0), 4, simulator.FOLD_LATTICE, ((4.0, 3.0), (8.0, 4.0))
    )
    assert float(fields.std()) == pytest.approx(5, rel=0.02)
    single = simulator._random_fields(np.random.default_rng(0), 4, simulator.FOLD_LATTICE, ((12.0, 1.0),))
    # White noise smoothed with a Gaussian of SD s has the correlation exp(-d^2 / 4 s^2); s = 12 / 1.5 mm.
    neighbour = float((single[..., 4:] * single[..., :-4]).mean() / single.pow(2).mean())
    assert neighbour == pytest.approx(np.exp(-(8.0**2) / (4 * 8.0**2)), abs=0.05)


def test_registration_leaves_no_affine_part_in_the_warp():
    field = simulator._random_fields(np.random.default_rng(1), 3, simulator.WARP_LATTICE, ((60.0, 3.0),))
    once = simulator._registered(field)
    assert float((simulator._registered(once) - once).abs().max()) < 1e-3
    assert float((field - once).abs().max()) > 0.5


def test_ventricles_and_atrophy_add_fluid(monkeypatch):
    fluid = []
    for ventricle_mm, atrophy in ((0.0, 0.0), (4.0, 0.0), (0.0, 0.6)):
        monkeypatch.setattr(simulator, "VENTRICLE_MM", (ventricle_mm, ventricle_mm + 1e-3))
        monkeypatch.setattr(simulator, "ATROPHY", (atrophy, atrophy))
        fluid.append(simulate(SEED, 2, 32)[1]["csf_cm3"])
    assert fluid[1] > fluid[0] + 10
    assert fluid[2] > fluid[0] + 20


def test_older_subjects_have_larger_ventricles_and_more_atrophy():
    traits = [simulator._draw_traits(simulator._generator(SEED, index, "traits")) for index in range(60)]
    age = [trait.age for trait in traits]
    assert np.corrcoef(age, [trait.ventricle_mm for trait in traits])[0, 1] > 0.8
    assert np.corrcoef(age, [trait.atrophy for trait in traits])[0, 1] > 0.8


@pytest.mark.parametrize(("index", "size"), [(-1, 32), (0, 3), (0, 0)])
def test_meaningless_requests_are_refused(index, size):
    with pytest.raises(UsageError, match=f"size {size}, index {index}"):
        simulate(SEED, index, size)


@pytest.mark.slow
def test_subjects_are_as_diverse_as_real_ones():
    volumes = np.stack([simulate(0, index, 128)[0] for index in range(16)])
    matrix = ms_ssim_matrix(volumes)
    value = mean_of_pairs(matrix, np.arange(16))
    variance = squared_error(value, leave_out(lambda keep: mean_of_pairs(matrix, keep), 16), 16)
    assert abs(value - 0.792) < 0.01 + 2 * variance**0.5


def changed(subject: dict[str, float], planted: dict[str, float], name: str) -> float:
    return planted[name] - subject[name]


def test_planted_ventricles_and_atrophy_move_the_truth_as_stated_and_leave_the_rest(subjects):
    """The same subject with 3 mm wider ventricles, and with a CSF logit that is 0.4 higher."""
    before = subjects[1][1]
    wide, thin = (
        simulate(SEED, 1, 32, planted)[1] for planted in (Planted(ventricle_mm=3.0), Planted(atrophy=0.4))
    )
    assert wide["csf_cm3"] > before["csf_cm3"] + 5 and wide["age"] == before["age"]
    assert wide["strength"] == before["strength"]  # the rest of the warp is not weakened
    assert changed(before, thin, "atrophy") == pytest.approx(0.4)
    assert thin["csf_cm3"] > 1.05 * before["csf_cm3"] and thin["gm_cm3"] < before["gm_cm3"]
    assert thin["brain_cm3"] == pytest.approx(before["brain_cm3"])


def test_planted_youth_shrinks_the_years_above_the_youngest(subjects):
    young = simulate(SEED, 2, 32, Planted(ageing=0.4))[1]
    assert young["age"] == pytest.approx(55 + 0.4 * (subjects[2][1]["age"] - 55))
    assert young["ventricle_mm"] < subjects[2][1]["ventricle_mm"]


def test_a_planted_left_ventricle_changes_the_left_side_of_the_brain_only(subjects):
    change = np.abs(simulate(SEED, 3, 32, Planted(left_ventricle_mm=4.0))[0] - subjects[3][0])
    left, right = change[..., :16], change[..., 16:]
    assert left.max() > 0.3 and left.mean() > 4 * right.mean()
