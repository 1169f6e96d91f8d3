"""How often do nominal 95 % intervals hold the expected value at this n? Simulated laws, the metrics' own code.

    OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py       (about 5 minutes on 2 cores)

Reference and samples are n latent vectors each: Gaussian with eigenvalues 1 / i, or four clusters. The generator has
the reference's law, is shifted, or has half its spread. Every interval is made twice from the same jackknife: with
normal quantiles ("normal", as before) and as the package makes it ("now": Student's t, and for shares at least
Wilson's). The expected value is the mean over all trials. "ratio" is the root mean square of the standard errors over
the true standard deviation. MS-SSIM is a smooth kernel of latents here; its gap to the reference is tested. One more
cell takes subsets of 160 simulated brains of 32^3.

Then: the permutation test's level with the kernel of `exchangeable` and, for comparison, with the bandwidth of the
reference; and extrapolated real baselines of FID against fresh volumes. Writes benchmarks/results/coverage.json.
This file must not be called coverage.py: numba would import it in place of the package of that name.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from provenance import machine

from mribench.data.simulate import simulate
from mribench.files import write_json
from mribench.metrics import get_metric
from mribench.metrics.arrays.distances import JointDistances, squared_distances
from mribench.metrics.fid import FID_A, FrechetSubsets
from mribench.metrics.kid import _kernel
from mribench.metrics.mmd import MMD, _bank, median_distance
from mribench.metrics.ms_ssim import ms_ssim_matrix
from mribench.metrics.statistics.intervals import interval, jackknife
from mribench.metrics.statistics.jackknife import combined, half_width, jackknife_part
from mribench.metrics.statistics.permutation import permutation_p
from mribench.metrics.statistics.real_baseline import Split

D, VIEWS = 256, 3
DEVIATIONS = 10 * np.arange(1, D + 1) ** -0.5 / math.sqrt((1 / np.arange(1, D + 1)).sum())
CHEAP, EXPENSIVE = ("ms_ssim", "kid_a"), ("mmd", "fid_a", "precision", "coverage")
TRIALS = {16: (1000, 300), 24: (600, 200), 60: (250, 200), 200: (100, 100)}  # cheap metrics, expensive ones
LAWS, GENERATORS = ("gaussian", "clustered"), ("same", "shifted", "collapsed")
LARGE = {("gaussian", "same"), ("gaussian", "shifted"), ("clustered", "same")}  # the cells at n = 200
POPULATION, SIDE = 160, 32
# gap to the target, parts of its variance, interval of the gap
Trial = tuple[float, list[tuple[float, int]], tuple[float, float]]


def latents(rng: np.random.Generator, law: str, generator: str, n: int) -> list[np.ndarray]:
    """Three views `[n,D]`; the clusters of a volume are the same in all."""
    cluster = rng.integers(4, size=n)
    views = []
    for view in range(VIEWS):
        z = rng.normal(size=(n, D)) * DEVIATIONS
        if law == "clustered":
            centres = 1.5 * np.random.default_rng(view).normal(size=(4, D)) * DEVIATIONS
            z = 0.5 * z + centres[cluster]
        if generator == "collapsed":
            z = 0.5 * z
        views.append(z + 10 / math.sqrt(D) + (0.5 * DEVIATIONS if generator == "shifted" else 0))
    return views


def joint(real: list[np.ndarray], fake: list[np.ndarray]) -> JointDistances:
    both = [np.concatenate(pair) for pair in zip(real, fake, strict=True)]
    norms = tuple((rows**2).sum(axis=1) for rows in both)
    return JointDistances(tuple(map(squared_distances, both)), norms, len(real[0]))


def prepare(metric: str, real: list[np.ndarray], fake: list[np.ndarray]) -> Any:
    """What `metric.prepare` gives for these features."""
    if metric == "ms_ssim":
        similar = [np.exp(-squared_distances(side[0]) / 400) for side in (fake, real)]
        return dict(zip(("samples", "reference"), similar, strict=True))
    if metric == "kid_a":
        return _kernel(np.concatenate([real[0], fake[0]])), len(real[0])
    if metric == "fid_a":
        return FrechetSubsets(real[0], fake[0])
    return joint(real, fake)


def trial(name: str, prepared: Any, n: int) -> Trial:
    """One score, as `evaluation.score` makes it."""
    metric = get_metric(name)
    everything = {"samples": np.arange(n), "reference": np.arange(n)}
    value, target = metric.value(prepared, everything), metric.target(prepared, everything) or 0.0
    parts = [
        jackknife_part(target if side in metric.target_resampled else value, varied, n)
        for side, varied in jackknife(metric, prepared, everything).items()
    ]
    low, high = interval(metric, value, parts, {"samples": n, "reference": n})
    return value - target, parts, (low - target, high - target)


def summary(trials: list[Trial], truth: float | None = None) -> dict[str, Any]:
    gaps = np.array([gap for gap, _, _ in trials])
    truth = float(gaps.mean()) if truth is None else truth
    estimates = [combined(parts) for _, parts, _ in trials]
    errors = np.abs(gaps - truth)
    spread = float(gaps.std(ddof=1))
    return {
        "trials": len(trials),
        "expected": truth,
        "standard_deviation": spread,
        "ratio": float(math.sqrt(np.mean([v for v, _ in estimates])) / spread) if spread > 1e-12 else None,
        "normal": float(
            np.mean([e <= half_width(v, math.inf) for e, (v, _) in zip(errors, estimates, strict=True)])
        ),
        "now": float(np.mean([low <= truth <= high for _, _, (low, high) in trials])),
    }


def cell(law: str, generator: str, n: int, share: float) -> dict[str, Any]:
    """All metrics of one law, generator and n."""
    rng = np.random.default_rng([LAWS.index(law), GENERATORS.index(generator), n])
    cheap, expensive = (max(4, round(share * count)) for count in TRIALS[n])
    trials_of_metric: dict[str, list[Trial]] = {name: [] for name in (*CHEAP, *EXPENSIVE)}
    for count in range(cheap):
        real, fake = latents(rng, law, "same", n), latents(rng, law, generator, n)
        for name in (*CHEAP, *EXPENSIVE) if count < expensive else CHEAP:
            trials_of_metric[name].append(trial(name, prepare(name, real, fake), n))
    metrics = {name: summary(trials) for name, trials in trials_of_metric.items()}
    return {"law": law, "generator": generator, "n": n, "metrics": metrics}


def brains(share: float) -> list[dict[str, Any]]:
    """MS-SSIM of volumes: subsets of a population, whose own mean over pairs is the truth of each side."""
    volumes = np.stack([simulate(0, index, SIDE)[0] for index in range(POPULATION)])
    matrix, rows = ms_ssim_matrix(volumes), []
    rng = np.random.default_rng(0)
    for n in (16, 24):
        trials = []
        for _ in range(max(4, round(600 * share))):
            order = rng.permutation(POPULATION)[: 2 * n]
            cut = {"samples": order[:n], "reference": order[n:]}
            prepared = {side: matrix[np.ix_(subset, subset)] for side, subset in cut.items()}
            trials.append(trial("ms_ssim", prepared, n))
        row = {"law": f"simulated brains {SIDE}^3", "generator": "same", "n": n}
        rows.append({**row, "metrics": {"ms_ssim": summary(trials, truth=0.0)}})
    return rows


def levels(n: int, m: int, trials: int) -> dict[str, Any]:
    """P(p <= 0.05) for one law: kernels blind to the split, and the headline's own bandwidth and scale."""
    rng = np.random.default_rng([n, m])
    below: dict[str, list[bool]] = {"mmd": [], "mmd, bandwidth of the reference": [], "kid_a": []}
    for index in range(trials):
        law = LAWS[index % 2]
        real, fake = latents(rng, law, "same", m), latents(rng, law, "same", n)
        distances = joint(real, fake)
        everything = {"samples": np.arange(n), "reference": np.arange(m)}
        grams = (
            MMD.exchangeable(distances)[0],
            _bank(distances.squared(everything), median_distance(distances.squared(everything)[:m, :m])),
            _kernel(np.concatenate([real[0], fake[0]])),
        )
        for name, gram in zip(below, grams, strict=True):
            below[name].append(permutation_p(gram, m, permutations=399, seed=index) <= 0.05)
    level = {name: float(np.mean(rejected)) for name, rejected in below.items()}
    return {"n": n, "m": m, "trials": trials, "nominal": 0.05, "level": level}


def real_baseline(alpha: float, n: int, m: int, trials: int) -> dict[str, Any]:
    """Extrapolated real baseline of FID against fresh volumes, 2048 features, eigenvalues 1 / i^alpha."""
    rng = np.random.default_rng([round(10 * alpha), n, m])
    eigenvalues = np.arange(1, 2049) ** -alpha
    deviations = np.sqrt(100 * eigenvalues / eigenvalues.sum())
    fresh, real_baselines = [], []
    for _ in range(trials):
        reference, samples = (rng.normal(size=(count, 2048)) * deviations for count in (m, n))
        fresh.append(FrechetSubsets(reference, samples).distance(np.arange(m), np.arange(n)))
        real_baselines.append(Split(n, m).extrapolated(FID_A, FrechetSubsets(reference, reference)))
    truth = float(np.mean(fresh))
    errors = [value / truth - 1 for value, _, _ in real_baselines]
    return {
        "alpha": alpha,
        "n": n,
        "m": m,
        "trials": trials,
        "fresh": truth,
        "relative_error": {"mean": float(np.mean(errors)), "largest": float(np.max(np.abs(errors)))},
        "held_by_interval": float(np.mean([low <= truth <= high for _, low, high in real_baselines])),
    }


def line(row: dict[str, Any]) -> str:
    shown = [f"{name} {hits['normal']:.3f} > {hits['now']:.3f}" for name, hits in row["metrics"].items()]
    return f"{row['law']:>22} {row['generator']:>9} n={row['n']:<3} before > now: " + "; ".join(shown)


def measure(share: float, processes: int) -> dict[str, Any]:
    cells = [
        (law, generator, n, share)
        for n in sorted(TRIALS, reverse=True)
        for law in LAWS
        for generator in GENERATORS
        if n < 200 or (law, generator) in LARGE
    ]
    begun = time.perf_counter()
    with ProcessPoolExecutor(processes) as pool:
        tested = [
            pool.submit(levels, n, m, max(4, round(400 * share))) for n, m in ((16, 24), (24, 24), (60, 30))
        ]
        extrapolated = [
            pool.submit(real_baseline, alpha, n, m, 2 if m == 500 else 6)
            for alpha in (0.7, 1.0, 1.5)
            for n, m in ((500, 500), (100, 500), (128, 128), (16, 24))
        ]
        volumes = pool.submit(brains, share)
        rows = []
        for row in pool.map(cell, *zip(*cells, strict=True)):
            rows.append(row)
            print(line(row), flush=True)
        rows += volumes.result()
        for row in rows[-2:]:
            print(line(row))
        permutation, real_baselines = ([job.result() for job in jobs] for jobs in (tested, extrapolated))
    print(json.dumps({"permutation": permutation, "real_baselines": real_baselines}, indent=1))
    return {
        "command": "python " + " ".join(sys.argv),
        "intervals": rows,
        "permutation": permutation,
        "real_baselines": real_baselines,
        "seconds": round(time.perf_counter() - begun),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the trials, e.g. 0.1 for a try")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    path = Path(__file__).resolve().parent / "results" / "coverage.json"
    write_json(path, measure(arguments.share, arguments.processes))


if __name__ == "__main__":
    main()
