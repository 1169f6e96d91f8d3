"""open_folder: one set out of a folder, every problem named, nothing read twice without need."""

import nibabel as nib
import numpy as np
import pytest

import mribench.data.folder as volumes
from mribench.data.folder import open_folder
from mribench.data.grid import Grid, dequantise, paper_grid, quantise
from mribench.data.nifti import read_nifti, write_nifti
from mribench.errors import MribenchError

AFFINE = np.diag([2.0, 1.5, 1.0, 1.0])


@pytest.fixture
def phantoms():
    return np.random.default_rng(0).random((3, 20, 16, 12), dtype=np.float32)


@pytest.fixture
def folder(tmp_path, phantoms):
    for i, phantom in enumerate(phantoms):
        write_nifti(tmp_path / "real" / f"s{i}.nii.gz", phantom, AFFINE)
    return tmp_path / "real"


@pytest.fixture
def reads(monkeypatch):
    names = []

    def counted(path):
        names.append(path.name)
        return read_nifti(path)

    monkeypatch.setattr(volumes, "read_nifti", counted)
    return names


def test_a_folder_becomes_a_set(folder, phantoms):
    (folder / ".hidden.nii.gz").write_bytes(b"not a volume")
    (folder / "notes.txt").touch()
    seen = []
    real = open_folder(folder, name="real", progress=lambda *step: seen.append(step))
    assert (real.name, real.names, real.shape) == ("real", ("s0", "s1", "s2"), (20, 16, 12))
    np.testing.assert_array_equal(real.stack(), dequantise(quantise(phantoms)))
    assert seen == [("s0.nii.gz", 1, 3), ("s1.nii.gz", 2, 3), ("s2.nii.gz", 3, 3)]
    assert len(set(real.digests)) == 3


def test_digests_know_voxels_not_files(folder, tmp_path, phantoms):
    mirror = np.array([[-1, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    flipped = nib.Nifti1Image(dequantise(quantise(phantoms[0])).T[::-1], AFFINE @ mirror)
    (tmp_path / "copy").mkdir()
    nib.save(flipped, tmp_path / "copy" / "other.nii")
    copy = open_folder(tmp_path / "copy", name="copy")
    assert copy.digests[0] == open_folder(folder, name="real").digests[0]


def test_all_problems_are_listed(folder, phantoms):
    for i in range(12):
        (folder / f"bad{i:02}.nii.gz").write_bytes(b"garbage")
    write_nifti(folder / "far.nii.gz", phantoms[0], AFFINE)
    nib.save(nib.Nifti1Image(phantoms[0].T * 300, AFFINE), folder / "far.nii.gz")
    with pytest.raises(MribenchError) as caught:
        open_folder(folder, name="real")
    message = str(caught.value)
    assert "13 of 16" in message and "bad09" in message and "bad10" not in message and "3 more" in message


def test_rescale_is_used_on_every_reading(tmp_path, phantoms):
    counts = np.round(phantoms[0] * 255).astype(np.uint8)
    nib.save(nib.Nifti1Image(counts.T, AFFINE), tmp_path / "a.nii")
    real = open_folder(tmp_path, name="real", rescale=(0, 255))
    np.testing.assert_allclose(real[0], counts / 255, atol=1e-5)


def test_grids_must_agree(folder, phantoms):
    write_nifti(folder / "t.nii.gz", phantoms[0], AFFINE + 4e-4 * np.eye(4, k=3))
    open_folder(folder, name="real")
    write_nifti(folder / "u.nii.gz", phantoms[0], np.diag([2.0, 1.5, 1.1, 1.0]))
    with pytest.raises(MribenchError, match=r"'u.nii.gz' and 's0.nii.gz' differ by up to 0\.1\."):
        open_folder(folder, name="real")
    write_nifti(folder / "u.nii.gz", phantoms[0, 1:], AFFINE)
    with pytest.raises(MribenchError, match=r"'u.nii.gz' is \(19, 16, 12\) and 's0.nii.gz' is \(20"):
        open_folder(folder, name="real")


def test_the_expected_grid_is_checked(tmp_path, folder):
    grid = paper_grid(16)
    write_nifti(tmp_path / "on" / "a.nii.gz", np.random.default_rng(0).random(grid.shape), grid.affine)
    assert len(open_folder(tmp_path / "on", name="x", expect_grid=grid)) == 1
    moved = Grid(size=16, spacing_mm=grid.spacing_mm, origin_mm=(0, 0, 0))
    with pytest.raises(MribenchError, match="protocol's grid differ"):
        open_folder(tmp_path / "on", name="x", expect_grid=moved)
    with pytest.raises(MribenchError, match=r"protocol's grid is \(16, 16, 16\)"):
        open_folder(folder, name="x", expect_grid=grid)


def test_empty_missing_and_ambiguous_folders(tmp_path, folder, phantoms):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MribenchError, match="none directly in it"):
        open_folder(tmp_path / "empty", name="x")
    with pytest.raises(MribenchError, match="must be a folder"):
        open_folder(tmp_path / "nowhere", name="x")
    write_nifti(folder / "s1.nii", phantoms[0], AFFINE)
    with pytest.raises(MribenchError, match=r"'s1.nii' and 's1.nii.gz' share a name"):
        open_folder(folder, name="x")


def test_hostile_names(folder, phantoms):
    odd = ["-rf.nii.gz", "a b;$(x)'\"<b>.nii.gz", "..nii..nii.gz", "Żółw.nii.gz", "%s{0}.nii.gz"]
    for name in odd:
        write_nifti(folder / f"z{name}", phantoms[0], AFFINE)
    real = open_folder(folder, name="real")
    assert set(real.names) >= {f"z{name.removesuffix('.nii.gz')}" for name in odd}
    for name in ("line\nbreak.nii.gz", "esc\x1b[31m.nii.gz"):
        write_nifti(folder / name, phantoms[0], AFFINE)
        with pytest.raises(MribenchError, match="printable") as caught:
            open_folder(folder, name="real")
        assert str(caught.value).isprintable()
        (folder / name).unlink()


def test_checks_are_remembered_until_a_file_changes(folder, tmp_path, phantoms, reads):
    cache = tmp_path / "checks.json"
    first = open_folder(folder, name="real", digests_cache=cache)
    assert len(reads) == 3
    again = open_folder(folder, name="real", digests_cache=cache)
    assert len(reads) == 3 and again.digests == first.digests and again.shape == first.shape
    write_nifti(folder / "s1.nii.gz", phantoms[0], AFFINE)
    changed = open_folder(folder, name="real", digests_cache=cache)
    assert reads[3:] == ["s1.nii.gz"] and changed.digests[1] == changed.digests[0] != first.digests[1]
    assert str(tmp_path) not in cache.read_text()
    cache.write_text("{")
    assert open_folder(folder, name="real", digests_cache=cache).digests == changed.digests
    assert len(reads) == 7


def test_a_file_that_changes_after_opening_is_noticed(folder, phantoms):
    real = open_folder(folder, name="real")
    write_nifti(folder / "s1.nii.gz", phantoms[2], AFFINE)
    np.testing.assert_array_equal(real[0], dequantise(quantise(phantoms[0])))
    with pytest.raises(MribenchError, match=r"s1.nii.gz must not change"):
        real[1]


def test_oblique_volumes_are_reported(tmp_path, phantoms, caplog):
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(x=0.1))
    write_nifti(tmp_path / "a.nii.gz", phantoms[0], turn @ AFFINE)
    open_folder(tmp_path, name="x")
    assert "oblique" in caplog.text
