"""The stages of one raw scan, with the true libraries on coarse volumes."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mribench.data.grid import dequantise, paper_grid
from mribench.data.nifti import NiftiVolume
from mribench.data.prepare import stages as raw
from mribench.data.prepare.layouts import Scan
from mribench.data.prepare.quality import border_contact, brain_dice, failures, template
from mribench.data.prepare.recipe import (
    BACKENDS,
    BiasCorrection,
    Denoising,
    Masking,
    Quality,
    RawRecipe,
    Registration,
)
from mribench.data.prepare.registration import register
from mribench.data.prepare.stages import (
    Brain,
    brain_mask,
    cropped,
    denoised,
    measured_noise,
    process_raw,
    unbiased,
)
from mribench.errors import MribenchError

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in BACKENDS), reason="needs pip install 'mribench[prepare]'"
)
GRID = paper_grid(32)
COARSE_BIAS = BiasCorrection(shrink_mm=12, iterations=(20, 20))
COARSE = Registration(shrink=(8, 8), smoothing_mm=(8.0, 4.0), sampled=(0.3, 0.3), iterations=100)
DONE = RawRecipe(masking=Masking(by="values above 0"), bias=COARSE_BIAS, registration=None)
COLIN = Path("/usr/share/mricron/templates/ch2.nii.gz")


@pytest.fixture(scope="module")
def brain():
    """The MNI152 brain at 3 mm, in scanner units."""
    mni = template()
    affine = mni.affine @ np.diag([3.0, 3.0, 3.0, 1.0])
    data = np.ascontiguousarray(gaussian_filter(mni.data, 1)[::3, ::3, ::3] * 800)
    return NiftiVolume(np.where(data > 80, data, 0).astype(np.float32), affine, (3.0, 3.0, 3.0), False)


def with_mask(volume):
    return Brain(volume, volume.data > 0)


def noisy(volume, sd, seed=0):
    real, imaginary = np.random.default_rng(seed).normal(0, sd, (2, *volume.data.shape))
    return replace(volume, data=np.hypot(volume.data + real, imaginary).astype(np.float32))


def save(path, volume, affine=None, **header):
    image = nib.Nifti1Image(volume.data.T, volume.affine if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return Scan(path, path.name, path.name.split(".")[0])


@pytest.mark.parametrize("sd", [40.0, 80.0])
def test_noise_is_measured_and_mostly_removed(brain, sd):
    spoilt = Brain(noisy(brain, sd), brain.data > 0)
    found = measured_noise(spoilt)
    assert found == pytest.approx(sd, rel=0.25)  # what is too much is anatomy at 3 mm
    clean = denoised(spoilt, sd, Denoising())
    inside = spoilt.mask
    before = np.abs(spoilt.scan.data - brain.data)[inside].mean()
    assert np.abs(clean.scan.data - brain.data)[inside].mean() < 0.85 * before
    assert not clean.scan.data[~inside].any() and clean.scan.data.dtype == np.float32


def test_noise_of_a_flat_volume_is_its_standard_deviation():
    flat = NiftiVolume(np.full((40, 40, 40), 100, np.float32), np.eye(4), (1.0, 1.0, 1.0), False)
    spoilt = replace(
        flat, data=flat.data + np.random.default_rng(1).normal(0, 7, (40,) * 3).astype(np.float32)
    )
    assert measured_noise(Brain(spoilt, np.ones((40,) * 3, bool))) == pytest.approx(7, rel=0.03)
    assert measured_noise(Brain(flat, np.ones((40,) * 3, bool))) == 0


def test_without_noise_nothing_is_smoothed(brain):
    same = denoised(with_mask(brain), 0.0, Denoising())
    np.testing.assert_array_equal(same.scan.data, brain.data)


def test_a_planted_bias_field_is_removed(brain):
    field = gaussian_filter(np.random.default_rng(3).standard_normal(brain.data.shape), 12, mode="wrap")
    field = np.exp(0.2 * field / field.std()).astype(np.float32)
    spoilt = with_mask(replace(brain, data=brain.data * field))
    settings = BiasCorrection(shrink_mm=6)
    corrected, spread = unbiased(spoilt, settings)
    reference, _ = unbiased(with_mask(brain), settings)
    left = np.log(corrected.scan.data[spoilt.mask] / reference.scan.data[spoilt.mask])
    assert left.std() < 0.35 * np.log(field[spoilt.mask]).std()
    planted = np.percentile(field[spoilt.mask], 99) / np.percentile(field[spoilt.mask], 1)
    assert 0.6 * planted < spread < 1.6 * planted
    assert not corrected.scan.data[~spoilt.mask].any()


def test_a_mask_is_one_piece_without_holes(tmp_path, brain):
    data = np.zeros((20, 20, 20), np.float32)
    data[4:16, 4:16, 4:16] = 5
    data[9:11, 9:11, 9:11] = 0
    data[0, 0, 0] = 9
    head = NiftiVolume(data, np.eye(4), (1.0, 1.0, 1.0), False)
    mask = brain_mask(head, Masking(by="values above 0"))
    assert mask.sum() == 12**3
    given = Masking(by="given mask")
    save(tmp_path / "m.nii.gz", replace(head, data=(data > 0).astype(np.float32)))
    np.testing.assert_array_equal(brain_mask(head, given, tmp_path / "m.nii.gz"), mask)
    save(tmp_path / "moved.nii.gz", replace(head, data=(data > 0) * 1.0), affine=np.diag([1, 1, 1.1, 1]))
    with pytest.raises(MribenchError, match="must lie on its scan's voxels"):
        brain_mask(head, given, tmp_path / "moved.nii.gz")
    with pytest.raises(MribenchError, match="its mask is empty"):
        brain_mask(replace(head, data=-data), Masking(by="values above 0"))


def test_cropping_moves_nothing_in_the_world(brain):
    small = cropped(brain, brain.data > 0)
    assert small.scan.data.size < brain.data.size and small.mask.sum() == (brain.data > 0).sum()
    for volume in (brain, small.scan):
        d, h, w = np.unravel_index(np.argmax(volume.data), volume.data.shape)
        found = volume.affine @ [w, h, d, 1]
        if volume is brain:
            expected = found
    np.testing.assert_allclose(found, expected)


def test_registration_finds_a_pose_that_it_was_not_told(brain):
    pose = np.eye(4)
    pose[:3, :3] = nib.eulerangles.euler2mat(0.15, -0.1, 0.3) @ np.diag([0.92, 0.9, 0.95])
    pose[0, 1] += 0.05  # a sheared affine, which ITK itself cannot hold
    pose[:3, 3] = [15, -20, 10]
    found = register(replace(brain, affine=pose @ brain.affine), COARSE)
    points = np.argwhere(brain.data > 0)[::50, ::-1] @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    error = found @ pose - np.eye(4)
    assert np.linalg.norm(points @ error[:3, :3].T + error[:3, 3], axis=1).mean() < 1.5
    np.testing.assert_array_equal(found, register(replace(brain, affine=pose @ brain.affine), COARSE))


def test_left_right_flips_and_lps_give_the_same_voxels(tmp_path, brain):
    scan = save(tmp_path / "ras.nii.gz", brain)
    expected = process_raw(scan, None, GRID, DONE)
    for name, axes in {"las": (0,), "lps": (0, 1), "rai": (2,)}.items():
        turn = np.eye(4)
        for axis in axes:
            turn[axis, axis], turn[axis, 3] = -1, brain.data.T.shape[axis] - 1
        stored = np.flip(brain.data.T, axes)
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(stored, brain.affine @ turn), path)
        found = process_raw(Scan(path, path.name, name), None, GRID, DONE)
        assert found.record.digest == expected.record.digest, name
    assert dequantise(expected.voxels).max() == 1


def test_a_mirrored_head_stays_mirrored(tmp_path, brain):
    lopsided = replace(brain, data=brain.data.copy())
    lopsided.data[:, :, :20] = 0
    turn = np.diag([-1.0, 1, 1, 1])
    one = process_raw(save(tmp_path / "a.nii.gz", lopsided), None, GRID, DONE).voxels.astype(float)
    two = process_raw(save(tmp_path / "b.nii.gz", lopsided, affine=turn @ brain.affine), None, GRID, DONE)
    assert np.corrcoef(one[:, :, ::-1].ravel(), two.voxels.ravel())[0, 1] > 0.99
    assert np.corrcoef(one.ravel(), two.voxels.ravel())[0, 1] < 0.95


def test_unusable_scans_say_why(tmp_path, brain):
    four = np.stack([brain.data.T] * 2, -1)
    nib.save(nib.Nifti1Image(four, brain.affine), tmp_path / "four.nii.gz")
    save(tmp_path / "codes.nii.gz", brain)
    spoilt = nib.load(tmp_path / "codes.nii.gz")
    spoilt.header["sform_code"] = spoilt.header["qform_code"] = 0
    nib.save(nib.Nifti1Image(brain.data.T, None, spoilt.header), tmp_path / "codes.nii.gz")
    save(tmp_path / "spacing.nii.gz", brain, affine=brain.affine @ np.diag([2, 2, 2, 1]))
    save(tmp_path / "torn.nii.gz", brain)
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes(torn.read_bytes()[:-50])
    reasons = {
        "four": "one 3D volume",
        "codes": "orientation",
        "spacing": "Check its spacing",
        "torn": "gzip",
    }
    for name, reason in reasons.items():
        with pytest.raises(MribenchError, match=reason):
            process_raw(Scan(tmp_path / f"{name}.nii.gz", name, name), None, GRID, DONE)
    with pytest.raises(MribenchError, match="must be"):
        process_raw(Scan(tmp_path / "nowhere.nii.gz", "nowhere", "x"), None, GRID, DONE)


def test_want_of_memory_is_no_fault_of_the_scan(tmp_path, brain, monkeypatch):
    def short(*_arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(raw, "unbiased", short)
    with pytest.raises(MemoryError):
        process_raw(save(tmp_path / "a.nii.gz", brain), None, GRID, DONE)


def test_an_oblique_scan_is_recorded_and_lands_where_the_world_says(tmp_path, brain):
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(0.1, 0.05, -0.08)
    straight = process_raw(save(tmp_path / "a.nii.gz", brain), None, GRID, DONE)
    recipe = DONE.model_copy(update={"registration": COARSE})
    product = process_raw(save(tmp_path / "b.nii.gz", brain, affine=turn @ brain.affine), None, GRID, recipe)
    assert product.record.oblique and not straight.record.oblique
    assert np.corrcoef(product.voxels.ravel(), straight.voxels.ravel())[0, 1] > 0.98
    found = np.array(product.record.affine)[:3, :3]
    np.testing.assert_allclose(found @ turn[:3, :3], np.eye(3), atol=0.03)
    assert product.record.stages == ("mask: values above 0", "denoise", "N4", "affine")


def test_a_scan_that_is_done_is_not_done_again(tmp_path, brain):
    scan = replace(save(tmp_path / "a.nii.gz", brain), done=("stripped", "registered"))
    product = process_raw(scan, None, GRID, RawRecipe(bias=COARSE_BIAS))
    assert product.record.stages == ("mask: values above 0", "denoise", "N4")
    np.testing.assert_array_equal(product.record.affine, np.eye(4))


def test_dice_and_border_contact_are_what_they_say(brain):
    mni = template()
    assert brain_dice(mni.data > 0, mni.affine) > 0.99
    shifted = mni.affine.copy()
    shifted[0, 3] += 300
    assert brain_dice(mni.data > 0, shifted) == 0
    mask = np.zeros((10, 12, 14), bool)
    mask[3:, 2:5, 0:7] = True  # reaches the superior face and the left one
    area, face = border_contact(mask, np.diag([20.0, 5.0, 10.0, 1.0]))
    assert (face, area) == ("superior", pytest.approx(3 * 7 * 20 * 5 / 100))
    assert border_contact(mask[:, :, 7:], np.eye(4)) == (0.0, "")


def test_a_saturated_scan_is_refused_and_negative_voxels_are_told(tmp_path, brain):
    spoilt = replace(brain, data=np.minimum(brain.data, np.percentile(brain.data[brain.data > 0], 80)))
    spoilt.data[:2] = -5
    sound = process_raw(save(tmp_path / "a.nii.gz", brain), None, GRID, DONE).record
    record = process_raw(save(tmp_path / "b.nii.gz", spoilt), None, GRID, DONE).record
    assert sound.saturated_fraction < 1e-3 and record.saturated_fraction == pytest.approx(0.2, abs=0.01)
    assert not any("saturated" in reason for reason in failures(sound, Quality()))
    assert any("20.0% of its brain have" in reason for reason in failures(record, Quality()))
    share = 2 / len(brain.data)
    assert f"{share:.1%} of the voxels were negative and became 0" in record.problems
    assert not any("negative" in remark for remark in sound.problems)


def test_every_threshold_can_refuse(tmp_path, brain):
    record = process_raw(save(tmp_path / "a.nii.gz", brain), None, GRID, DONE).record
    lenient = Quality(max_border_cm2=1e3)
    assert failures(record, lenient) == []
    wrong = {
        "dice": 0.5,
        "template_correlation": 0.1,
        "brain_cm3": 2500.0,
        "determinant": -1.2,
        "border_cm2": 2e3,
        "saturated_fraction": 0.2,
    }
    for name, value in wrong.items():
        (reason,) = failures(record.model_copy(update={name: value}), lenient)
        assert "must" in reason or "may" in reason


@pytest.mark.slow
@pytest.mark.skipif(not COLIN.exists(), reason="Colin27 (Debian's mricron-data) is not installed")
def test_colin27_from_whole_head_to_volume():
    scan = Scan(COLIN, "ch2.nii.gz", "colin")
    product = process_raw(scan, None, paper_grid(64), RawRecipe())
    record = product.record
    assert failures(record, Quality()) == [] and record.problems == ()
    assert record.dice > 0.95 and record.template_correlation > 0.88
    assert 1800 < record.brain_cm3 < 2050 and 0.95 < record.determinant < 1.1
    assert process_raw(scan, None, paper_grid(64), RawRecipe()).record.digest == record.digest
