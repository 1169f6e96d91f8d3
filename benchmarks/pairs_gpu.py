"""MS-SSIM of all pairs of two large sets on a GPU: what loading costs, what computing costs, and the roofline.

    python benchmarks/pairs_gpu.py                                                     (500 x 1262 volumes of 128^3)
    python benchmarks/pairs_gpu.py --device cpu --side 32 --rows 8 --columns 12 --subjects 4          (a try anywhere)

Volumes are simulated subjects with noise of their own, uint16 in one memory-mapped file (7.4 GB for the full size),
written to a temporary folder first. "loading" is reading, scaling and copying to the device, each volume as often as
the engine asks for it; the rest is "computing". Writes benchmarks/results/pairs_gpu.json, for a CPU nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mribench.bench.folder import versions
from mribench.data.simulate import simulate
from mribench.files import write_json
from mribench.metrics.arrays import pairs
from mribench.metrics.arrays.similarity import definition_for

LIMITS = {"bytes_per_second": 3e12, "flop_per_second": 60e12}  # an H100, by its data sheet


class Stored:
    """uint16 volumes in a file, as float32 in [0,1]."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.volumes = np.load(path, mmap_mode="r")[start:stop]

    def __len__(self) -> int:
        return len(self.volumes)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self.volumes[index].astype(np.float32) / 65535


def make(path: Path, count: int, side: int, subjects: int) -> None:
    subjects_made = [simulate(0, index, side)[0] for index in range(subjects)]
    file = np.lib.format.open_memmap(path, "w+", np.uint16, (count, side, side, side))
    for index in range(count):
        noise = np.random.default_rng(index).normal(0, 0.02, subjects_made[0].shape)
        subject = subjects_made[index % subjects]
        file[index] = np.clip(np.where(subject > 0, subject + noise, 0), 0, 1) * 65535
    file.flush()


def roofline(side: int, count: int) -> dict[str, Any]:
    """The least time for `count` pairs: products, three passes and ratio; statistics read once per pair."""
    definition, flop, moved = definition_for(side), 0, 0
    for scale in range(definition.scales):
        n, taps = side // 2**scale, definition.window
        m = n - taps + 1
        flop += n**3 + (2 * taps - 1) * (n * n * m + n * m * m + m**3) + 10 * m**3
        moved += 4 * (2 * n**3 + 4 * m**3)
    arithmetic, memory = count * flop / LIMITS["flop_per_second"], count * moved / LIMITS["bytes_per_second"]
    return {**LIMITS, "arithmetic_seconds": arithmetic, "memory_seconds": memory}


def measure(arguments: argparse.Namespace, path: Path) -> dict[str, Any]:
    rows = Stored(path, 0, arguments.rows)
    columns = Stored(path, arguments.rows, arguments.rows + arguments.columns)
    kernel, original, copying = definition_for(arguments.side), pairs.volume_tensor, [0.0]

    def copied(*given: Any) -> torch.Tensor:
        begun = time.perf_counter()
        volume = original(*given)
        copying[0] += time.perf_counter() - begun
        return volume

    pairs.volume_tensor = copied
    options: dict[str, Any] = {"device": arguments.device, "memory": int(arguments.memory * 1e9)}
    pairs.pair_matrix(Stored(path, 0, 1), Stored(path, 0, 1), kernel, **options)  # compiles, warms up
    copying[0], begun = 0.0, time.perf_counter()
    matrix = pairs.pair_matrix(rows, columns, kernel, **options)
    seconds = time.perf_counter() - begun
    return {
        "definition": kernel.name,
        "pairs": matrix.size,
        "seconds": seconds,
        "loading_seconds": copying[0],
        "computing_seconds": seconds - copying[0],
        "microseconds_per_pair": 1e6 * (seconds - copying[0]) / matrix.size,
        "mean": float(matrix.mean()),
        "roofline": roofline(arguments.side, matrix.size),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    for name, default in (("side", 128), ("rows", 500), ("columns", 1262), ("subjects", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=float, default=16, help="gigabytes of prepared volumes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volumes.npy"
        make(path, arguments.rows + arguments.columns, arguments.side, arguments.subjects)
        result: dict[str, Any] = {**vars(arguments), **measure(arguments, path), "versions": versions()}
    if arguments.device != "cpu":
        result["device"] = torch.cuda.get_device_name(arguments.device)
        write_json(Path(__file__).resolve().parent / "results" / "pairs_gpu.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
