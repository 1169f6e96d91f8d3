"""Scans that are not NIfTI: MGZ, Analyze pairs, and what is refused."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from mribench.data.formats import digest_scan, is_dicom, read_scan, scan_stem
from mribench.errors import MribenchError

VOXELS = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
LPS = np.array([[-2.0, 0, 0, 30], [0, -1.5, 0, 40], [0, 0, 1.0, -20], [0, 0, 0, 1]])


def test_mgz_and_nifti_of_one_scan_are_the_same_volume(tmp_path):
    nib.save(nib.MGHImage(VOXELS, LPS), tmp_path / "a.mgz")
    nib.save(nib.Nifti1Image(VOXELS, LPS), tmp_path / "a.nii.gz")
    mgz, nifti = read_scan(tmp_path / "a.mgz"), read_scan(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(mgz.data, nifti.data)
    np.testing.assert_allclose(mgz.affine, nifti.affine, atol=1e-4)
    assert mgz.data[3, 2, 1] == VOXELS[-2, -3, 3]  # LPS storage, canonical memory
    assert not mgz.remark


def test_an_mgz_is_verified_to_its_end(tmp_path):
    path = tmp_path / "a.mgz"
    nib.save(nib.MGHImage(VOXELS, LPS), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(MribenchError, match="undamaged gzip"):
        read_scan(path)
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:600]))
    with pytest.raises(MribenchError, match="cut off"):
        read_scan(path)
    content = bytearray(gzip.decompress(whole))
    content[28:30] = b"\0\0"  # goodRASFlag
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(MribenchError, match="goodRASFlag is 0"):
        read_scan(path)


def test_an_analyze_pair_is_read_as_radiological_and_says_so(tmp_path):
    image = nib.AnalyzeImage(VOXELS, None)
    image.header.set_zooms((2.0, 1.5, 1.0))
    nib.save(image, tmp_path / "a.hdr")
    for name in ("a.hdr", "a.img"):
        volume = read_scan(tmp_path / name)
        np.testing.assert_array_equal(volume.data, VOXELS[::-1].T)
        assert volume.spacing_mm == (2.0, 1.5, 1.0) and "radiological" in volume.remark
    assert digest_scan(tmp_path / "a.hdr") == digest_scan(tmp_path / "a.img")
    before = digest_scan(tmp_path / "a.hdr")
    with open(tmp_path / "a.img", "r+b") as file:
        file.seek(40)
        file.write(b"\1\2\3")
    assert digest_scan(tmp_path / "a.hdr") != before


def test_half_a_pair_is_refused(tmp_path):
    nib.save(nib.AnalyzeImage(VOXELS, None), tmp_path / "a.hdr")
    with open(tmp_path / "a.img", "r+b") as file:
        file.truncate(100)
    with pytest.raises(MribenchError, match="cut off"):
        read_scan(tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(MribenchError, match=r"must have its \.img"):
        read_scan(tmp_path / "a.hdr")


def test_a_nifti_pair_must_state_its_orientation(tmp_path):
    image = nib.Nifti1Pair(VOXELS, LPS)
    nib.save(image, tmp_path / "a.hdr")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.hdr").data, VOXELS[::-1, ::-1].T)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(nib.Nifti1Pair(VOXELS, None, image.header), tmp_path / "b.hdr")
    with pytest.raises(MribenchError, match="must state its orientation"):
        read_scan(tmp_path / "b.hdr")


def test_several_volumes_are_refused_in_every_format(tmp_path):
    four = np.stack([VOXELS, VOXELS], axis=-1)
    nib.save(nib.MGHImage(four, LPS), tmp_path / "a.mgz")
    nib.save(nib.AnalyzeImage(four, None), tmp_path / "a.hdr")
    nib.save(nib.Nifti1Image(four, LPS), tmp_path / "a.nii")
    for name in ("a.mgz", "a.hdr", "a.nii"):
        with pytest.raises(MribenchError, match="one 3D volume"):
            read_scan(tmp_path / name)


def test_dicom_is_refused_with_the_tool_to_use(tmp_path):
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "x.dcm").write_bytes(b"")
    (tmp_path / "x.IMA").write_bytes(b"")
    assert is_dicom(tmp_path / "IM0001") and is_dicom(tmp_path / "x.dcm") and not is_dicom(tmp_path)
    for path in (tmp_path / "IM0001", tmp_path / "x.dcm", tmp_path / "x.IMA", tmp_path):
        with pytest.raises(MribenchError, match="dcm2niix"):
            read_scan(path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(MribenchError, match="must end in"):
        read_scan(tmp_path / "a.png")


def test_stem_keeps_everything_but_the_extension():
    names = ("a.b.nii.gz", "A.NII", "x_T1w.nii", "x/a.mgz", "a.hdr", "a.txt")
    assert [scan_stem(name) for name in names] == ["a.b", "A", "x_T1w", "x/a", "a", "a.txt"]
