"""Stored volumes: which files, which axes, and every way in which one is not usable."""

from __future__ import annotations

import os
import zipfile

import nibabel as nib
import numpy as np
import pytest

from mribench.data.foreign.recipe import Recipe
from mribench.data.foreign.stored import read_slot, slots, stored_files
from mribench.errors import MribenchError

VOLUME = np.random.default_rng(0).random((3, 4, 5), dtype=np.float32)


def only(path, recipe):
    (slot,) = slots(path, recipe)
    return read_slot(slot, recipe)


def saved(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def test_numbers_in_names_are_counted(tmp_path):
    for name in ("sample_10.npy", "sample_2.npy", "sample_1.npy", ".hidden.npy", "notes.txt"):
        (tmp_path / name).touch()
    form, files = stored_files(tmp_path)
    assert form == "array"
    assert [file.name for file in files] == ["sample_1.npy", "sample_2.npy", "sample_10.npy"]


def test_an_empty_folder_names_the_folder_below_that_holds_samples(tmp_path):
    (tmp_path / "0").mkdir()
    with pytest.raises(MribenchError, match="there are none directly in it"):
        stored_files(tmp_path)
    (tmp_path / "0" / "s.nii.gz").touch()
    with pytest.raises(MribenchError, match=r"give .*0\."):
        stored_files(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.nii", "b.npy"], "holds both"),
        (["a.nii", "a.nii.gz"], "share a name"),
        (["a\n.npy"], "printable names"),
    ],
)
def test_a_folder_that_is_ambiguous_is_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(MribenchError, match=message):
        stored_files(tmp_path)


def test_a_file_of_nifti_keeps_its_order_affine_and_step(tmp_path):
    affine = np.array([[-2.0, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    stored = only(saved(tmp_path / "a.nii.gz", (VOLUME * 100).astype(np.int16), affine), Recipe())
    np.testing.assert_array_equal(stored.voxels, (VOLUME * 100).astype(np.int16))
    np.testing.assert_array_equal(stored.affine, affine)
    assert (stored.spacing_mm, stored.step, stored.sides) == ((2, 3, 4), 1.0, "")


def test_a_file_without_codes_has_no_affine(tmp_path):
    image = nib.Nifti1Image(VOLUME, None)
    image.header["pixdim"][1:4] = 2
    nib.save(image, tmp_path / "a.nii")
    stored = only(tmp_path / "a.nii", Recipe(axes="RAS"))
    assert stored.affine is None and stored.spacing_mm == (2, 2, 2)


def test_axes_of_length_1_are_dropped_and_channels_chosen(tmp_path):
    five = saved(tmp_path / "a.nii", np.stack([VOLUME, 2 * VOLUME], -1)[:, :, :, None])
    with pytest.raises(MribenchError, match=r"a.nii has 2 channels, .* none was chosen"):
        only(five, Recipe())
    with pytest.raises(MribenchError, match="number 2 was chosen"):
        only(five, Recipe(channel=2))
    np.testing.assert_array_equal(only(five, Recipe(channel=1)).voxels, 2 * VOLUME)
    np.testing.assert_array_equal(
        only(saved(tmp_path / "b.nii", VOLUME[..., None, None]), Recipe()).voxels, VOLUME
    )


def test_letters_name_every_axis(tmp_path):
    strange = saved(tmp_path / "a.nii", np.moveaxis(VOLUME, 0, -1)[:, :, None])
    recipe = Recipe(axes="AS_L")
    np.testing.assert_array_equal(only(strange, recipe).voxels, np.moveaxis(VOLUME, 0, -1))
    assert only(strange, recipe).sides == "ASL"
    with pytest.raises(MribenchError, match="must have length 1"):
        only(saved(tmp_path / "b.nii", np.ones((2, 3, 4, 5), np.float32)), recipe)
    with pytest.raises(MribenchError, match="must have the 4 axes AS_L, but it has 3"):
        only(saved(tmp_path / "c.nii", VOLUME), recipe)


def test_a_file_of_nifti_may_hold_many_volumes(tmp_path):
    many = saved(tmp_path / "a.nii", np.stack([VOLUME, 2 * VOLUME], -1))
    second = slots(many, Recipe(axes="RASN"))[1]
    assert second.name == "a.nii[1]"
    np.testing.assert_array_equal(read_slot(second, Recipe(axes="RASN")).voxels, 2 * VOLUME)


@pytest.mark.parametrize(
    ("array", "settings", "names"),
    [
        (VOLUME, {}, ["a.npy"]),
        (np.stack([VOLUME, VOLUME]), {}, ["a.npy[0]", "a.npy[1]"]),
        (np.stack([VOLUME, VOLUME])[:, None], {}, ["a.npy[0]", "a.npy[1]"]),
        (np.stack([0 * VOLUME, VOLUME]), {"channel": 1}, ["a.npy"]),
        (np.stack([0 * VOLUME, VOLUME])[None], {"channel": 1}, ["a.npy[0]"]),
        (np.stack([VOLUME, VOLUME], -1), {"axes": "RASN"}, ["a.npy[0]", "a.npy[1]"]),
    ],
)
def test_arrays_hold_one_volume_or_many(tmp_path, array, settings, names):
    np.save(tmp_path / "a.npy", array)
    recipe = Recipe(**settings)
    found = slots(tmp_path / "a.npy", recipe)
    assert [slot.name for slot in found] == names
    np.testing.assert_array_equal(read_slot(found[-1], recipe).voxels, VOLUME)


def test_the_arrays_of_an_npz_are_taken_by_name(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", b=np.stack([VOLUME, 2 * VOLUME]), a=(VOLUME * 9).astype(np.uint8))
    found = slots(tmp_path / "a.npz", Recipe())
    assert [slot.name for slot in found] == ["a.npz:a", "a.npz:b[0]", "a.npz:b[1]"]
    assert read_slot(found[0], Recipe()).step == 1.0
    np.testing.assert_array_equal(read_slot(found[2], Recipe()).voxels, 2 * VOLUME)


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(100):
            file.write(bytes(2**20))


def encrypted(path):
    np.savez(path, a=VOLUME)
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(bytes(content))


SPOILED = {
    "a.npy": [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
        lambda path: path.write_text("<html>404</html>"),
        lambda path: np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True),
        lambda path: np.save(path, VOLUME.astype(complex)),
        lambda path: np.save(path, VOLUME > 0.5),
        lambda path: np.save(path, VOLUME[0]),
        lambda path: np.save(path, np.ones((1, 1, 1, 3, 4, 5))),
        lambda path: np.save(path, np.zeros((0, 3, 4, 5))),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to(path),
    ],
    "a.npz": [
        lambda path: path.write_bytes(b"PK\x03\x04 torn"),
        lambda path: np.savez(path),
        lambda path: np.savez(path, **{"\x1b[2J": VOLUME}),
        lambda path: path.mkdir(),
        bomb,
        encrypted,
    ],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name in SPOILED for number in range(len(SPOILED[name]))]
)
def test_a_bad_array_is_refused_by_name(tmp_path, name, number):
    path = tmp_path / name
    SPOILED[name][number](path)
    with pytest.raises(MribenchError, match=name):
        [read_slot(slot, Recipe()) for slot in slots(path, Recipe())]


def test_a_cut_array_is_refused_by_name(tmp_path):
    np.save(tmp_path / "a.npy", VOLUME)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-4])
    with pytest.raises(MribenchError, match=r"a\.npy"):
        slots(tmp_path / "a.npy", Recipe())
