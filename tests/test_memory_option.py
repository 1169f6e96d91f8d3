"""--memory: how a size is written, and what a budget that is too small says."""

import click
import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from mribench.cli import main
from mribench.commands.options import Bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 * 10**9), ("800m", 8 * 10**8), ("1.5GB", 15 * 10**8), ("64K", 64000), ("1T", 10**12)],
)
def test_sizes(text, size):
    assert Bytes().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["8", "G", "-1G", "8 gigabytes", "1e9", ""])
def test_what_is_no_size(text):
    with pytest.raises(click.BadParameter, match="is no size such as 800M or 8G"):
        Bytes().convert(text, None, None)


@pytest.fixture
def folders(tmp_path):
    """Two folders of four volumes each."""
    rng = np.random.default_rng(0)
    for name in ("real", "samples"):
        (tmp_path / name).mkdir()
        for index in range(4):
            voxels = rng.random((48, 40, 44)).astype(np.float32)
            image = nibabel.Nifti1Image(voxels, np.diag([1.4, 1.4, 1.4, 1]))
            nibabel.save(image, tmp_path / name / f"{index}.nii.gz")
    return tmp_path


def test_too_little_is_refused_with_the_least(folders):
    options = ["--real", folders / "real", "--samples", folders / "samples", "--out", folders / "scores"]
    call = ["-q", "evaluate", *map(str, options)]
    result = CliRunner().invoke(main, [*call, "--memory", "100K"])
    assert result.exit_code == 2, result.output
    assert "must hold one pair" in result.stderr
    least = result.stderr.split("at least --memory ")[1].split(".")[0]
    assert CliRunner().invoke(main, [*call, "--memory", least]).exit_code == 0
