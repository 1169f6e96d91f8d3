"""Recipes and presets: what the options mean, and what contradicts."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from click import Choice

from mribench.commands.adopt import adopt
from mribench.data.foreign.recipe import Recipe, make_recipe, parse_affine, parse_rescale, presets
from mribench.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind", "numbers"),
    [
        ("bench", "bench", ()),
        ("2", "spacing", (2, 2, 2)),
        ("0.8, 1,1.5", "spacing", (0.8, 1, 1.5)),
        ("fov:256", "fov", (256, 256, 256)),
        ("-1,0,0,9,0,1,0,8,0,0,1,7", "matrix", (-1, 0, 0, 9, 0, 1, 0, 8, 0, 0, 1, 7, 0, 0, 0, 1)),
    ],
)
def test_an_affine_is_given_as_a_word_a_size_a_field_of_view_or_a_matrix(text, kind, numbers):
    assert parse_affine(text) == {"affine": kind, "numbers": numbers}


def test_an_affine_is_taken_from_a_file(tmp_path):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.float32), affine), tmp_path / "right.nii")
    assert parse_affine(str(tmp_path / "right.nii"))["numbers"] == tuple(affine.ravel())


@pytest.mark.parametrize("text", ["", "two", "1,2", "fov:", "fov:1,2", "mni:2", "1,,2", "nan", "inf"])
def test_an_affine_that_means_nothing_is_refused(text):
    with pytest.raises(UsageError, match="--assume-affine takes"):
        parse_affine(text)


def test_intensities_are_numbers_or_percentiles():
    assert parse_rescale(("-1", "p99.5")) == (-1.0, "p99.5")
    for bad in ("p101", "x", "nan", ""):
        with pytest.raises(UsageError, match="must be a number or a percentile"):
            parse_rescale(("0", bad))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": "RAX"}, "once"),
        ({"axes": "RLS"}, "once"),
        ({"axes": "RA"}, "once"),
        ({"axes": "CCRAS"}, "once"),
        ({"rescale": (1.0, 0.0)}, "LOW < HIGH"),
        ({"rescale": ("p99", "p1")}, "LOW < HIGH"),
        ({"affine": "spacing", "numbers": (0.0, 1.0, 1.0)}, "above 0 mm"),
        ({"affine": "fov"}, "takes 3 numbers"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        make_recipe(None, "nifti", settings)


def test_the_presets_of_the_command_are_those_of_the_file():
    choice = next(option.type for option in adopt.params if option.name == "preset")
    assert isinstance(choice, Choice)
    assert list(choice.choices) == list(presets())


def test_every_preset_makes_a_recipe_and_options_replace_its_parts():
    for name, preset in presets().items():
        forms = [form for form in ("nifti", "array") if getattr(preset, form)]
        assert forms
        for form in forms:
            assert make_recipe(name, form, {}).preset == name
            changed = make_recipe(name, form, {"rescale": (0.0, 7.0), "affine": "bench"})
            assert (changed.rescale, changed.affine, changed.numbers) == ((0.0, 7.0), "bench", ())


def test_a_preset_for_nifti_refuses_arrays():
    with pytest.raises(UsageError, match="WDM stores them"):
        make_recipe("wdm", "array", {})


def test_a_recipe_is_one_readable_line_and_survives_json():
    recipe = make_recipe("wdm", "nifti", {"to_grid": "pad"})
    expected = (
        "preset wdm, axes LPS, a field of view of 256 x 256 x 256 mm, intensities 0 to 1, cropped and padded"
    )
    assert str(recipe) == expected
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe.registration is None and Recipe(to_grid="register").registration is not None
