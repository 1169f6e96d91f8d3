"""Preparing stripped, registered scans: world mapping, intensities, and refusals."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from mribench.data.cohort import CohortPlan, CohortSpec, read_voxels, volume_path
from mribench.data.grid import Grid, dequantise, paper_grid
from mribench.data.nifti import read_nifti
from mribench.data.prepare import own
from mribench.data.prepare.recipe import StrippedRecipe
from mribench.data.prepare.scans import discover
from mribench.data.prepare.stripped import process_stripped, resample
from mribench.errors import MribenchError
from mribench.files import digest_volume

GRID = paper_grid(32)
RECIPE = StrippedRecipe()
RADII = np.array([66.0, 82.0, 60.0])
CENTRE = np.array([0.0, -18.0, 18.0])
SPACING = np.array([3.0, 3.5, 4.0])


def brightness(points):
    """A phantom head in world mm `[...,3]`: an ellipsoid with a gradient and a bright left eye."""
    inside = (((points - CENTRE) / RADII) ** 2).sum(-1) <= 1
    eye = ((points - [-30, 30, 20]) ** 2).sum(-1) < 15**2
    return inside * (300 + points @ [0.5, 1.0, 0.8] + 400 * eye)


def phantom(affine, shape, change=lambda x: x):
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    values = brightness(indices @ affine[:3, :3].T + affine[:3, 3])
    return nib.Nifti1Image(change(values).astype(np.float32), affine)


def upright(spacing=SPACING, shape=(50, 56, 38)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = CENTRE - spacing * (np.array(shape) - 1) / 2
    return affine, shape


def load(tmp_path, image, name="a.nii"):
    nib.save(image, tmp_path / name)
    return read_nifti(tmp_path / name)


def grid_points(grid):
    """World mm `[D,H,W,3]` of a grid's voxels."""
    axes = [o + s * np.arange(grid.size) for o, s in zip(grid.origin_mm, grid.spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).transpose(2, 1, 0, 3)


def test_voxels_land_where_the_world_says(tmp_path):
    volume, measures = resample(load(tmp_path, phantom(*upright())), GRID, RECIPE)
    expected = np.clip(brightness(grid_points(GRID)) / measures["intensity_of_one"], 0, 1)
    assert volume.shape == (32, 32, 32) and volume.dtype == np.float32
    alike = np.corrcoef(volume.ravel(), expected.ravel())[0, 1]
    assert alike > 0.98  # the rest is partial volume at the phantom's border
    assert all(
        alike > np.corrcoef(np.roll(volume, 1, axis).ravel(), expected.ravel())[0, 1] for axis in range(3)
    )
    eye = grid_points(GRID)[volume > 0.9].mean(axis=0)
    np.testing.assert_allclose(eye, [-30, 30, 20], atol=4)


def test_linear_brightness_is_reproduced_exactly_inside(tmp_path):
    """Trilinear interpolation of an affine function has no error, so a half-voxel shift would be seen."""
    sharp = paper_grid(64)
    source = load(tmp_path, phantom(*upright()))
    volume, measures = resample(source, sharp, StrippedRecipe(presmoothing=0))
    points = grid_points(sharp)
    deep = (((points - CENTRE) / (RADII - 12)) ** 2).sum(-1) < 1
    deep &= ((points - [-30, 30, 20]) ** 2).sum(-1) > 25**2
    wanted = (300 + points @ [0.5, 1.0, 0.8]) / measures["intensity_of_one"]
    np.testing.assert_allclose(volume[deep], wanted[deep], atol=1e-4)


def test_every_orientation_gives_the_same_voxels(tmp_path):
    affine, shape = upright()
    image = phantom(affine, shape)
    expected, _ = resample(load(tmp_path, image), GRID, RECIPE)
    for order, flips in itertools.product(
        itertools.permutations(range(3)), [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)]
    ):
        orientation = np.column_stack([order, flips])
        turned = apply_orientation(image.get_fdata(dtype=np.float32), orientation)
        source = load(tmp_path, nib.Nifti1Image(turned, affine @ inv_ornt_aff(orientation, shape)))
        np.testing.assert_allclose(resample(source, GRID, RECIPE)[0], expected, atol=1e-5)


@pytest.mark.parametrize("angles", [(0.3, 0, 0), (0.1, -0.2, 0.4)])
def test_oblique_scans_are_mapped_through_the_world(tmp_path, angles):
    fine = np.array([2.5, 2.5, 2.5])
    straight, _ = resample(load(tmp_path, phantom(*upright(fine, (60, 72, 56)))), GRID, RECIPE)
    around = nib.affines.from_matvec(np.eye(3), CENTRE)
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(*angles))
    affine, shape = upright(fine, (80, 88, 80))
    source = load(tmp_path, phantom(around @ turn @ np.linalg.inv(around) @ affine, shape))
    volume, measures = resample(source, GRID, RECIPE)
    assert measures["oblique"]
    assert np.corrcoef(volume.ravel(), straight.ravel())[0, 1] > 0.995
    assert np.abs(volume - straight).mean() < 0.01


def test_a_mirrored_head_stays_mirrored(tmp_path):
    affine, shape = upright()
    straight, _ = resample(load(tmp_path, phantom(affine, shape)), GRID, RECIPE)
    mirrored = nib.Nifti1Image(phantom(affine, shape).get_fdata(dtype=np.float32)[::-1], affine)
    volume, _ = resample(load(tmp_path, mirrored), GRID, RECIPE)
    np.testing.assert_allclose(volume, straight[:, :, ::-1], atol=1e-5)
    assert np.abs(volume - straight).max() > 0.3


def test_the_field_of_view_is_never_centred_on_the_subject(tmp_path):
    affine, shape = upright()
    image = phantom(affine, shape)
    moved = affine.copy()
    moved[:3, 3] += [0, 2 * GRID.spacing_mm[1], 0]
    still, _ = resample(load(tmp_path, image), GRID, RECIPE)
    shifted, _ = resample(
        load(tmp_path, nib.Nifti1Image(image.get_fdata(dtype=np.float32), moved)), GRID, RECIPE
    )
    np.testing.assert_allclose(shifted[:, 2:], still[:, :-2], atol=1e-5)


def test_presmoothing_suppresses_aliasing(tmp_path):
    affine, shape = upright(np.array([1.5, 1.5, 1.5]), (100, 120, 90))

    def striped(values):
        return values * (1 + 0.3 * (-1.0) ** np.arange(shape[2]))

    source = load(tmp_path, phantom(affine, shape, striped))
    clean = load(tmp_path, phantom(affine, shape))
    errors = []
    for presmoothing in (0.0, 0.6):
        recipe = StrippedRecipe(presmoothing=presmoothing)
        a, ma = resample(source, GRID, recipe)
        b, mb = resample(clean, GRID, recipe)
        errors.append(np.abs(a * ma["intensity_of_one"] - b * mb["intensity_of_one"]).mean())
    assert errors[1] < 0.2 * errors[0]


def test_percentile_clipping_and_negatives_are_reported(tmp_path):
    affine, shape = upright()

    def spoil(values):
        values[values > 600] *= 5
        values[:5] = -3
        return values

    volume, measures = resample(
        load(tmp_path, phantom(affine, shape, spoil)), GRID, StrippedRecipe(percentile=95)
    )
    data = phantom(affine, shape, spoil).get_fdata()
    assert measures["intensity_of_one"] == pytest.approx(np.percentile(data[data > 5], 95), rel=1e-5)
    assert volume.min() == 0 and volume.max() == 1
    assert measures["negative_fraction"] == pytest.approx((data < 0).mean())
    assert measures["clipped_fraction"] == pytest.approx((volume == 1).sum() / (volume > 0).sum(), rel=0.01)
    assert measures["clipped_fraction"] > 0
    assert any("negative" in problem for problem in measures["problems"])


def test_what_lies_outside_the_field_of_view_is_measured(tmp_path):
    affine, shape = upright()
    low = affine.copy()
    low[2, 3] -= 20
    image = nib.Nifti1Image(phantom(affine, shape).get_fdata(dtype=np.float32), low)
    _, measures = resample(load(tmp_path, image), GRID, RECIPE)
    # A cap of height h of a unit ball holds h^2 (3 - h) / 4 of it; the lower edge is 44 mm below the centre.
    h = 1 - (64 - 20) / 60
    assert measures["outside_fov_fraction"] == pytest.approx(h * h * (3 - h) / 4, abs=0.01)
    low[2, 3] -= 40
    with pytest.raises(MribenchError, match="Register the scan to MNI152"):
        resample(load(tmp_path, nib.Nifti1Image(image.get_fdata(dtype=np.float32), low)), GRID, RECIPE)


def test_other_than_stripped_brains_are_refused(tmp_path):
    affine, shape = upright()
    cases = {
        "mask or label map": lambda x: (x > 0) * 1.0,
        "values above 0": lambda x: -x,
        "Strip the skull first": lambda x: x + 50,
        "800 to 2500 cm3": lambda x: x * (x > 500),
    }
    for reason, change in cases.items():
        with pytest.raises(MribenchError, match=reason):
            resample(load(tmp_path, phantom(affine, shape, change)), GRID, RECIPE)


def test_ringing_around_the_brain_is_no_brain(tmp_path):
    affine, shape = upright()
    _, clean = resample(load(tmp_path, phantom(affine, shape)), GRID, RECIPE)
    _, ringing = resample(load(tmp_path, phantom(affine, shape, lambda x: x + 1e-3 * (x == 0))), GRID, RECIPE)
    assert ringing["brain_cm3"] == clean["brain_cm3"]
    assert ringing["intensity_of_one"] == clean["intensity_of_one"]


def test_every_setting_is_in_the_digest():
    changed = [
        StrippedRecipe(presmoothing=0.5),
        StrippedRecipe(percentile=99),
        StrippedRecipe(foreground=0.02),
        StrippedRecipe(brain_cm3=(1, 9)),
        StrippedRecipe(max_outside_fov=0.2),
    ]
    assert len({recipe.digest for recipe in [StrippedRecipe(), *changed]}) == 6


@pytest.fixture
def ten(tmp_path):
    """Ten different people in a flat folder."""
    affine, shape = upright()
    folder = tmp_path / "ten"
    folder.mkdir()
    for i in range(10):
        nib.save(
            phantom(affine, shape, lambda x, i=i: x * (1 + 0.01 * i * (x > 320))), folder / f"p{i}.nii.gz"
        )
    return folder


PLAN = CohortPlan(CohortSpec(source="prepared", size=32, train=2, reference=2, holdout=0), 0, "")


def collect(folder, out, progress=lambda *_: None, **options):
    """The cohort of a folder, and the names of the volumes that were made now."""
    made = []

    def process(scan, *arguments):
        made.append(scan.id)
        return process_stripped(scan, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "process_stripped", process)
        cohort = own.own_cohort(out, PLAN, own.Request(folder, **options), progress)
    return cohort, made


def test_a_bad_file_leaves_the_others_usable(ten, tmp_path):
    (ten / "p3.nii.gz").write_bytes((ten / "p3.nii.gz").read_bytes()[:-9])
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), ten / "p7.nii.gz")
    steps = []
    cohort, _ = collect(ten, tmp_path / "out", progress=lambda *step: steps.append(step))
    names = [volume.name for volume in cohort.record.volumes]
    assert names == ["p0", "p1", "p2", "p4", "p5", "p6", "p8", "p9"]
    refused = cohort.record.problems
    assert [scan.name for scan in refused] == ["p3.nii.gz", "p7.nii.gz"]
    assert "gzip" in refused[0].reason and "must vary" in refused[1].reason
    assert all(str(ten.parent) not in scan.reason for scan in refused)
    assert steps == [("volumes", done, 10) for done in range(11)]


def test_records_say_where_voxels_came_from(ten, tmp_path):
    cohort, _ = collect(ten, tmp_path / "out")
    volume = cohort.record.volumes[4]
    record = volume.record
    assert (record.subject, record.name, record.session) == ("p4", "p4.nii.gz", "")
    assert record.digest == volume.digest == digest_volume(read_voxels(cohort.folder, "p4"), GRID.affine)
    assert record.spacing_mm == pytest.approx(tuple(SPACING)) and len(record.sha256) == 64
    assert str(ten.parent) not in record.model_dump_json()


def test_one_person_under_two_names_is_refused(ten, tmp_path):
    image = nib.load(ten / "p2.nii.gz")
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    flipped = nib.Nifti1Image(image.get_fdata(dtype=np.float32)[::-1], image.affine @ flip)
    nib.save(flipped, ten / "p5.nii.gz")
    cohort, _ = collect(ten, tmp_path / "out")
    (refused,) = cohort.record.problems
    assert len(cohort.record.volumes) == 9 and refused.name == "p5.nii.gz" and "p2.nii.gz" in refused.reason


def test_a_second_call_makes_only_what_is_missing_or_changed(ten, tmp_path):
    first, made = collect(ten, tmp_path / "out")
    assert len(made) == 10
    before = first.record.volumes[4].digest
    (ten / "p1.nii.gz").write_bytes((ten / "p9.nii.gz").read_bytes())
    (ten / "p9.nii.gz").unlink()
    volume_path(first.folder, "p4").unlink()
    again, made = collect(ten, tmp_path / "out")
    assert sorted(made) == ["p1", "p4"] and not again.record.problems
    assert again.record.volumes[4].digest == before and not again.altered()
    assert not volume_path(first.folder, "p9").exists()


def test_another_label_makes_a_volume_again(ten, tmp_path):
    collect(ten, tmp_path / "out")
    rows = [f"{ten / f'p{i}.nii.gz'},p{i},{'other' if i < 3 else ''}" for i in range(10)]
    (tmp_path / "list.csv").write_text("path,subject,source\n" + "\n".join(rows))
    cohort, made = collect(None, tmp_path / "out", manifest=tmp_path / "list.csv")
    assert sorted(made) == ["p0", "p1", "p2"]
    assert {v.record.source for v in cohort.record.volumes if v.name in made} == {"other"}


def real_brains():
    nilearn_data = pytest.importorskip("nilearn").datasets.__path__[0]
    template = next(Path(nilearn_data).glob("data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"), None)
    colin = next(Path("/usr/share").glob("mricron*/**/ch2bet.nii.gz"), None)
    return {"MNI152 of nilearn": template, "Colin27 of Debian's mricron-data": colin}


@pytest.mark.parametrize(
    "name, cm3, alike, outside",
    [("MNI152 of nilearn", 1887, 0.99, 0.036), ("Colin27 of Debian's mricron-data", 1737, 0.85, 0.026)],
)
def test_real_brains(tmp_path, name, cm3, alike, outside):
    path = real_brains()[name]
    if path is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "brain.nii.gz").symlink_to(path)
    product = process_stripped(discover(tmp_path)[0], paper_grid(64), RECIPE)
    record, volume = product.record, dequantise(product.voxels)
    assert record.brain_cm3 == pytest.approx(cm3, abs=1) and not record.problems
    assert record.template_correlation > alike
    assert record.outside_fov_fraction == pytest.approx(outside, abs=0.001)
    assert record.clipped_fraction < 0.005
    top, left, right = volume[-1], volume[:, :, :5], volume[:, :, -5:]
    assert (top > 0.1).mean() < 0.05  # the crown is in, the sides are free
    assert max(left.max(), right.max()) < 0.05 and (volume[0] > 0.1).mean() > 0.05


def test_a_brain_that_was_not_registered_is_pointed_out(tmp_path):
    path = real_brains()["MNI152 of nilearn"]
    image = nib.load(path)
    upside_down = np.diag([1.0, 1.0, -1.0, 1.0])
    upside_down[2, 3] = 17
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), upside_down @ image.affine), tmp_path / "a.nii.gz")
    record = process_stripped(discover(tmp_path)[0], GRID, RECIPE).record
    assert any("MNI152" in problem for problem in record.problems)


def test_any_grid_serves(tmp_path):
    grid = Grid(size=20, spacing_mm=(9.0, 9.0, 9.0), origin_mm=(-85.5, -103.5, -67.5))
    volume, measures = resample(load(tmp_path, phantom(*upright())), grid, RECIPE)
    assert volume.shape == grid.shape and measures["outside_fov_fraction"] == 0
