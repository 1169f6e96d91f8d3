"""A bench with every kind of file, what its results are, and how it is put back after a trial."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from fault_commands import call
from scipy.ndimage import gaussian_filter

from mribench.bench.folder import open_bench
from mribench.data.grid import paper_grid
from mribench.data.nifti import write_nifti
from mribench.data.simulate import simulate

PROTOCOL = """
name = "faults"
version = 1
seed = 7
[cohort]
source = "simulated"
size = 16
train = 4
reference = 4
holdout = 4
[evaluation]
samples = 4
tsne_samples = 4
metrics = ["ms_ssim", "mmd", "fid_a", "memorisation", "copy_rate"]
[training]
preset = "tiny"
[training.cdpm]
size = 16
budget = 8
base = 8
multipliers = [1, 2]
tau_max = 6
stage_slices = 3
calls = 2
mixing_sizes = [16]
"""
PREPARED = re.sub(
    r"train = 4\nreference = 4\nholdout = 4", "train = 2\nreference = 3\nholdout = 3", PROTOCOL
).replace('"simulated"', '"prepared"')
_IGNORED = {"seconds", "versions", "device", "made_from"}


def must(*words: object) -> None:
    """Run a command that has to succeed."""
    end = call(*words)
    assert end.code == 0, end.text


def build(folder: Path) -> Path:
    """A bench with a model, a control, a folder entrant, scores and a report; returns it."""
    bench, protocol = folder / "bench", folder / "faults.toml"
    folder.mkdir(parents=True, exist_ok=True)
    protocol.write_text(PROTOCOL)
    (folder / "own.toml").write_text(PREPARED)
    must("train", "cdpm", "--protocol", protocol, "--bench", bench)
    must("generate", "--all", "--bench", bench)
    for run in open_bench(bench).runs():
        if run.name not in ("cdpm", "noise"):
            shutil.rmtree(run.folder)
    affine = open_bench(bench).protocol.cohort.voxels.affine
    write_volumes(folder / "theirs", [blob(i) for i in range(4)], affine)
    must("evaluate", "--samples", folder / "theirs", "--name", "theirs", "--bench", bench)
    must("report", "--bench", bench)
    return bench


def build_prepared(folder: Path) -> Path:
    """A bench whose cohort was prepared from ten registered scans in `folder/scans`."""
    for i in range(10):
        path = folder / "scans" / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_T1w.nii.gz"
        write_nifti(path, simulate(5, i, 32)[0], paper_grid(32).affine)
    must("prepare", folder / "scans", "--protocol", folder / "own.toml", "--bench", folder / "prepared")
    return folder / "prepared"


def blob(seed: int, side: int = 16) -> np.ndarray:
    """A smooth ball `[D,H,W]` in [0,1] that differs between seeds."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    inside = sum((axis / rng.uniform(0.75, 0.9)) ** 2 for axis in grid) < 1
    texture = gaussian_filter(rng.normal(size=(side,) * 3), 1.5)
    return np.where(inside, np.clip(0.5 + texture, 0.05, 1), 0).astype(np.float32)


def write_volumes(folder: Path, volumes: list[np.ndarray], affine: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for number, volume in enumerate(volumes):
        nib.save(nib.Nifti1Image(volume.T, affine), folder / f"v{number}.nii.gz")
    return folder


def results(bench: Path) -> dict[str, Any]:
    """What must be the same after any fault: voxels, weights, samples, scores; not times and versions."""
    found: dict[str, Any] = {}
    for path in [*bench.glob("runs/*/samples/*"), *bench.glob("runs/*/weights.safetensors")]:
        found[path.relative_to(bench).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in bench.glob("cohort/volumes/*.npy"):
        found[path.relative_to(bench).as_posix()] = np.load(path).tobytes()
    for path in [*bench.glob("runs/*/*.json"), *bench.glob("cohort/volumes.json")]:
        found[path.relative_to(bench).as_posix()] = _plain(json.loads(path.read_text()))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key not in {*_IGNORED, "sha256"}}
    return [_plain(part) for part in value] if isinstance(value, list) else value


@dataclass
class Copy:
    """A copy of a bench that is put back to the original after each trial, file by file."""

    original: Path
    folder: Path
    _stats: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shutil.copytree(self.original, self.folder)
        self._stats = self._now()

    def _now(self) -> dict[str, tuple[int, int, int]]:
        files = (path for path in self.folder.rglob("*") if path.is_file() or path.is_symlink())
        return {
            path.relative_to(self.folder).as_posix(): (s.st_ino, s.st_size, s.st_mtime_ns)
            for path in files
            for s in [path.lstat()]
        }

    def restore(self) -> None:
        now = self._now()
        for name in now.keys() - self._stats.keys():
            (self.folder / name).unlink()
        for name, stat in self._stats.items():
            if now.get(name) != stat:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.original / name, self.folder / name)
        self._stats = self._now()
