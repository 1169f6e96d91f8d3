"""A small bench with every kind of entrant, made by commands alone: its numbers must survive a change of the code.

python tests/small_bench.py FOLDER              make it (about three minutes of one thread)
python tests/small_bench.py FOLDER --against B  compare every number of scores.json and table.csv, to 1e-12
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROTOCOL = """
name = "small-bench"
version = 1
seed = 11
[cohort]
source = "simulated"
size = 32
train = 12
reference = 9
holdout = 9
[evaluation]
samples = 8
tsne_samples = 8
metrics = ["ms_ssim", "mmd", "fid_a", "fid_c", "fid_s", "memorisation", "copy_rate", "kid_a", "kid_c", "kid_s",
    "precision", "recall", "density", "coverage", "mmd_voxel", "mmd_legacy",
    "fid_a_central", "fid_c_central", "fid_s_central", "slice_consistency"]
[training]
preset = "tiny"
"""
MODELS = (("gan_gp", 160), ("vae_gan", 120), ("ha_gan", 60), ("dpm3d", 24), ("cdpm", 64))
IGNORED = {
    "seconds",
    "made_from",
    "display",
}  # differ from run to run or with the version; how a table shows a metric
RENAMED = {"floor": "real_baseline", "real (floor)": "real baseline"}  # names of version 0.1.0


def make(folder: Path) -> None:
    """Train, sample and score in FOLDER/bench."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol, bench = folder / "small-bench.toml", folder / "bench"
    protocol.write_text(PROTOCOL)
    _run("init", "--protocol", protocol, "--bench", bench)
    for model, budget in MODELS:
        _run("train", model, "--set", f"budget={budget}", "--device", "cpu", "--bench", bench)
    _run("train", "gan_gp", "--set", "budget=160", "--seed", 3, "--device", "cpu", "--bench", bench)
    _run("generate", "--all", "--device", "cpu", "--bench", bench)
    samples = bench / "runs" / "blurred_real" / "samples"
    _run("evaluate", "--samples", samples, "--name", "foreign", "--device", "cpu", "--bench", bench)
    _run("report", "--device", "cpu", "--bench", bench)


def _run(*words: object) -> None:
    line = [sys.executable, "-c", "from mribench.cli import main; main()", "-q", *map(str, words)]
    subprocess.run(line, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def numbers(folder: Path) -> Iterator[tuple[str, float]]:
    """Every number of the runs' scores.json and of table.csv, by its place."""
    for path in sorted((folder / "bench" / "runs").glob("*/scores.json")):
        scores = json.loads(path.read_text())["scores"]
        yield from _leaves({score["metric"]: score for score in scores}, path.parent.name)
    with open(folder / "bench" / "report" / "table.csv", newline="") as file:
        for row in csv.DictReader(file):
            for key, cell in row.items():
                if "seconds" not in key and _is_number(cell):
                    yield f"table/{RENAMED.get(row['run'], row['run'])}/{key}", float(cell)


def _leaves(value: object, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in IGNORED:
                yield from _leaves(part, f"{where}/{RENAMED.get(key, key)}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{where}/{i}")
    elif isinstance(value, int | float):
        yield where, float(value)


def _is_number(cell: str | None) -> bool:
    try:
        float(cell or "")
    except ValueError:
        return False
    return True


def differences(before: Path, after: Path, tolerance: float = 1e-12) -> list[str]:
    """Lines for the numbers that differ, relative to the larger of the value and 1, or that one side lacks."""
    old, new = dict(numbers(before)), dict(numbers(after))
    lines = [f"{place} is only in one bench" for place in sorted(old.keys() ^ new.keys())]
    lines += [
        f"{place}: {old[place]!r} became {new[place]!r}"
        for place in sorted(old.keys() & new.keys())
        if abs(old[place] - new[place]) > tolerance * max(1.0, abs(old[place]))
    ]
    return lines


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if "--against" in sys.argv:
        before = Path(sys.argv[sys.argv.index("--against") + 1])
        found = differences(before, target)
        print("\n".join(found) or f"all {len(dict(numbers(target)))} numbers are equal")
        sys.exit(bool(found))
    make(target)
