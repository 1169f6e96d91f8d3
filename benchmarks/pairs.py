"""MS-SSIM of pairs at 128^3: our CPU engine against pytorch-msssim, interleaved in one run, and against an oracle.

    NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/pairs.py       (about 10 minutes; 4 with --candidates 64)

Simulated subjects of the embedded cohort, window 7, five scales. One thread: one pair with cached statistics, and
uniform noise, where nothing is empty. Two threads: the matrix of 17 volumes with its statistics; pytorch-msssim's is
its pair, timed between, times 136. Nearest neighbours: the share of pairs that needed scale 1.

pytorch-msssim is timed in two processes of its own. "theirs": as a plain script meets it, where glibc hands most of
its arrays' memory back to the system and fetches it again, page by page. "theirs_warm": with freed memory kept, which
is as fast as that package can be. Both ratios are given. Writes benchmarks/results/pairs.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.metrics.regression import compute_ms_ssim
from provenance import machine
from pytorch_msssim import ms_ssim

from mribench.data.simulate import simulate
from mribench.files import write_json
from mribench.metrics.arrays.nearest import nearest_neighbours
from mribench.metrics.arrays.pairs import State
from mribench.metrics.arrays.similarity import Definition
from mribench.metrics.ms_ssim import ms_ssim_matrix

DEFINITION = Definition(window=7, scales=5)
SEED, SIDE, VOLUMES = 0, 128, 17
MATRIX_PAIRS = VOLUMES * (VOLUMES - 1) // 2
TAPS = DEFINITION.window


def seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def peer(x: np.ndarray, y: np.ndarray) -> float:
    """pytorch-msssim of two `[D,H,W]`."""
    pair = (torch.from_numpy(v)[None, None] for v in (x, y))
    return float(ms_ssim(*pair, data_range=1.0, win_size=TAPS, win_sigma=1.5))


def monai(x: np.ndarray, y: np.ndarray) -> float:
    pair = (torch.from_numpy(v)[None, None] for v in (x, y))
    return float(compute_ms_ssim(*pair, spatial_dims=3, kernel_size=TAPS, kernel_sigma=1.5))


class Peer:
    """A process that times pytorch-msssim on pairs of the volumes in a file."""

    def __init__(self, path: Path, warm: bool) -> None:
        glibc = {
            "MALLOC_MMAP_THRESHOLD_": str(2**25),
            "MALLOC_TRIM_THRESHOLD_": str(2**31),
            "MALLOC_TOP_PAD_": str(2**28),
        }
        environment = os.environ | (glibc if warm else {})
        command = [sys.executable, __file__, "--serve", str(path)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.seconds(0, 1)

    def seconds(self, i: int, j: int, threads: int = 1) -> float:
        print(i, j, threads, file=self.process.stdin, flush=True)
        assert self.process.stdout
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def serve(path: str) -> None:
    volumes = np.load(path)
    for line in sys.stdin:
        i, j, threads = map(int, line.split())
        torch.set_num_threads(threads)
        print(seconds(lambda: peer(volumes[i], volumes[j])), flush=True)  # noqa: B023


def filtered(volume: torch.Tensor) -> torch.Tensor:
    """Valid Gaussian windows over `[1,1,D,H,W]` float64."""
    g = torch.exp(-0.5 * ((torch.arange(TAPS, dtype=torch.float64) - TAPS // 2) / 1.5) ** 2)
    for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)):
        volume = F.conv3d(volume, (g / g.sum()).view(1, 1, *shape))
    return volume


def oracle(x: np.ndarray, y: np.ndarray) -> float:
    """The formula in float64 (docs/metrics.md)."""
    a, b = (torch.from_numpy(v).double()[None, None] for v in (x, y))
    score = 1.0
    for scale, weight in enumerate(DEFINITION.weights):
        a, b = (F.avg_pool3d(a, 2), F.avg_pool3d(b, 2)) if scale else (a, b)
        ma, mb = filtered(a), filtered(b)
        spread = filtered(a * a) - ma**2 + filtered(b * b) - mb**2
        local = (2 * (filtered(a * b) - ma * mb) + 9e-4) / (spread + 9e-4)
        if scale == 4:
            local = local * (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
        score *= max(float(local.mean()), 0) ** weight
    return score


def summary(columns: dict[str, list[float]], rounds: int) -> dict[str, Any]:
    """Milliseconds, and the ratios of medians and of minima to "ours"."""
    result: dict[str, Any] = {"n": rounds}
    for name, times in columns.items():
        result[f"{name}_ms"] = {"median": 1e3 * float(np.median(times)), "min": 1e3 * min(times)}
    for theirs, kind in itertools.product(("theirs", "theirs_warm"), ("median", "min")):
        result[f"ratio_{theirs}_{kind}"] = result[f"{theirs}_ms"][kind] / result["ours_ms"][kind]
    return result


def one_pair(volumes: np.ndarray, peers: dict[str, Peer], rounds: int) -> dict[str, Any]:
    """A pair with cached statistics, as one of a tile of 8 x 4 and alone, against the peer's pair."""
    states = DEFINITION.prepare(torch.from_numpy(volumes[:12]))
    x, y = cut(states, 0, 1), cut(states, 8, 9)
    rows, columns = cut(states, 0, 8), cut(states, 8, 12)
    DEFINITION.compare(rows, columns)
    names = ("ours", "ours_alone", "theirs", "theirs_warm", "statistics")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        times["ours"].append(seconds(lambda: DEFINITION.compare(rows, columns)) / 32)
        times["ours_alone"] += [seconds(lambda: DEFINITION.compare(x, y)) for _ in range(5)]
        for name, process in peers.items():
            times[name].append(process.seconds(0, 8))
        times["statistics"].append(seconds(lambda: DEFINITION.prepare(torch.from_numpy(volumes[:1]))))
    return summary(times, rounds)


def cut(states: State, start: int, stop: int) -> State:
    return tuple(tensor[start:stop] for tensor in states)


def matrix(volumes: np.ndarray, peers: dict[str, Peer], rounds: int) -> dict[str, Any]:
    """All unordered pairs of the volumes, statistics included; the peer's pair times their number."""
    torch.set_num_threads(2)
    times: dict[str, list[float]] = {"ours": [], "theirs": [], "theirs_warm": []}
    for turn in range(rounds):
        times["ours"].append(seconds(lambda: ms_ssim_matrix(volumes, definition=DEFINITION)))
        for name, process in peers.items():
            times[name].append(
                MATRIX_PAIRS * process.seconds(turn % VOLUMES, (turn + 1) % VOLUMES, threads=2)
            )
    torch.set_num_threads(1)
    return {"volumes": VOLUMES, "pairs": MATRIX_PAIRS, "threads": 2, **summary(times, rounds)}


def pruning(side: int, queries: int, candidates: int, rounds: int) -> dict[str, Any]:
    """Nearest neighbours among independent subjects; seconds with and without pruning, two threads."""
    torch.set_num_threads(2)
    volumes = np.stack([simulate(SEED, index, side)[0] for index in range(queries + candidates)])
    query_volumes, candidate_volumes = volumes[:queries], volumes[queries:]
    answers: dict[str, Any] = {}
    ours, whole = [], []
    for _ in range(rounds):
        ours.append(
            seconds(lambda: answers.update(nearest=nearest_neighbours(query_volumes, candidate_volumes, 1)))
        )
        whole.append(seconds(lambda: answers.update(matrix=ms_ssim_matrix(query_volumes, candidate_volumes))))
    torch.set_num_threads(1)
    pruned, full = float(np.median(ours)), float(np.median(whole))
    return {
        "side": side,
        "queries": queries,
        "candidates": candidates,
        "n": rounds,
        "share_with_scale_1": answers["nearest"].share,
        "seconds": pruned,
        "seconds_without_pruning": full,
        "ratio_without_pruning": full / pruned,
        "equals_full_matrix": bool(
            (answers["nearest"].indices[:, 0] == answers["matrix"].argmax(axis=1)).all()
        ),
    }


def agreement(volumes: np.ndarray, pairs: int) -> dict[str, float]:
    """Largest differences over pairs of volumes."""
    chosen = list(itertools.combinations(range(len(volumes)), 2))[:pairs]
    ours = ms_ssim_matrix(volumes, definition=DEFINITION)
    differences: dict[str, float] = {"pairs": len(chosen)}
    for name, other in (("float64_oracle", oracle), ("pytorch_msssim", peer), ("monai", monai)):
        differences[name] = max(abs(ours[i, j] - other(volumes[i], volumes[j])) for i, j in chosen)
    return differences


def roofline(result: dict[str, Any]) -> dict[str, Any]:
    """Counts of a pair where nothing is empty, and what the measured one makes of them."""
    flop, moved = 0, 0
    for scale in range(DEFINITION.scales):
        n, m = SIDE // 2**scale, SIDE // 2**scale - TAPS + 1
        flop += n**3 + (2 * TAPS - 1) * (n * n * m + n * m * m + m**3) + 10 * m**3
        moved += 4 * (2 * n**3 + 4 * m**3)
    best = result["dense"]["ours_ms"]["min"] / 1e3
    block = np.ones(2**26, dtype=np.float32)
    block.dot(block)
    stream = block.nbytes / min(seconds(lambda: block.dot(block)) for _ in range(5))
    sentence = (
        f"A dense pair is {flop / 1e6:.0f} MFLOP on {moved / 1e6:.0f} MB of cached statistics; in "
        f"{best * 1e3:.1f} ms that is {flop / best / 1e9:.0f} GFLOP/s. One thread streams {stream / 1e9:.0f} GB/s "
        f"from memory here, {1e3 * moved / stream:.1f} ms for the statistics; "
        "a tile of 4 x 4 pairs fetches them once for four."
    )
    return {"flop": flop, "bytes": moved, "stream_bytes_per_second": stream, "sentence": sentence}


def against_peers(volumes: np.ndarray, rounds: int, with_matrix: bool) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, volumes)
        file.flush()
        peers = {name: Peer(Path(file.name), name == "theirs_warm") for name in ("theirs", "theirs_warm")}
        result = {"pair": one_pair(volumes, peers, rounds)}
        if with_matrix:
            result["matrix"] = matrix(volumes, peers, rounds)
        for process in peers.values():
            process.close()
    return result


def measure(rounds: int, candidates: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    volumes = np.stack([simulate(SEED, index, SIDE)[0] for index in range(VOLUMES)])
    noise = np.random.default_rng(0).random((12, SIDE, SIDE, SIDE), dtype=np.float32)
    compiling = seconds(lambda: ms_ssim_matrix(volumes[:1], definition=DEFINITION))
    brain, dense = (against_peers(some, rounds, some is volumes) for some in (volumes, noise))
    print(json.dumps({"brain": brain, "dense": dense}), flush=True)  # the rest takes longer
    result: dict[str, Any] = {
        "command": "NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 python " + " ".join(sys.argv),
        "definition": DEFINITION.name,
        "first_call_seconds": compiling,
        "brain": {"threads": 1, "voxels_not_0": float((volumes > 0).mean()), **brain["pair"]},
        "dense": {"threads": 1, **dense["pair"]},
        "matrix": brain["matrix"],
        "agreement": {"brain": agreement(volumes[:4], 3), "dense": agreement(noise[:3], 2)},
        "nearest": [
            pruning(64, candidates // 4, candidates, 3),
            pruning(128, candidates // 16, candidates // 8, 1),
        ],
    }
    return {**result, "roofline": roofline(result), "machine": machine("numba", "pytorch-msssim", "monai")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--candidates", type=int, default=256, help="of nearest neighbours at 64^3")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    result = measure(arguments.rounds, arguments.candidates)
    write_json(Path(__file__).resolve().parent / "results" / "pairs.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
