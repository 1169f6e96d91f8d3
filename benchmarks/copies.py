"""The search for copies: its level on held-out people, its power on planted copies and mosaics, its cost.

    OMP_NUM_THREADS=1 python benchmarks/copies.py --cache DIR     (about 15 minutes of one core; continues after a kill)

Level: simulated brains of 32^3 are split at random into training, null and fresh people; the p value of every fresh
person is that of somebody who is no copy. Power: entrants of 60 samples of which 6 are altered copies of training
volumes (or mosaics) and 54 fresh people; Holm over the 60 at the gate's default level. Everything is in one frame, the
mean of other people. Cost: processor seconds of each step, counted per volume and per pair, for the paper's protocol.
Writes benchmarks/results/copies.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import people as cohort
import torch
from people import SEED, Aligned, Bench
from provenance import machine

from mribench.files import digest_json, write_json
from mribench.metrics.arrays.alignment import coarse
from mribench.metrics.gates.search import DEFINITION, Matches, best_matches, judged
from mribench.metrics.gates.tail import holm
from mribench.metrics.gates.thresholds import GateThresholds

LEVEL = GateThresholds().copies
LEVEL_SIZES = ((48, 48, 8), (128, 128, 10), (400, 400, 14))  # training, null, splits
NOMINAL = (0.1, 0.05, 0.01, 0.001, 0.0001)
MINORITY, SAMPLES, ENTRANTS = 6, 60, 4

COPIES: dict[str, cohort.Alteration] = {
    "shifted by 1 voxel": cohort.moved(1),
    "shifted by 2 voxels": cohort.moved(2),
    "rotated by 2 degrees": cohort.turned(2),
    "rotated by 5 degrees": cohort.turned(5),
    "gain 0.8": cohort.scaled(0.8),
    "gain 1.2": cohort.scaled(1.2),
    "gamma 0.7": cohort.powered(0.7),
    "gamma 1.4": cohort.powered(1.4),
    "mirrored": cohort.mirrored,
    "noise 0.05": cohort.noisy(0.05),
    "blurred by 1 voxel": cohort.blur(1),
    "warped by 0.5 voxel": cohort.warped(0.5),
    "warped by 1 voxel": cohort.warped(1),
    "warped by 2 voxels": cohort.warped(2),
    "half way to the mean": cohort.pull(0.5),
    "mirrored, gamma 0.8, shifted by 1, rotated by 3, noise 0.03": cohort.in_turn(
        cohort.mirrored, cohort.powered(0.8), cohort.moved(1), cohort.turned(3), cohort.noisy(0.03)
    ),
}
Mosaic = Callable[[np.ndarray, Sequence[np.ndarray], np.random.Generator], np.ndarray]


def mosaic(
    mask: Callable[[int, np.random.Generator], np.ndarray], before: cohort.Alteration | None = None
) -> Mosaic:
    """The voxels in `mask` of the first volume, the rest of another."""

    def make(copied: np.ndarray, others: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        copied = before(copied, copied, rng) if before else copied
        return np.where(mask(len(copied), rng), copied, others[0])

    return make


def half(axis: int, upper: bool) -> Callable[[int, np.random.Generator], np.ndarray]:
    def mask(side: int, rng: np.random.Generator) -> np.ndarray:
        places = np.arange(side) >= side // 2
        shape = [1, 1, 1]
        shape[axis] = side
        return (places if upper else ~places).reshape(shape)

    return mask


def eighth(side: int, rng: np.random.Generator) -> np.ndarray:
    return (
        half(0, rng.random() < 0.5)(side, rng)
        & half(1, rng.random() < 0.5)(side, rng)
        & half(2, False)(side, rng)
    )


def planes(side: int, rng: np.random.Generator) -> np.ndarray:
    central = np.zeros((side,) * 3, dtype=bool)
    central[side // 2] = central[:, side // 2] = central[:, :, side // 2] = True
    return central


def without_planes(side: int, rng: np.random.Generator) -> np.ndarray:
    return ~planes(side, rng)


def ball(side: int, rng: np.random.Generator) -> np.ndarray:
    centre = rng.uniform(0.38, 0.62, 3) * side
    return (
        sum((place - c) ** 2 for place, c in zip(np.indices((side,) * 3), centre, strict=True))
        < (side / 5) ** 2
    )


def slices(copied: np.ndarray, others: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return np.stack([others[z % len(others)][z] for z in range(len(copied))])


# Copied volume: a training volume. "of training": the others are training volumes too, else fresh people.
MOSAICS: dict[str, tuple[bool, Mosaic]] = {
    "left half, rest fresh": (False, mosaic(half(2, False))),
    "right half, rest fresh": (False, mosaic(half(2, True))),
    "top half, rest fresh": (False, mosaic(half(0, True))),
    "bottom half, rest fresh": (False, mosaic(half(0, False))),
    "left half shifted by 1 voxel, rest fresh": (False, mosaic(half(2, False), cohort.moved(1))),
    "an eighth, rest fresh": (False, mosaic(eighth)),
    "a ball of radius side/5, rest fresh": (False, mosaic(ball)),
    "left half of one, right half of another, both of training": (True, mosaic(half(2, False))),
    "average of two of training": (True, lambda copied, others, rng: (copied + others[0]) / 2),
    "three central planes, rest of another, both of training": (True, mosaic(without_planes)),
    "three central planes of training, rest fresh": (False, mosaic(planes)),
    "every axial slice of another, all of training": (True, slices),
    "every axial slice of another, all fresh": (False, slices),
}


def level(aligned: Aligned, count: int) -> list[dict]:
    """Observed proportions of p values below nominal levels, and of whole entrants of 64 held back."""
    results = []
    for size, null, splits in LEVEL_SIZES:
        p_values, entrants = [], []
        for number in range(splits):
            order = np.random.default_rng((SEED, size, number)).permutation(count).tolist()
            sets = {"train": order[:size], "samples": order[size:], "reference": order[:2]}
            matches = best_matches(Bench(aligned, **sets), "samples", "train")
            people = Matches(*(array[:null] for array in matches))
            fresh = judged(Matches(*(array[null:] for array in matches)), people).p_values
            p_values.append(fresh)
            entrants += [float(holm(each).min()) for each in np.array_split(fresh, len(fresh) // 64)]
        pooled = np.concatenate(p_values)
        results.append(
            {
                "train": size,
                "null": null,
                "draws": len(pooled),
                "observed": {str(nominal): float((pooled <= nominal).mean()) for nominal in NOMINAL},
                "smallest": float(pooled.min()),
                "entrants": len(entrants),
                "entrants_held_back": sum(p <= LEVEL for p in entrants),
            }
        )
        print(results[-1], flush=True)
    return results


def power(volumes: np.ndarray, sets: dict[str, slice]) -> dict:
    """Planted copies that are found, with the right source, and entrants that are held back, of each kind."""
    start = time.perf_counter()
    volumes = volumes.astype(np.float32)
    train, fresh = volumes[sets["train"]], volumes[sets["fresh"]]
    mean = volumes[sets["train"]].mean(axis=0, dtype=np.float64).astype(np.float32)
    aligned = Aligned(mean)
    numbers = {name: list(aligned.add(volumes[each])) for name, each in sets.items()}
    null = _matches(aligned, numbers, numbers["reference"])
    honest = _matches(aligned, numbers, numbers["fresh"])
    rows, planted = {}, MINORITY * ENTRANTS
    for kind in [*COPIES, *MOSAICS]:
        made = [_planted(kind, i, train, fresh, mean) for i in range(planted)]
        matches = _matches(aligned, numbers, aligned.add(made))
        rows[kind] = _found(matches, honest, null)
        print(len(mean), kind, rows[kind], flush=True)
    return {
        "size": len(mean),
        "sets": {name: len(each) for name, each in numbers.items()},
        "planted": planted,
        "kinds": rows,
        "seconds": round(time.perf_counter() - start, 1),
    }


def _planted(kind: str, i: int, train: np.ndarray, fresh: np.ndarray, mean: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng((SEED, i))
    if kind in COPIES:
        return COPIES[kind](train[i], mean, rng)
    of_training, make = MOSAICS[kind]
    return make(
        train[i],
        np.roll(train if of_training else fresh, -1 - i - len(train) // 2 * of_training, axis=0),
        rng,
    )


def _matches(aligned: Aligned, numbers: dict[str, list[int]], samples: Sequence[int]) -> Matches:
    bench = Bench(aligned, samples=list(samples), train=numbers["train"], reference=numbers["reference"])
    return best_matches(bench, "samples", "train")


def _found(matches: Matches, honest: Matches, null: Matches) -> dict:
    found, held_back = 0, 0
    for entrant in range(ENTRANTS):
        rows = range(entrant * MINORITY, (entrant + 1) * MINORITY)
        both = Matches(
            *(
                np.concatenate([a[list(rows)], b[: SAMPLES - MINORITY]])
                for a, b in zip(matches, honest, strict=True)
            )
        )
        suspected = holm(judged(both, null).p_values) <= LEVEL
        found += int(suspected[:MINORITY].sum())
        held_back += bool(suspected.any())
    return {"found": found / (MINORITY * ENTRANTS), "held_back": held_back / ENTRANTS}


def cost(folder: Path) -> dict:
    """Processor seconds per volume and per pair, and the sum for 500 samples against 1,262 + 500 + 500 at 128^3."""
    volume = np.repeat(np.repeat(np.repeat(cohort.people(folder, 32, 1)[0], 4, 0), 4, 1), 4, 2).astype(
        np.float32
    )
    small = cohort.people(folder, 32, 256).astype(np.float32)
    aligned = Aligned(small.mean(axis=0))
    seconds = {"coarse": _cpu(lambda: coarse(torch.from_numpy(volume)), 20)}
    batch = torch.from_numpy(small[:32])
    seconds["align"] = _cpu(lambda: aligned.frame.forms(batch), 2) / 32
    numbers = list(aligned.add(small))
    seconds["pair"] = _cpu(lambda: _searched(aligned, numbers), 1) / 128**2
    samples, train, others = 500, 1262, 1000
    volumes = samples + train + others
    pairs = (samples + others) * train + (samples + train + 500) * others + 2 * samples**2 + others**2
    parts = {
        "coarse": seconds["coarse"] * volumes,
        "align": seconds["align"] * 2 * volumes,
        "pairs": seconds["pair"] * pairs,
    }
    return {
        "seconds": seconds,
        "volumes": volumes,
        "pairs": pairs,
        "parts": parts,
        "minutes_of_one_core": sum(parts.values()) / 60,
    }


def _searched(aligned: Aligned, numbers: list[int]) -> Matches:
    bench = Bench(aligned, samples=numbers[:128], train=numbers[128:], reference=numbers[:8])
    return best_matches(bench, "samples", "train")


def _cpu(function: Callable[[], object], times: int) -> float:
    function()
    start = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - start) / times


def _cut(*ends: int) -> dict[str, slice]:
    return {
        name: slice(*part) for name, part in zip(("train", "reference", "fresh"), pairwise(ends), strict=True)
    }


def _level(folder: Path) -> list[dict]:
    volumes = cohort.people(folder, 32, 1500)
    aligned = Aligned(volumes[1400:].mean(axis=0, dtype=np.float64).astype(np.float32))
    aligned.add(volumes[:1400])
    return level(aligned, 1400)


PARTS: dict[str, Callable[[Path], object]] = {
    "cost": cost,
    "power_32": lambda folder: power(cohort.people(folder, 32, 320), _cut(0, 128, 256, 320)),
    "level": _level,
    "power_64": lambda folder: power(cohort.people(folder, 64, 260), _cut(0, 100, 196, 260)),
}


def measure(folder: Path) -> dict:
    """All parts; those that an earlier call has finished with this search are read from the folder."""
    result, start = {}, time.perf_counter()
    for name, part in PARTS.items():
        path = folder / f"copies-{name}-{digest_json([DEFINITION, LEVEL])[:12]}.json"
        if not path.exists():
            write_json(path, part(folder))
        result[name] = json.loads(path.read_text())
        print(name, result[name], flush=True)
    return {
        "command": "OMP_NUM_THREADS=1 python benchmarks/copies.py --cache DIR",
        "machine": machine(),
        "seed": SEED,
        "gate_level": LEVEL,
        **result,
        "seconds": round(time.perf_counter() - start, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    torch.set_num_threads(1)
    write_json(
        Path(__file__).resolve().parent / "results" / "copies.json", measure(parser.parse_args().cache)
    )
