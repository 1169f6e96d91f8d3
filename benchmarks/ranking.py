"""Which headline to rank by, whether P(first) holds, and how often equal entrants are told apart.

    OMP_NUM_THREADS=1 nice python benchmarks/ranking.py --work FOLDER      (about 40 minutes of one thread)

Simulated leaderboards (benchmarks/ranking_boards.py): equal, close, far and mixed generators, 16 to 200 samples, three
families of correlated metrics. FOLDER keeps boards, so that the command can be continued, also by several processes
(--only boards). The prior of the package was chosen on the boards of seeds 0 to 95; "fresh" are boards of other seeds.

Four headlines are compared: mean rank; the mean over families of the excess over the real baseline in its standard
deviations; the same of asinh(excess); and the largest excess of a family. Writes benchmarks/results/ranking.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from provenance import machine
from ranking_boards import (
    EXPECTED,
    KINDS,
    METRICS,
    Board,
    Generator,
    false_differences,
    fresh_gaps,
    stored_board,
)
from scipy.stats import kendalltau, rankdata

from mribench.files import write_json
from mribench.metrics.statistics.headline import Yardstick, headlines, rank_chances, yardsticks

FAMILIES = (("ms_ssim",), ("mmd",), ("fid_a", "fid_c"))
BOARDS = {16: 96, 24: 24, 60: 8, 200: 2}  # samples -> boards of each kind
FRESH_SEEDS = 1000
CHUNKS, CHUNK = 80, 25  # boards of equal generators
TESTED = ("ms_ssim", "mmd", "fid_a")
BINS = (0, 0.02, 0.1, 0.2, 0.3, 0.5, 1.0001)
WINS = 0.95

Headline = Callable[[np.ndarray], np.ndarray]  # excess of every family `[K,3]` -> `[K]`, lower is better
HEADLINES: dict[str, Headline] = {
    "mean rank": lambda excess: rankdata(excess.round(9), axis=0).mean(axis=1),
    "mean excess": lambda excess: excess.mean(axis=1),
    "mean asinh(excess)": lambda excess: np.arcsinh(excess).mean(axis=1),
    "worst family": lambda excess: excess.max(axis=1),
}


def plan(first_seed: int) -> list[tuple[int, str, int]]:
    return [
        (seed, kind, n)
        for n, count in BOARDS.items()
        for seed in range(first_seed, first_seed + count)
        for kind in KINDS
    ]


def _excess(keys: dict[str, np.ndarray], scales: dict[str, Yardstick]) -> np.ndarray:
    """`[K,families]`."""
    of = {m: (keys[m] - scales[m].real) / scales[m].unit for m in METRICS}
    return np.stack([np.mean([of[m] for m in family], axis=0) for family in FAMILIES], axis=1)


def observed(board: Board) -> dict[str, np.ndarray]:
    return {m: np.array([entrant[m].rank_key for entrant in board.entrants]) for m in METRICS}


def expected(fresh: np.ndarray) -> dict[str, np.ndarray]:
    """Rank keys of the expected gaps; the two views have one law."""
    gaps = dict(zip(EXPECTED, fresh.mean(axis=1).T, strict=True))
    return {
        "ms_ssim": abs(gaps["ms_ssim"]),
        "mmd": gaps["mmd"],
        "fid_a": gaps["fid_a"],
        "fid_c": gaps["fid_a"],
    }


def _best(values: np.ndarray) -> np.ndarray:
    """Proportion of "is first" of every entrant: ties share."""
    first = np.isclose(values, values.min(), rtol=0, atol=1e-9)
    return first / first.sum()


def compared(boards: list[Board]) -> dict[str, dict[str, float]]:
    """Per headline, how it does; see the keys."""
    return {name: _compared(headline, boards) for name, headline in HEADLINES.items()}


def _compared(headline: Headline, boards: list[Board]) -> dict[str, float]:
    right, dominated, moved, cheats = [], [], [], []
    for board in boards:
        scales = yardsticks(board.entrants, METRICS)
        seen, true = _excess(observed(board), scales), _excess(expected(board.fresh), scales)
        order = headline(seen)
        if board.kind != "equal":
            right.append(_best(headline(true))[order.argmin()] > 0)
            for i, j in combinations(range(len(true)), 2):
                if (true[i] < true[j]).all() or (true[j] < true[i]).all():
                    dominated.append((order[i] < order[j]) == bool((true[i] < true[j]).all()))
            top = order.argsort()[:2]
            for k in set(range(len(order))) - set(top):
                rest = headline(np.delete(seen, k, axis=0))
                place = [int(t) - int(t > k) for t in top]
                moved.append(rest[place[0]] >= rest[place[1]])
        for family in range(seen.shape[1]):
            cheat = np.zeros(seen.shape[1])
            cheat[family] = 2 * max(seen[:, family].max(), 1)
            cheats.append(headline(np.vstack([seen, cheat])).argmin() == len(seen))
    return {
        "names the truly best by itself": float(np.mean(right)),
        "orders as all families do where all agree": float(np.mean(dominated)),
        "first two exchanged by a third that leaves": float(np.mean(moved)),
        "first place to one real in all families but one": float(np.mean(cheats)),
    }


def orders_by_n() -> dict[str, float]:
    """Kendall's tau between the true orders of 30 generators at 16 and at 200 samples, per headline."""
    rng = np.random.default_rng(7)
    generators = [
        Generator(rng.uniform(0, 1.2), rng.uniform(0.4, 1.4), rng.uniform(0, 1.2)) for _ in range(30)
    ]
    orders: dict[str, list[np.ndarray]] = {name: [] for name in HEADLINES}
    for n, draws in ((16, 40), (200, 10)):
        real = fresh_gaps([Generator()], n, 40 if n == 16 else 20, 5)
        keys, real_keys = expected(fresh_gaps(generators, n, draws, 6)), expected(real)
        spread = dict(zip(EXPECTED, real[0].std(axis=0, ddof=1), strict=True))
        scales = {
            m: Yardstick(float(real_keys[m][0]), float(spread.get(m, spread["fid_a"]))) for m in METRICS
        }
        for name, headline in HEADLINES.items():
            orders[name].append(headline(_excess(keys, scales)))
    return {name: float(kendalltau(*pair).statistic) for name, pair in orders.items()}


def calibration(boards: list[Board]) -> dict[str, Any]:
    """P(first) against how often it was so, for all boards and for every kind; and of the winners named."""
    rows = []
    for board in boards:
        scales = yardsticks(board.entrants, METRICS)
        headline = headlines([[entrant] for entrant in board.entrants], FAMILIES)
        truth = HEADLINES["worst family"](_excess(expected(board.fresh), scales))
        rows += [(board.kind, p, t) for p, t in zip(rank_chances(headline)[:, 0], _best(truth), strict=True)]
    kinds, p, t = (
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
    )
    named = p.round(2) >= WINS
    return {
        "boards": len(boards),
        "bins": _bins(p, t),
        "kinds": {kind: _bins(p[kinds == kind], t[kinds == kind]) for kind in KINDS},
        "winners": {"named": int(named.sum()), "right": float(t[named].mean()) if named.any() else None},
    }


def _bins(p: np.ndarray, t: np.ndarray) -> list[dict[str, float]]:
    bins = []
    for low, high in pairwise(BINS):
        inside = (p >= low) & (p < high)
        if inside.any():
            said, was = float(p[inside].mean()), float(t[inside].mean())
            bins.append(
                {"low": low, "high": min(high, 1.0), "cases": int(inside.sum()), "said": said, "was": was}
            )
    return bins


def family_wise(folder: Path) -> dict[str, Any]:
    """How often any two of five equal generators differ in a column: now, and before the correction."""
    rows = [row for chunk in range(CHUNKS) for row in false_differences(folder, chunk, CHUNK, TESTED)]
    result: dict[str, Any] = {"boards": len(rows), "entrants": 5, "samples": 16, "reference": 24}
    for name in TESTED:
        groups = {
            "all": rows,
            "real": [r for r in rows if not r["faulty"]],
            "faulty": [r for r in rows if r["faulty"]],
        }
        result[name] = {
            group: dict(zip(("now", "before"), np.mean([r[name] for r in of], axis=0).tolist(), strict=True))
            for group, of in groups.items()
        }
    return result


def measure(folder: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    chosen, fresh = ([stored_board(folder, *job) for job in plan(first)] for first in (0, FRESH_SEEDS))
    return {
        "command": "python " + " ".join(sys.argv),
        "seeds": {"chosen on": [0, max(BOARDS.values()) - 1], "fresh": FRESH_SEEDS},
        "headlines": compared(fresh),
        "orders_by_n": orders_by_n(),
        "calibration": {"chosen on": calibration(chosen), "fresh": calibration(fresh)},
        "family_wise": family_wise(folder),
        "seconds": round(time.perf_counter() - begun),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps boards")
    parser.add_argument("--only", choices=["boards"], help="make boards and write no results")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.only:
        for first in (0, FRESH_SEEDS):
            for job in plan(first):
                stored_board(arguments.work, *job)
        return
    write_json(Path(__file__).resolve().parent / "results" / "ranking.json", measure(arguments.work))


if __name__ == "__main__":
    main()
