"""Shared fixtures: a protocol and a bench so small that the whole pipeline takes seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Two test processes share the cores, so each computes with one thread; before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

sys.path.insert(0, str(Path(__file__).parent))  # for modules that several tests share

PROTOCOL = """
name = "test"
version = 1
seed = 7
[cohort]
source = "simulated"
size = 16
train = 6
reference = 5
holdout = 5
[evaluation]
samples = 4
tsne_samples = 4
metrics = ["ms_ssim", "mmd", "mmd_voxel", "fid_a", "fid_c", "fid_s", "memorisation", "copy_rate"]
[training]
preset = "tiny"
[training.cdpm]
size = 16
budget = 12
base = 8
multipliers = [1, 2]
tau_max = 6
stage_slices = 3
calls = 2
mixing_sizes = [16]
"""


@pytest.fixture(scope="session")
def protocol_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("protocol") / "test.toml"
    path.write_text(PROTOCOL)
    return path


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Makes a package that looks installed: `install_plugin("pkg", generators={"name": "module:object"}, code=...)`."""
    from mribench import plugins

    forget = (plugins._plugins, plugins._warn_once)

    def install(package: str, code: str = "", *, version: str = "1.0", **groups: dict[str, str]) -> Path:
        site = tmp_path / f"site-{package}"
        info = site / f"{package}-{version}.dist-info"
        for other in site.glob("*.dist-info/*"):
            other.unlink()
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        sections = [
            f"[mribench.{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(sections))
        (site / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        sys.modules.pop(package, None)
        modules.append(package)
        for cached in forget:
            cached.cache_clear()
        return site

    modules: list[str] = []
    yield install
    monkeypatch.undo()
    for package in modules:
        sys.modules.pop(package, None)
    for cached in forget:
        cached.cache_clear()
