"""False alarms of all gates on honest, imperfect entrants: how often is one held back?

    OMP_NUM_THREADS=1 python benchmarks/gates.py --cache DIR       (about 10 minutes of one core)

Each draw splits simulated brains of 32^3 into training, reference, held-out and fresh people; the fresh ones, altered
alike, are an entrant. All gates judge it at their default levels, in one frame (the mean of 200 other people). Sizes:
those of the `demo` protocol, and 64 samples against 128 + 64 + 64. Writes benchmarks/results/gates.json.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from people import HONEST, SEED, Aligned, Bench, people
from provenance import machine

from mribench.files import write_json
from mribench.metrics.gates.judge import judge
from mribench.metrics.gates.thresholds import GateThresholds

COUNT, FRAME, ALTERED = 1200, 200, 300
SIZES = {"demo": (48, 24, 24, 16, 100), "64 samples": (128, 64, 64, 64, 20)}  # sets, samples, splits


def split(rng: np.random.Generator, sizes: tuple[int, ...]) -> dict[str, list[int]]:
    """Real sets of people of any number, and samples of those that are altered."""
    train, reference, holdout, samples = sizes
    fresh = rng.choice(ALTERED, samples, replace=False)
    others = rng.permutation(np.setdiff1d(np.arange(COUNT - FRAME), fresh))
    cuts = np.cumsum((train, reference, holdout))
    parts = np.split(others[: cuts[-1]], cuts[:-1])
    return {
        "samples": fresh.tolist(),
        **{name: part.tolist() for name, part in zip(("train", "reference", "holdout"), parts, strict=True)},
    }


def entrants(aligned: Aligned, volumes: np.ndarray, mean: np.ndarray) -> dict[str, range]:
    """Kind -> numbers of its altered people, in their order; perfect ones are the people themselves."""
    numbers = {"perfect": aligned.add(volumes)}
    for kind, alter in list(HONEST.items())[1:]:
        altered = [
            alter(volumes[i].astype(np.float32), mean, np.random.default_rng((SEED, i)))
            for i in range(ALTERED)
        ]
        numbers[kind] = aligned.add(altered)
        print(kind, flush=True)
    return numbers


def measure(folder: Path) -> dict:
    start = time.perf_counter()
    volumes = people(folder, 32, COUNT)
    mean = volumes[-FRAME:].mean(axis=0, dtype=np.float64).astype(np.float32)
    aligned = Aligned(mean)
    numbers = entrants(aligned, volumes[:-FRAME], mean)
    results = {}
    for name, (*sizes, splits) in SIZES.items():
        alarms, draws = {kind: Counter() for kind in HONEST}, Counter()
        for number in range(splits):
            sets = split(np.random.default_rng((SEED, number, len(name))), tuple(sizes))
            for kind in HONEST:
                entrant = {**sets, "samples": [numbers[kind][i] for i in sets["samples"]]}
                verdicts = judge(Bench(aligned, **entrant))
                assert all(verdict.passed is not None for verdict in verdicts), verdicts
                tripped = [verdict.gate for verdict in verdicts if not verdict.passed]
                alarms[kind].update([*tripped, *(["any"] if tripped else [])])
                draws[kind] += 1
            print(name, number, {k: dict(v) for k, v in alarms.items() if v}, flush=True)
        total = sum(draws.values())
        results[name] = {
            "sets": dict(zip(("train", "reference", "holdout", "samples"), sizes, strict=True)),
            "draws": total,
            "alarms": {kind: dict(count) for kind, count in alarms.items()},
            "any": sum(count["any"] for count in alarms.values()),
            "rate": sum(count["any"] for count in alarms.values()) / total,
        }
    return {
        "command": "OMP_NUM_THREADS=1 python benchmarks/gates.py --cache DIR",
        "machine": machine(),
        "seed": SEED,
        "people": COUNT,
        "thresholds": GateThresholds().model_dump(),
        "sizes": results,
        "draws": sum(each["draws"] for each in results.values()),
        "any": sum(each["any"] for each in results.values()),
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    torch.set_num_threads(1)
    write_json(Path(__file__).resolve().parent / "results" / "gates.json", measure(parser.parse_args().cache))
