"""Could slice consistency be a gate? Its values over many draws of honest entrants, faulty ones and cheats.

    OMP_NUM_THREADS=1 python benchmarks/seam_alarms.py      (about 1 minute of one thread)

A draw takes 32 reference volumes and 32 samples of other subjects from 160 simulated brains at 32^3. The samples stay
as they are, or get one fault. Writes benchmarks/results/seam-alarms.json.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from provenance import machine
from scipy.ndimage import gaussian_filter, zoom

from mribench.data.simulate import simulate
from mribench.files import write_json
from mribench.metrics.consistency import conspicuousness, own_conspicuousness
from mribench.metrics.features.seams import seam_profile

SEED, SIZE, PEOPLE, COUNT, DRAWS = 2023, 32, 160, 32, 500

Volumes = np.ndarray  # [N,D,H,W]


def entrants(people: Volumes) -> dict[str, Volumes]:
    """Kind and name -> volumes, one of every subject; `other` is the subject half the cohort further on."""
    rng, other, brain = np.random.default_rng(SEED), np.roll(people, PEOPLE // 2, axis=0), people > 0
    noise = rng.standard_normal(people.shape).astype(np.float32) * brain
    coarse = rng.standard_normal((PEOPLE, 4, 4, 4)).astype(np.float32)
    field = np.stack([zoom(of, SIZE / 4, order=3) for of in coarse])
    field /= field.std()
    slab = (np.arange(SIZE) // 8 % 2)[:, None, None]
    index = np.arange(PEOPLE)
    mixed = np.stack([np.stack([people[(i + z) % PEOPLE, z] for z in range(SIZE)]) for i in index])
    middle = np.zeros(SIZE, dtype=bool)
    middle[SIZE // 2] = True
    planes = middle[:, None, None] | middle[:, None] | middle
    return {
        "honest: nothing": people,
        "honest: blur 0.5": gaussian_filter(people, (0, 0.5, 0.5, 0.5)),
        "honest: noise 0.03": np.clip(people + 0.03 * noise, 0, 1),
        "honest: a quarter of the way to the mean": 0.75 * people + 0.25 * people.mean(axis=0),
        "honest: bias field 0.05": np.clip(people * np.exp(0.05 * field), 0, 1),
        "poor: blur 2": gaussian_filter(people, (0, 2, 2, 2)),
        "poor: noise 0.1": np.clip(people + 0.1 * noise, 0, 1),
        "poor: bright and dark slabs, step 0.1": np.clip(people * (1 - 0.1 * slab), 0, 1),
        "cheat: 3 planes of another subject": np.where(planes, people, other),
        "cheat: 3 planes, rest upside down": np.where(planes, people, other[:, ::-1]),
        "cheat: every slice another subject": mixed,
        "cheat: left and right of two subjects": np.where(np.arange(SIZE) < SIZE // 2, people, other),
        "cheat: upside down": people[:, ::-1],
        "cheat: front and back exchanged": people[:, :, ::-1],
    }


def values(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Slice consistency of every draw of seam profiles `[N,P]`."""
    rng, scores = np.random.default_rng(SEED), []
    for _ in range(DRAWS):
        order = rng.permutation(PEOPLE)
        reference = real[order[:COUNT]]
        scores.append(
            conspicuousness(fake[order[COUNT : 2 * COUNT]], reference).mean()
            - own_conspicuousness(reference).mean()
        )
    return np.array(scores)


def main() -> None:
    people = np.stack([simulate(SEED, i, SIZE)[0] for i in range(PEOPLE)])
    profiles = {
        name: np.stack([seam_profile(volume) for volume in volumes])
        for name, volumes in entrants(people).items()
    }
    scores = {name: values(profiles["honest: nothing"], of) for name, of in profiles.items()}
    limit = float(np.quantile(scores["honest: nothing"], 0.99))
    rows = {
        name: {
            **{key: float(np.quantile(of, q)) for key, q in (("low", 0.01), ("median", 0.5), ("high", 0.99))},
            "beyond": float((of > limit).mean()),
        }
        for name, of in scores.items()
    }
    record = {
        "command": "python benchmarks/seam_alarms.py",
        "draws": DRAWS,
        "volumes": COUNT,
        "side": SIZE,
        "limit": limit,
        "entrants": rows,
        "machine": machine(),
    }
    write_json(Path(__file__).resolve().parent / "results" / "seam-alarms.json", record)
    print("\n".join(f"{name}: {row}" for name, row in rows.items()))


if __name__ == "__main__":
    main()
