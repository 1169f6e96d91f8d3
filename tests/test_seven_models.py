"""All seven generators through the command line: train --all, generate --all, report."""

from __future__ import annotations

import pandas as pd
import pytest
from click.testing import CliRunner

from mribench.bench.controls import CONTROLS
from mribench.cli import main
from mribench.models import MODELS

PROTOCOL = """
name = "seven"
version = 1
seed = 7
[cohort]
source = "simulated"
size = 32
train = 6
reference = 5
holdout = 5
[evaluation]
samples = 4
tsne_samples = 4
metrics = ["ms_ssim", "mmd", "fid_a", "fid_c", "fid_s", "memorisation"]
[training]
preset = "tiny"
budget = 8
[training.vae_gan]
channels = [4, 8, 8]
[training.gan_gp]
channels = [4, 8, 8]
critic_steps = 2
[training.alpha_wgan]
channels = [4, 8, 8]
[training.cce_gan]
channels = [4, 8, 8]
latent = 16
[training.ha_gan]
width = 4
[training.dpm3d]
multipliers = [1, 2]
attention_sizes = [16]
ddim_steps = 2
[training.cdpm]
base = 8
multipliers = [1, 2]
attention_sizes = [16]
calls = 2
mixing_sizes = [32]
"""


def call(*args):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report's folder."""
    root = tmp_path_factory.mktemp("seven")
    (root / "seven.toml").write_text(PROTOCOL)
    call("train", "--all", "--bench", root / "bench", "--protocol", root / "seven.toml")
    call("generate", "--all", "--bench", root / "bench", "--batch", 2)
    call("report", "--bench", root / "bench")
    return root / "bench" / "report"


@pytest.fixture
def table(folder):
    return pd.read_csv(folder / "table.csv", dtype=str).set_index("run")


def test_every_model_and_control_has_its_row(table):
    assert set(table.index) == {*MODELS, *CONTROLS, "real baseline"}
    whole = table.loc[[name for name in MODELS if name != "dpm3d"]]
    for column in ("MS-SSIM (%)", "MMD (x10³)", "FID-A", "FID-C", "FID-S"):
        assert pd.to_numeric(whole[column]).notna().all(), column


def test_a_slab_is_compared_by_the_axial_view_alone(table, folder):
    row = table.loc["dpm3d"]
    assert float(row["FID-A"]) > 0 and row[["FID-C", "FID-S"]].isna().all()
    page = (folder / "index.html").read_text()
    assert "axial slices 12 to 19 of 32" in page and "FID-C needs whole coronal slices" in page


def test_a_second_pass_does_nothing(folder):
    for command in (["train", "--all"], ["generate", "--all"]):
        assert "done" not in call(*command, "--bench", folder.parent).stderr
