"""A stranger's package, installed by pip: its generator, metrics and extractor go through the whole pipeline."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "plugin_package"
ASKED = 'metrics = ["ms_ssim", "mmd", "fid_a", "brainkit_brightness", "brainkit_contrast"]'
MINE = """
[training.brainkit_voxels]
size = 16
budget = 16
"""


def run(*words: object, site: Path | None) -> subprocess.CompletedProcess[str]:
    """mribench in a process of its own, with the package where `site` is given."""
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([*([str(site)] if site else []), root])
    command = [sys.executable, "-m", "mribench", "-q", *map(str, words)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    source, target = tmp_path_factory.mktemp("source") / "brainkit", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, source)
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        target,
        source,
    ]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True)
    return target


@pytest.fixture(scope="module")
def bench(site, protocol_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin") / "bench"
    lines = [ASKED if line.startswith("metrics") else line for line in protocol_file.read_text().splitlines()]
    protocol = folder.parent / "asked.toml"
    text = "\n".join(lines).replace("tsne_samples", 'extractor = "brainkit_filters"\ntsne_samples', 1) + MINE
    protocol.write_text(text)
    for words in (
        ("train", "brainkit_voxels", "--protocol", protocol),
        ("generate", "--all"),
        ("report",),
    ):
        done = run(*words, "--bench", folder, site=site)
        assert done.returncode == 0, done.stderr
    return folder


def rows(bench):
    with open(bench / "report" / "table.csv", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_a_ranked_plug_in_metric_has_its_column_and_a_family(bench):
    table = rows(bench)
    assert {"brainkit_voxels", "noise"} <= set(table)
    assert {"Brightness", "Contrast"} <= set(next(iter(table.values())))
    assert float(table["noise"]["Brightness"]) > float(table["real_heldout"]["Brightness"])
    for name in ("table.md", "table.tex", "index.html"):
        text = (bench / "report" / name).read_text()
        assert "Brightness" in text and "Contrast" in text, name
    page = (bench / "report" / "index.html").read_text()
    assert "IndependentVoxels" in page and "plug-in of brainkit 1.2" in page


def test_without_the_package_the_bench_is_listed_verified_and_reported_by_what_it_needs(bench, tmp_path):
    there = tmp_path / "bench"
    shutil.copytree(bench, there)
    before = rows(there)
    for words in (("list", "runs"), ("verify",), ("report",)):
        done = run(*words, "--bench", there, site=None)
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr
    after = rows(there)
    assert {run: row["Brightness"] for run, row in after.items()} == {
        run: row["Brightness"] for run, row in before.items()
    }
    page = (there / "report" / "index.html").read_text()
    assert "needs package brainkit 1.2" in page
    done = run("train", "brainkit_voxels", "--bench", there, site=None)
    assert done.returncode == 2 and "no generator called 'brainkit_voxels'" in done.stderr


def test_the_package_keeps_the_contract(site):
    done = run("check", "brainkit_brightness", site=site)
    assert done.returncode == 0, done.stderr
