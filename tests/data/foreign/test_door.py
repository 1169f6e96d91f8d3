"""The way onto a grid and back: places, intensities, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mribench.data.foreign.door import check_entry, enter, leave, upright
from mribench.data.foreign.hint import likely_sides
from mribench.data.foreign.recipe import Recipe
from mribench.data.foreign.stored import Stored
from mribench.data.grid import paper_grid
from mribench.data.simulate import simulate
from mribench.errors import MribenchError, UsageError

GRID = paper_grid(16)
FILE = Path("s.nii.gz")


@pytest.fixture(scope="module")
def brain():
    """A brain `[D,H,W]` on GRID."""
    return simulate(3, 0, 16)[0]


def array(voxels, sides="", affine=None, spacing=None, step=0.0):
    return Stored(np.asarray(voxels, dtype=np.float32), sides, affine, spacing, step)


def entered(stored, recipe):
    return enter(upright(stored, recipe, GRID, FILE), recipe, GRID, "s", stored.step, FILE)


def turned(brain, sides):
    """The voxels of `[D,H,W]` stored with axes that run to these sides."""
    world = brain.T  # x, y, z in RAS order
    order = ["RAS".index({"L": "R", "P": "A", "I": "S"}.get(letter, letter)) for letter in sides]
    flips = tuple(axis for axis, letter in enumerate(sides) if letter in "LPI")
    return np.flip(world.transpose(order), flips)


@pytest.mark.parametrize("sides", ["RAS", "LPS", "SAR", "IPL", "ASL", "PIR"])
@pytest.mark.parametrize("to_grid", ["resample", "pad"])
def test_every_orientation_comes_back_as_it_was(brain, sides, to_grid):
    recipe = Recipe(axes=sides, affine="bench", to_grid=to_grid)
    volume, passage = entered(array(turned(brain, sides), sides), recipe)
    np.testing.assert_allclose(volume, brain, atol=1e-5)
    assert passage.outside == pytest.approx(0, abs=1e-5) and passage.clipped == 0


def test_a_true_affine_is_followed_through_the_world(brain):
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 15
    volume, _ = entered(array(brain.T[::-1], affine=GRID.affine @ mirror), Recipe())
    np.testing.assert_allclose(volume, brain, atol=1e-5)


def test_an_affine_that_is_given_as_a_matrix_is_followed(brain):
    recipe = Recipe(affine="matrix", numbers=tuple(GRID.affine.ravel()))
    np.testing.assert_allclose(entered(array(brain.T), recipe)[0], brain, atol=1e-5)
    with pytest.raises(UsageError, match="must agree"):
        entered(array(brain.T, "LAS"), recipe)


def test_a_voxel_size_is_named_in_the_order_of_the_world(brain):
    sides, sizes = "SAR", GRID.spacing_mm
    by_size = Recipe(axes=sides, affine="spacing", numbers=sizes)
    by_view = Recipe(axes=sides, affine="fov", numbers=tuple(16 * size for size in sizes))
    for recipe in (by_size, by_view):
        np.testing.assert_allclose(entered(array(brain, sides), recipe)[0], brain, atol=1e-5)


def test_voxel_sizes_of_the_header_follow_the_stored_axes(brain):
    x, y, z = GRID.spacing_mm
    volume, _ = entered(array(brain, "SAR", np.eye(4), (z, y, x)), Recipe(axes="SAR"))
    np.testing.assert_allclose(volume, brain, atol=1e-5)


@pytest.mark.parametrize(
    ("affine", "what"),
    [
        (None, "does not"),
        (np.eye(4), "the identity"),
        (np.diag([0.8, 1, 1.5, 1]), "only a voxel size"),
    ],
)
def test_a_header_that_says_nothing_is_refused(brain, affine, what):
    with pytest.raises(MribenchError, match=f"s.nii.gz must .* {what}.*--orientation"):
        upright(array(brain.T, "", affine, (1, 1, 1)), Recipe(), GRID, FILE)


def test_an_array_without_a_voxel_size_is_refused(brain):
    with pytest.raises(MribenchError, match="must state the size of its voxels"):
        upright(array(brain, "SAR"), Recipe(axes="SAR"), GRID, FILE)


def test_pad_keeps_every_voxel_and_refuses_others_sizes(brain):
    wide = np.zeros((20, 18, 13), dtype=np.float32)
    wide[2:18, 1:17, :] = brain[:, :, 2:15]
    volume, _ = entered(array(wide.T, "RAS"), Recipe(axes="RAS", to_grid="pad"))
    inside = np.abs(volume[:, :, 1:14] - brain[:, :, 2:15]).max()
    shifted = np.abs(volume[:, :, 2:15] - brain[:, :, 2:15]).max()
    assert min(inside, shifted) < 1e-6
    stored = array(brain.T, "RAS", np.eye(4), (1, 1, 1))
    recipe = Recipe(axes="RAS", to_grid="pad")
    with pytest.raises(MribenchError, match=r"bench's voxels of 11 x 11 x 8 mm.*voxels of 1 x 1 x 1 mm"):
        check_entry(upright(stored, recipe, GRID, FILE), recipe, GRID, FILE)


def test_intensities_are_mapped_and_clipped(brain):
    recipe = Recipe(axes="SAR", affine="bench", rescale=(-1.0, 1.0))
    volume, passage = entered(array(2 * brain - 1, "SAR"), recipe)
    np.testing.assert_allclose(volume, brain, atol=1e-5)
    assert (passage.low, passage.high, passage.clipped) == (-1, 1, 0)
    _, cut = entered(array(4 * brain - 1, "SAR"), recipe)
    assert cut.clipped == pytest.approx(((2 * brain) > 1.05).mean(), abs=0.01)


def test_percentiles_are_those_of_each_volume(brain):
    recipe = Recipe(axes="SAR", affine="bench", rescale=("p0", "p99"))
    _, passage = entered(array(700 * brain - 50, "SAR"), recipe)
    assert passage.low == pytest.approx(-50)
    assert passage.high == pytest.approx(np.percentile(700 * brain - 50, 99), rel=1e-5)


def test_intensities_without_a_range_must_lie_in_0_to_1(brain):
    with pytest.raises(MribenchError, match=r"run from 0 to .*--rescale"):
        entered(array(255 * brain, "SAR"), Recipe(axes="SAR", affine="bench"))


@pytest.mark.parametrize("sides", ["SAR", "LPS"])
@pytest.mark.parametrize("step", [0.0, 1.0])
def test_the_inverse_of_a_passage_stores_and_brings_back_a_real_volume(brain, sides, step):
    other = simulate(3, 1, 16)[0]
    recipe = Recipe(axes=sides, affine="bench", rescale=(-100.0, 900.0))
    stored = array(np.round(1000 * turned(brain, sides) - 100), sides, step=step)
    _, passage = entered(stored, recipe)
    real = leave(other, passage, recipe, GRID)
    assert real.data.min() >= -100 and real.data.max() <= 900
    assert step == 0 or np.array_equal(real.data, np.round(real.data))
    back, _ = enter(real, recipe, GRID, "r", step, FILE)
    np.testing.assert_allclose(back, other, atol=6e-4 if step else 1e-5)


def test_a_coarse_grid_costs_what_the_inverse_shows(brain):
    recipe = Recipe(axes="RAS", affine="bench")
    _, passage = entered(array(brain.T[::2, ::2, ::2], "RAS"), recipe)
    assert passage.shape == (8, 8, 8)
    back, _ = enter(leave(brain, passage, recipe, GRID), recipe, GRID, "r", 0, FILE)
    error = np.abs(back - brain)[brain > 0].mean()
    assert 0.01 < error < 0.2


@pytest.mark.parametrize(("taken", "truth"), [("RAS", "RPS"), ("RAS", "RAI"), ("LIP", "LPS"), ("SAR", "ASR")])
def test_the_hint_names_the_orientation_that_fits(taken, truth):
    brains = [simulate(3, i, 16)[0] for i in range(4)]
    recipe = Recipe(axes=taken, affine="bench")
    volumes = [entered(array(turned(each, truth), taken), recipe)[0] for each in brains[:2]]
    found = likely_sides(volumes, np.mean(brains[2:], axis=0), taken)
    assert found is not None and found[0] == truth and found[1] > found[2] + 0.1


def test_the_hint_is_silent_where_the_orientation_fits(brain):
    assert likely_sides([brain], simulate(3, 1, 16)[0], "RAS") is None
    assert likely_sides([brain[:, :, ::-1]], brain, "RAS") is None
