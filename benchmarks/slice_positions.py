"""How many slices FID and MMD should look at, and how to join them: blindness, power, spread and cost of each choice.

    OMP_NUM_THREADS=1 python benchmarks/slice_positions.py --work DIR      (about 6 minutes of one thread)

32 simulated brains at 32^3 in each set. Entrants are made from fresh subjects: perfect, honest with a mild fault, and
cheats that are right in some planes only. Features are those of 9 positions in each view; 1, 3 and 5 positions are
subsets of them. Three ways to use several positions: the mean of the distances of each ("averaged"), all slices as one
population ("pooled"), the features of a volume side by side ("joined"). "z" of an entrant is the score less that of the
perfect one over the jackknife's standard error of the two. Slice consistency is measured on the same
entrants. A run that was stopped goes on where it stopped. Writes benchmarks/results/slice-positions.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import machine
from scipy.ndimage import gaussian_filter

from mribench.data.simulate import simulate
from mribench.data.volume_set import VIEWS
from mribench.files import read_array, write_array, write_json
from mribench.metrics.consistency import conspicuousness, own_conspicuousness
from mribench.metrics.features.extraction import slice_features
from mribench.metrics.features.seams import seam_profile
from mribench.metrics.features.slices import EXTRACTORS, grey_slice, load_network
from mribench.metrics.fid import FrechetSubsets
from mribench.metrics.mmd import mmd2
from mribench.metrics.statistics.jackknife import squared_error

SEED, SIZE, COUNT = 2023, 32, 32
EXTRACTOR = EXTRACTORS["effnet-lite0"]
OFFSETS = tuple(range(-4, 5))  # twelfths of a side from its centre
CHOICES = {"1": (0,), "3 near": (-2, 0, 2), "3": (-4, 0, 4), "5": (-4, -2, 0, 2, 4), "9": OFFSETS}
INDICES = tuple(SIZE // 2 + round(offset * SIZE / 12) for offset in OFFSETS)

Volumes = np.ndarray  # [N,D,H,W]


def subjects(first: int, count: int = COUNT) -> Volumes:
    return np.stack([simulate(SEED, first + i, SIZE)[0] for i in range(count)])


def planes(indices: tuple[int, ...]) -> np.ndarray:
    """The voxels `[D,H,W]` of the slices `indices` of all views."""
    at = np.zeros(SIZE, dtype=bool)
    at[list(indices)] = True
    return at[:, None, None] | at[None, :, None] | at[None, None, :]


def entrants(fresh: Volumes) -> dict[str, Callable[[], Volumes]]:
    """Kind and name -> volumes. `other` is another subject, half the set further on."""
    rng, other = np.random.default_rng(SEED), np.roll(fresh, COUNT // 2, axis=0)
    noise = 0.03 * rng.standard_normal(fresh.shape).astype(np.float32) * (fresh > 0)
    left = np.arange(SIZE) < SIZE // 2
    mixed = np.stack([np.stack([fresh[(i + z) % COUNT, z] for z in range(SIZE)]) for i in range(COUNT)])
    central, nine = planes((SIZE // 2,)), planes(INDICES)
    return {
        "honest: blur 0.5": lambda: gaussian_filter(fresh, (0, 0.5, 0.5, 0.5)),
        "honest: noise 0.03": lambda: np.clip(fresh + noise, 0, 1),
        "cheat: 3 planes of another subject": lambda: np.where(central, fresh, other),
        "cheat: 3 planes, rest upside down": lambda: np.where(central, fresh, other[:, ::-1]),
        "cheat: 27 planes, rest upside down": lambda: np.where(nine, fresh, other[:, ::-1]),
        "cheat: every slice another subject": lambda: mixed,
        "cheat: left and right of two subjects": lambda: np.where(left, fresh, other),
        "cheat: upside down": lambda: fresh[:, ::-1],
        "cheat: front and back exchanged": lambda: fresh[:, :, ::-1],
    }


def features(name: str, volumes: Volumes, network: torch.nn.Module, work: Path) -> np.ndarray:
    """`[N,view,position,F]` float64, from the folder `work` where they are there."""
    path = work / f"{name.replace(' ', '-').replace(':', '')}.npy"

    def cut(number: int) -> list[np.ndarray]:
        return [grey_slice(volumes[number], view, index) for view in VIEWS for index in INDICES]

    array = read_array(path, len(volumes)) if path.exists() else None
    if array is None:
        print(name, file=sys.stderr, flush=True)
        array = slice_features(cut, len(volumes), network, EXTRACTOR)
        write_array(path, array)
    return array.reshape(len(volumes), len(VIEWS), len(OFFSETS), -1).astype(np.float64)


def averaged(real: np.ndarray, fake: np.ndarray) -> Callable[[np.ndarray], float]:
    """Of `[N,P,F]`: the mean over positions of the Frechet distances."""
    parts = [FrechetSubsets(real[:, p], fake[:, p]) for p in range(real.shape[1])]
    everyone = np.arange(len(real))
    return lambda keep: float(np.mean([part.distance(everyone, keep) for part in parts]))


def joined(real: np.ndarray, fake: np.ndarray) -> Callable[[np.ndarray], float]:
    """Of features side by side `[N,PF]`, over the number of positions to be of the same size as a mean."""
    subsets = FrechetSubsets(real.reshape(len(real), -1), fake.reshape(len(fake), -1))
    everyone = np.arange(len(real))
    return lambda keep: subsets.distance(everyone, keep) / real.shape[1]


def pooled(real: np.ndarray, fake: np.ndarray) -> Callable[[np.ndarray], float]:
    """Of all slices as one population `[NP,F]`."""
    positions = real.shape[1]
    subsets = FrechetSubsets(real.reshape(-1, real.shape[2]), fake.reshape(-1, fake.shape[2]))
    everything = np.arange(len(real) * positions)

    def distance(keep: np.ndarray) -> float:
        return subsets.distance(everything, (keep[:, None] * positions + np.arange(positions)).ravel())

    return distance


def joint_mmd(real: np.ndarray, fake: np.ndarray) -> Callable[[np.ndarray], float]:
    """Gaussian-bank MMD of `[N,views,P,F]`, every view over its RMS norm in the reference."""
    scale = np.sqrt((real**2).sum(axis=(2, 3)).mean(axis=0))[None, :, None, None]
    x, y = ((rows / scale).reshape(len(rows), -1) for rows in (real, fake))
    return lambda keep: mmd2(x, y[keep], "gaussian-bank")


def seams(real: Volumes, fake: Volumes) -> Callable[[np.ndarray], float]:
    """Slice consistency of volumes `[N,D,H,W]`."""
    x, y = (np.stack([seam_profile(volume) for volume in volumes]) for volumes in (real, fake))
    return lambda keep: float(conspicuousness(y[keep], x).mean() - own_conspicuousness(x).mean())


def with_error(distance: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Value, and its jackknife variance over the samples."""
    everyone = np.arange(COUNT)
    value = distance(everyone)
    replicates = [distance(np.delete(everyone, i)) for i in everyone]
    return value, squared_error(value, replicates, COUNT)


WAYS = {"averaged": averaged, "joined": joined, "pooled": pooled}


def scores(real: np.ndarray, fake: np.ndarray, choice: str) -> dict[str, tuple[float, float]]:
    """Of features `[N,view,position,F]`: measure -> value and variance."""
    chosen = [OFFSETS.index(offset) for offset in CHOICES[choice]]
    real, fake = real[:, :, chosen], fake[:, :, chosen]
    results = {"mmd": with_error(joint_mmd(real, fake))}
    for way, of in WAYS.items():
        if choice == "1" and way != "averaged":
            continue  # one position: the three ways are the same
        for number, view in enumerate(VIEWS):
            results[f"fid_{view[0]} {way}"] = with_error(of(real[:, number], fake[:, number]))
    return results


def compared(own: tuple[float, float], perfect: tuple[float, float]) -> dict[str, float]:
    error = float(np.sqrt(own[1] + perfect[1]))
    return {"value": own[0], "ratio": own[0] / perfect[0], "z": (own[0] - perfect[0]) / error}


def measure(work: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    network = load_network(EXTRACTOR, None)
    reference, fresh = subjects(0), subjects(100)
    real = features("reference", reference, network, work)
    perfect = features("perfect", fresh, network, work)
    rows: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    baseline: dict[str, dict[str, tuple[float, float]]] = {}
    for choice in CHOICES:
        begun = time.perf_counter()
        baseline[choice] = scores(real, perfect, choice)
        seconds[choice] = time.perf_counter() - begun
    consistent = with_error(seams(reference, fresh))
    for name, make in entrants(fresh).items():
        volumes = make()
        own = features(name, volumes, network, work)
        rows[name] = {
            "slice_consistency": {"all": compared(with_error(seams(reference, volumes)), consistent)}
        }
        for choice in CHOICES:
            for measure_, score in scores(real, own, choice).items():
                cell = compared(score, baseline[choice][measure_])
                rows[name].setdefault(measure_, {})[choice] = cell
    return {
        "command": "python benchmarks/slice_positions.py",
        "volumes": COUNT,
        "side": SIZE,
        "choices": CHOICES,
        "entrants": rows,
        "perfect": {
            c: {m: {"value": v, "sd": var**0.5} for m, (v, var) in b.items()}
            for c, b in {**baseline, "all": {"slice_consistency": consistent}}.items()
        },
        "seconds_of_all_scores_of_one_entrant": seconds,
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("slice-positions-work"), help="keeps the features")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.work)
    write_json(Path(__file__).resolve().parent / "results" / "slice-positions.json", result)
    print(json.dumps(result["entrants"], indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
