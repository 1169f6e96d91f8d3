"""False alarms of all gates on honest, imperfect entrants, and which gate stops which cheat.

    OMP_NUM_THREADS=1 python benchmarks/gates.py --cache DIR     (20 minutes of one core; continues after a kill)

False alarms: each draw splits simulated brains of 32^3 into training, reference, held-out and fresh people; the fresh
ones, altered alike, are an entrant. All gates judge it at their default levels, in one frame (the mean of 200 other
people). Sizes: those of the `demo` protocol, and 64 samples against 128 + 64 + 64. Cheats: one entrant each, at the
second size. Writes benchmarks/results/gates.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import copies as plants
import numpy as np
import people as cohort
import torch
from people import HONEST, SEED, Aligned, Bench, people
from provenance import machine

from mribench.files import write_json
from mribench.metrics.gates.judge import judge
from mribench.metrics.gates.thresholds import GateThresholds

COUNT, FRAME, ALTERED = 1200, 200, 300
SIZES = {"demo": (48, 24, 24, 16, 100), "64 samples": (128, 64, 64, 64, 6)}  # sets, samples, splits


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
    numbers = {"perfect": range(len(volumes))}
    for kind, alter in list(HONEST.items())[1:]:
        altered = [
            alter(volumes[i].astype(np.float32), mean, np.random.default_rng((SEED, i)))
            for i in range(ALTERED)
        ]
        numbers[kind] = aligned.add(altered)
    return numbers


def draw(aligned: Aligned, numbers: dict[str, range], name: str, number: int) -> dict[str, list[str]]:
    """Kind of honest entrant -> gates that held it back."""
    sets = split(np.random.default_rng((SEED, number, len(name))), SIZES[name][:4])
    tripped, store = {}, None
    for kind in HONEST:
        bench = Bench(aligned, **{**sets, "samples": [numbers[kind][i] for i in sets["samples"]]})
        store = bench.store = store or bench.store
        verdicts = judge(bench)
        assert all(verdict.passed is not None for verdict in verdicts), verdicts
        tripped[kind] = [verdict.gate for verdict in verdicts if not verdict.passed]
    return tripped


def false_alarms(folder: Path, aligned: Aligned, numbers: dict[str, range], until: float) -> dict:
    """All draws; those of an earlier call are read from the folder; no draw starts after `until` seconds."""
    path = folder / "gates-draws.json"
    draws = json.loads(path.read_text()) if path.exists() else {}
    for name, (*_, splits) in SIZES.items():
        for number in range(splits):
            key = f"{name}/{number}/{GateThresholds().model_dump_json()}"
            if key not in draws and time.perf_counter() < until:
                draws[key] = draw(aligned, numbers, name, number)
                path.write_text(json.dumps(draws))
                print(key, {kind: gates for kind, gates in draws[key].items() if gates}, flush=True)
    return {name: summary(name, [d for key, d in draws.items() if key.startswith(name)]) for name in SIZES}


def summary(name: str, draws: list[dict[str, list[str]]]) -> dict:
    alarms = {
        kind: dict(Counter(each for d in draws for each in [*d[kind], *(["any"] if d[kind] else [])]))
        for kind in HONEST
    }
    total, wrong = len(draws) * len(HONEST), sum(count.get("any", 0) for count in alarms.values())
    sets = dict(zip(("train", "reference", "holdout", "samples"), SIZES[name], strict=False))
    return {"sets": sets, "entrants": total, "alarms": alarms, "any": wrong, "rate": wrong / max(total, 1)}


def cheats() -> dict[str, tuple[str, Callable]]:
    """Name -> the set that is altered, and `make(volumes [N,D,H,W], mean, rng)`."""

    def each(alter: cohort.Alteration) -> Callable:
        return lambda volumes, mean, rng: [alter(volume, mean, rng) for volume in volumes]

    def mixed(make: plants.Mosaic) -> Callable:
        return lambda volumes, mean, rng: [
            make(volume, np.roll(volumes, -i - 1 - len(volumes) // 2, axis=0), rng)
            for i, volume in enumerate(volumes)
        ]

    def flipped(axis: int) -> Callable:
        return lambda volumes, mean, rng: np.flip(volumes, axis)

    def planes_in_turned(copied: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.where(plants.planes(len(copied), rng), copied, others[0][::-1])

    noisy = each(cohort.noisy(0.02))
    return {
        "training volumes + noise 0.01": ("train", each(cohort.noisy(0.01))),
        "training volumes x 0.9": ("train", each(cohort.scaled(0.9))),
        "training volumes, mirrored": ("train", each(cohort.mirrored)),
        "training volumes, shifted by 1 voxel": ("train", each(cohort.moved(1))),
        "training volumes, warped by 0.5 voxel": ("train", each(cohort.warped(0.5))),
        "training volumes, warped by 1 voxel": ("train", each(cohort.warped(1))),
        "training volumes, warped by 2 voxels": ("train", each(cohort.warped(2))),
        "half copies + noise 0.01, half fresh": ("half", each(cohort.noisy(0.01))),
        "left half of one, right half of another, of training": ("train", mixed(plants.mosaic(plants.half(2, False)))),
        "average of two of training": ("train", mixed(lambda copied, others, rng: (copied + others[0]) / 2)),
        "training planes, rest of another of training": ("train", mixed(plants.mosaic(plants.planes))),
        "every slice of another, of training": ("train", mixed(plants.slices)),
        "three fresh central planes, rest of another fresh": ("fresh", mixed(plants.mosaic(plants.planes))),
        "three fresh central planes, rest upside down": ("fresh", mixed(planes_in_turned)),
        "every slice of another fresh": ("fresh", mixed(plants.slices)),
        "upside down": ("fresh", flipped(1)),
        "front and back exchanged": ("fresh", flipped(2)),
        "mirrored, all fresh": ("fresh", flipped(3)),
        "hemispheres exchanged": ("fresh", lambda v, mean, rng: np.roll(v, v.shape[3] // 2, axis=3)),
        "five fresh subjects repeated": ("fresh", lambda v, mean, rng: v[np.arange(len(v)) % 5]),
        "five repeated + noise 0.02": ("fresh", lambda v, mean, rng: noisy(v[np.arange(len(v)) % 5], mean, rng)),
        "mean volume + noise 0.02": ("fresh", lambda v, mean, rng: noisy([mean] * len(v), mean, rng)),
        "reference volumes + noise 0.01": ("reference", each(cohort.noisy(0.01))),
        "held-out volumes + noise 0.01": ("holdout", each(cohort.noisy(0.01))),
    }  # fmt: skip


def stopped(aligned: Aligned, volumes: np.ndarray, mean: np.ndarray) -> dict[str, dict[str, int]]:
    """Cheat -> gate that holds it back -> how many of the 64 samples are named."""
    sets, results = split(np.random.default_rng(SEED), SIZES["64 samples"][:4]), {}
    count, store = len(sets["samples"]), None
    sources = {"fresh": sets["samples"], **sets}
    sources["half"] = sets["train"][: count // 2] + sets["samples"][: count - count // 2]
    for cheat, (source, make) in cheats().items():
        originals = volumes[sorted(sources[source])[:count] if source != "half" else sources[source]]
        made = make(originals.astype(np.float32), mean, np.random.default_rng(SEED))
        if source == "half":
            made = [*made[: count // 2], *originals[count // 2 :]]
        bench = Bench(aligned, **{**sets, "samples": list(aligned.add(made))})
        store = bench.store = store or bench.store
        verdicts = [verdict for verdict in judge(bench) if verdict.passed is False]
        results[cheat] = {v.gate: len({s.sample_index for s in v.suspects}) for v in verdicts}
        print(cheat, results[cheat], flush=True)
    return results


def measure(folder: Path, minutes: float) -> dict:
    start = time.perf_counter()
    volumes = people(folder, 32, COUNT)
    mean = volumes[-FRAME:].mean(axis=0, dtype=np.float64).astype(np.float32)
    aligned = Aligned(mean)
    aligned.add(volumes[:-FRAME])
    against_cheats = stopped(aligned, volumes[:-FRAME], mean)
    numbers = entrants(aligned, volumes[:-FRAME], mean)
    sizes = false_alarms(folder, aligned, numbers, start + 60 * minutes)
    return {
        "command": "OMP_NUM_THREADS=1 python benchmarks/gates.py --cache DIR",
        "machine": machine(),
        "seed": SEED,
        "people": COUNT,
        "thresholds": GateThresholds().model_dump(),
        "false_alarms": sizes,
        "entrants": sum(each["entrants"] for each in sizes.values()),
        "any": sum(each["any"] for each in sizes.values()),
        "cheats": against_cheats,
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60, help="no draw starts later")
    torch.set_num_threads(1)
    given = parser.parse_args()
    write_json(
        Path(__file__).resolve().parent / "results" / "gates.json", measure(given.cache, given.minutes)
    )
