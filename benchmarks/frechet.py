"""The Frechet distance at n = 500, d = 2048: ours against SciPy's matrix square root, interleaved in one run.

    OMP_NUM_THREADS=2 python benchmarks/frechet.py       (about 3 minutes)

The peer is the route of pytorch-fid and its copies: tr sqrtm(S1 @ S2) of two d x d covariances in float64. Accuracy is
against the closed form |m1-m2|^2 + sum (sqrt(l1) - sqrt(l2))^2 on features whose sample covariances commute: Q diag(s)
V^T with columns of Q orthonormal and orthogonal to 1, and one V for both sets. Then the whole jackknife of one view:
50 + 50 leave-outs. Writes benchmarks/results/frechet.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from provenance import machine
from scipy.linalg import sqrtm

from mribench.files import write_json
from mribench.metrics.fid import FID_A, FrechetSubsets, frechet_distance
from mribench.metrics.statistics.intervals import jackknife


def seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def by_matrix_root(real: np.ndarray, fake: np.ndarray) -> float:
    """The usual code: the root of the product of both covariances, its imaginary part dropped."""
    shift = real.mean(axis=0) - fake.mean(axis=0)
    first, second = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = sqrtm(first @ second)
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(root.real))


def features(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Gaussian, eigenvalues as 1 / i."""
    rng = np.random.default_rng(seed)
    return 1 + scale * rng.normal(size=(n, d)) / np.sqrt(np.arange(1, d + 1))


def commuting(n: int, d: int, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Two sets `[n,d]` whose sample covariances share their eigenvectors, and their distance in closed form."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(d, rank)))[0]
    shift = rng.normal(size=d)
    sets, deviations = [], []
    for decay in (0.5, 0.8):
        drawn = rng.normal(size=(n, rank))
        scores = np.linalg.qr(drawn - drawn.mean(axis=0))[0]
        deviations.append(rng.permutation(np.arange(1, rank + 1) ** -decay))
        sets.append(np.sqrt(n - 1) * (scores * deviations[-1]) @ basis.T)
    closed = float(shift @ shift + ((deviations[0] - deviations[1]) ** 2).sum())
    return sets[0], sets[1] + shift, closed


def accuracy(sizes: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """Relative errors; the matrix root's only where it is asked for, since each takes its time."""
    rows = []
    for n, d, rank in sizes:
        real, fake, closed = commuting(n, d, rank)
        subsets = FrechetSubsets(real, fake).distance(np.arange(n), np.arange(n))
        distances = {"ours": frechet_distance(real, fake), "ours_subsets": subsets}
        distances["scipy"] = by_matrix_root(real, fake)
        errors = {f"relative_error_{name}": abs(value / closed - 1) for name, value in distances.items()}
        rows.append({"n": n, "d": d, "rank": rank, "closed_form": closed, **errors})
    return rows


def speed(n: int, d: int, rounds: int) -> dict[str, Any]:
    real, fake = features(n, d, 1), features(n, d, 2, 1.1)
    times: dict[str, list[float]] = {"ours": [], "scipy": []}
    frechet_distance(real, fake)
    for _ in range(rounds):
        times["ours"] += [seconds(lambda: frechet_distance(real, fake)) for _ in range(5)]
        times["scipy"].append(seconds(lambda: by_matrix_root(real, fake)))
    ours, theirs = frechet_distance(real, fake), by_matrix_root(real, fake)
    result: dict[str, Any] = {"n": n, "d": d, "rounds": rounds, "ours": ours, "scipy": theirs}
    for name, each in times.items():
        result[f"{name}_seconds"] = {"median": float(np.median(each)), "min": min(each)}
    for kind in ("median", "min"):
        result[f"ratio_{kind}"] = result["scipy_seconds"][kind] / result["ours_seconds"][kind]
    return result


def whole_jackknife(n: int, d: int) -> dict[str, Any]:
    """One view: preparing, the value, and every leave-out; against frechet_distance on one of them."""
    real, fake = features(n, d, 1), features(n, d, 2, 1.1)
    everything = {"samples": np.arange(n), "reference": np.arange(n)}
    prepared: list[FrechetSubsets] = []
    preparing = seconds(lambda: prepared.append(FrechetSubsets(real, fake)))
    replicates: dict[str, tuple[float, ...]] = {}
    leaving_out = seconds(lambda: replicates.update(jackknife(FID_A, prepared[0], everything)))
    block = n // len(replicates["samples"])
    direct = frechet_distance(real, fake[block:])
    return {
        "n": n,
        "d": d,
        "leave_outs": sum(map(len, replicates.values())),
        "preparing_seconds": preparing,
        "leave_outs_seconds": leaving_out,
        "relative_difference_to_frechet_distance": abs(replicates["samples"][0] / direct - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    result = {
        "command": "python " + " ".join(sys.argv),
        "speed": speed(500, 2048, arguments.rounds),
        "jackknife_of_one_view": whole_jackknife(500, 2048),
        "accuracy": accuracy([(500, 2048, 450), (500, 256, 200), (100, 256, 60)]),
        "machine": machine(),
    }
    path = Path(__file__).resolve().parent / "results" / "frechet.json"
    write_json(path, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
