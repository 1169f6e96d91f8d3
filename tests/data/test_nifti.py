"""What read_nifti refuses, what it canonicalises, and that write_nifti loses nothing beyond 16 bits."""

import gzip
import itertools
import struct

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from mribench.data.grid import dequantise, quantise
from mribench.data.nifti import MAX_INFLATION, check_range, read_nifti, write_nifti
from mribench.errors import MribenchError, UsageError

SHAPE = (16, 20, 12)  # (x, y, z): three different sizes
AFFINE = np.array([[2.0, 0, 0, -7], [0, 1.5, 0, -11], [0, 0, 1.0, 5], [0, 0, 0, 1]])
ORIENTATIONS = [
    np.column_stack([order, flips])
    for order in itertools.permutations(range(3))
    for flips in itertools.product([1, -1], repeat=3)
]


@pytest.fixture
def canonical():
    return np.random.default_rng(0).random(SHAPE, dtype=np.float32)


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def refused(path, *words):
    with pytest.raises(MribenchError) as caught:
        read_nifti(path)
    for word in (path.name, *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_all_48_orientations_come_back_identical(tmp_path, canonical, orientation):
    turned = apply_orientation(canonical, orientation)
    affine = AFFINE @ inv_ornt_aff(orientation, SHAPE)
    volume = read_nifti(save(tmp_path / "a.nii", turned, affine))
    np.testing.assert_array_equal(volume.data, canonical.T)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.spacing_mm == pytest.approx((2.0, 1.5, 1.0))
    assert volume.data.flags.c_contiguous and volume.data.dtype == np.float32 and not volume.oblique


def test_oblique_is_read_and_flagged(tmp_path, canonical):
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=0.2))
    volume = read_nifti(save(tmp_path / "a.nii.gz", canonical, turn @ AFFINE))
    assert volume.oblique
    np.testing.assert_allclose(volume.affine, turn @ AFFINE, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 4, 8, 100, 4000])
def test_truncated_gzip_is_refused(tmp_path, canonical, cut):
    path = save(tmp_path / "a.nii.gz", canonical)
    path.write_bytes(path.read_bytes()[:-cut])
    refused(path, "gzip")


def test_wrong_checksum_is_refused(tmp_path, canonical):
    path = save(tmp_path / "a.nii.gz", canonical)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the CRC-32; the voxels themselves still inflate
    path.write_bytes(content)
    refused(path, "CRC")


def test_a_plain_file_named_gz_and_a_truncated_plain_file_are_refused(tmp_path, canonical):
    plain = save(tmp_path / "a.nii", canonical)
    wrong = tmp_path / "b.nii.gz"
    wrong.write_bytes(plain.read_bytes())
    refused(wrong, "gzip")
    plain.write_bytes(plain.read_bytes()[:-2])
    refused(plain, "cut off")
    plain.write_bytes(b"")
    refused(plain, "header")


def header_only(path, shape, dtype=np.uint8, tail=b""):
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(AFFINE, 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with gzip.open(path, "wb") as file:
        file.write(header.binaryblock + bytes(4) + tail)
    return path


def test_bombs_are_refused_before_they_inflate(tmp_path):
    refused(header_only(tmp_path / "ratio.nii.gz", (500, 500, 500)), f"factor {MAX_INFLATION}")
    refused(header_only(tmp_path / "huge.nii.gz", (32767, 32767, 32767)), "2048 MiB")
    refused(
        header_only(tmp_path / "more.nii.gz", (2, 2, 2), tail=bytes(10**8)), "only what its header declares"
    )


def test_not_finite_and_constant_are_refused(tmp_path, canonical):
    for bad in (np.nan, np.inf):
        broken = canonical.copy()
        broken[3, 4, 5] = bad
        refused(save(tmp_path / "bad.nii.gz", broken), "1 voxels are NaN or infinite")
    refused(save(tmp_path / "over.nii.gz", canonical.astype(np.float64) * 1e300), "NaN or infinite")
    refused(save(tmp_path / "flat.nii.gz", np.full(SHAPE, 0.5, np.float32)), "every voxel is 0.5")


def test_only_one_real_3d_volume_is_read(tmp_path, canonical):
    single = read_nifti(save(tmp_path / "one.nii.gz", canonical[..., None]))
    np.testing.assert_array_equal(single.data, canonical.T)
    refused(save(tmp_path / "two.nii.gz", np.stack([canonical] * 2, -1)), "(16, 20, 12, 2)")
    refused(save(tmp_path / "vector.nii.gz", canonical[..., None, None]), "(16, 20, 12, 1, 1)")
    refused(save(tmp_path / "flat.nii.gz", canonical[..., 0]), "(16, 20)")
    refused(save(tmp_path / "complex.nii.gz", canonical.astype(np.complex64)), "type is 32")
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(tmp_path / "rgb.nii.gz", rgb), "type is 128")


@pytest.mark.parametrize("sform, qform", [(0, 0), (-1, 0), (0, 9)])
def test_orientation_must_be_stated(tmp_path, canonical, sform, qform):
    content = bytearray(save(tmp_path / "a.nii", canonical).read_bytes())
    struct.pack_into("<2h", content, 252, qform, sform)
    path = tmp_path / "b.nii"
    path.write_bytes(content)
    refused(path, f"sform_code is {sform} and qform_code is {qform}")


def test_qform_alone_is_enough(tmp_path, canonical):
    image = nib.Nifti1Image(canonical, None)
    image.set_qform(AFFINE, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii.gz").affine, AFFINE, atol=1e-5)


def test_broken_headers_are_refused(tmp_path, canonical):
    good = save(tmp_path / "a.nii", canonical).read_bytes()
    patches = {
        "magic": (344, b"ni1\0"),
        "vox_offset": (108, struct.pack("<f", np.nan)),
        "shape": (42, struct.pack("<h", -16)),
        "affine": (280, struct.pack("<f", np.inf)),
        "millimetres": (123, bytes([1])),
        "header": (0, b"\0\0\0\0"),
        "data type": (70, struct.pack("<h", 1)),
    }
    for word, (offset, patch) in patches.items():
        path = tmp_path / f"{word}.nii"
        path.write_bytes(good[:offset] + patch + good[offset + len(patch) :])
        refused(path, word)


@pytest.mark.filterwarnings("ignore:Extension size")
def test_random_damage_never_escapes_as_another_error(tmp_path, canonical):
    good = save(tmp_path / "a.nii", canonical).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "b.nii"
    for _ in range(300):
        content = bytearray(good)
        for position in rng.integers(0, 352, 4):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert np.isfinite(read_nifti(path).data).all()
        except MribenchError as error:
            assert "b.nii" in str(error)


def test_what_is_no_nifti_file_is_refused(tmp_path):
    refused(tmp_path / "missing.nii.gz", "existing")
    (tmp_path / "folder.nii").mkdir()
    refused(tmp_path / "folder.nii", "regular file")
    (tmp_path / "scan.mgz").touch()
    refused(tmp_path / "scan.mgz", ".nii.gz")


def test_scaled_integers_big_endian_and_nifti2(tmp_path):
    counts = np.random.default_rng(0).integers(-300, 300, SHAPE, dtype=np.int16)

    for kind, offset, code in [(nib.Nifti1Image, 112, "<2f"), (nib.Nifti2Image, 176, "<2d")]:
        content = bytearray(kind(counts, AFFINE).to_bytes())
        struct.pack_into(code, content, offset, 0.5, 10)
        path = tmp_path / "scaled.nii"
        path.write_bytes(content)
        np.testing.assert_array_equal(read_nifti(path).data, (counts * 0.5 + 10).T)
    big = nib.Nifti1Image(counts, AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "c.nii")
    assert (tmp_path / "c.nii").read_bytes()[:4] == struct.pack(">i", 348)
    np.testing.assert_array_equal(read_nifti(tmp_path / "c.nii").data, counts.T)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip_keeps_sixteen_bits_exactly(tmp_path, suffix):
    levels = np.linspace(0, 1, 65536, dtype=np.float64).astype(np.float32).reshape(32, 64, 32)
    path = tmp_path / f"a{suffix}"
    write_nifti(path, levels, AFFINE)
    volume = read_nifti(path)
    np.testing.assert_array_equal(volume.data, dequantise(quantise(levels)))
    np.testing.assert_array_equal(volume.affine, AFFINE)


def test_other_software_reads_what_is_written(tmp_path, canonical):
    write_nifti(tmp_path / "a.nii.gz", canonical.T, AFFINE)
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(image.get_fdata(), canonical, atol=0.51 / 65535)
    assert (image.dataobj.slope, image.dataobj.inter) == (np.float32(1 / 65535), 0)
    assert (image.header["sform_code"], image.header["qform_code"]) == (2, 2)
    np.testing.assert_allclose(image.get_qform(), AFFINE, atol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm" and nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_rewriting_gives_the_same_bytes(tmp_path, canonical):
    write_nifti(tmp_path / "a.nii.gz", canonical.T, AFFINE)
    write_nifti(tmp_path / "sub" / "b.nii.gz", canonical.T, AFFINE)
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "sub" / "b.nii.gz").read_bytes()
    assert content[3:8] == bytes(5)  # no name flag, mtime 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "sub"]


def test_range_is_refused_or_rescaled(canonical):
    counts = np.arange(256, dtype=np.float32).reshape(4, 8, 8)
    with pytest.raises(MribenchError, match=r"scan.nii must have values in \[0,1\].*0 to 255.*--rescale"):
        check_range(counts, "scan.nii")
    np.testing.assert_array_equal(check_range(counts, "s", (0, 255)), counts / np.float32(255))
    with pytest.raises(MribenchError, match="after --rescale 0 100"):
        check_range(counts, "s", (0, 100))
    for wrong in ((1.0, 1.0), (2.0, 1.0), (0.0, np.nan)):
        with pytest.raises(UsageError, match="LOW < HIGH"):
            check_range(counts, "s", wrong)
    rounding = canonical * np.float32(1 + 5e-7) - np.float32(5e-7)
    assert check_range(rounding, "s").min() >= 0
    with pytest.raises(MribenchError):
        check_range(np.full((2, 2, 2), np.nan), "s")


def test_writing_refuses_what_is_no_volume_in_range(tmp_path, canonical):
    with pytest.raises(MribenchError, match=r"a\.nii\.gz must have values"):
        write_nifti(tmp_path / "a.nii.gz", canonical * 2, AFFINE)
    with pytest.raises(MribenchError, match="shape"):
        write_nifti(tmp_path / "a.nii.gz", canonical[0], AFFINE)
    assert not list(tmp_path.iterdir())
