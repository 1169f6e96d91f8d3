"""Leaderboards of simulated generators whose true scores are known, for benchmarks/ranking.py.

Features are Gaussian with eigenvalues 1 / i, in three correlated views. A generator has three faults: a shifted mean,
another spread, and white noise. Scores come from the package's own metrics; MS-SSIM is a smooth kernel of one view.
The expected value of every score is a mean over fresh draws that all generators of a board share.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mribench.data.volume_set import VIEWS
from mribench.files import atomic, read_json, write_json
from mribench.metrics import get_metric, scoring
from mribench.metrics.arrays.distances import squared_distances
from mribench.metrics.score import RealBaseline, Score
from mribench.metrics.statistics.comparison import differing

D = 64
DEVIATIONS = 10 * np.arange(1, D + 1) ** -0.5 / math.sqrt((1 / np.arange(1, D + 1)).sum())
METRICS = ("ms_ssim", "mmd", "fid_a", "fid_c")
EXPECTED = ("ms_ssim", "mmd", "fid_a")  # all views have one law
REFERENCE = {16: 24, 24: 24, 60: 60, 200: 100}  # samples -> reference volumes
FRESH = {16: 60, 24: 60, 60: 40, 200: 20}  # samples -> draws that an expected value averages
KINDS = ("equal", "close", "far", "mixed")

# The permutation test takes no part in ranks, only the fact that there is one.
scoring._p_value = lambda metric, prepared: 1.0 if metric.exchangeable(prepared) else None


class Generator(NamedTuple):
    """Doses of three faults; the real law is (0, 1, 0)."""

    shift: float = 0.0
    spread: float = 1.0
    noise: float = 0.0

    def draw(self, rng: np.random.Generator, n: int) -> list[np.ndarray]:
        """Features of n samples, `[n,D]` per view."""
        common, views = rng.normal(size=(n, D)), []
        for _ in VIEWS:
            z = (0.7 * common + math.sqrt(0.51) * rng.normal(size=(n, D))) * DEVIATIONS * self.spread
            z += self.noise * rng.normal(size=(n, D)) * DEVIATIONS.mean()
            views.append(z + self.shift * DEVIATIONS + 10 / math.sqrt(D))
        return views


@dataclass(frozen=True)
class _Volumes:
    count: int
    digest: str
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count


class Features:
    """The arrays of two sets that have features and no volumes."""

    slab, similarity, full_depth, shape = None, "smooth kernel of features", 1, (1, 1, 1)

    def __init__(self, reference: list[np.ndarray], samples: list[np.ndarray], owner: str = "") -> None:
        self._of = {"reference": reference, "samples": samples}
        self.sets = {name: _Volumes(len(views[0]), f"{name}{owner}") for name, views in self._of.items()}

    def positions(self, view: str) -> tuple[int, ...]:
        return (0,)

    def features(self, name: str, view: str) -> np.ndarray:
        return self._of[name][list(VIEWS).index(view)][:, None]

    def distances(self, view: str) -> np.ndarray:
        both = [self.features(name, view)[:, 0] for name in ("reference", "samples")]
        return squared_distances(np.concatenate(both))

    def pairs(self, a: str, b: str, kernel: object = None) -> np.ndarray:
        return np.exp(-squared_distances(self._of[a][0]) / 400)

    def feature_definition(self, *views: str) -> dict[str, str]:
        return {"features": "simulated"}


def scores(
    reference: list[np.ndarray], samples: list[np.ndarray], owner: str, metrics: tuple[str, ...] = METRICS
) -> dict[str, Score]:
    """As the package scores them."""
    arrays = Features(reference, samples, owner)
    return {name: scoring.score(get_metric(name), arrays) for name in metrics}  # type: ignore[arg-type]


def _gaps(reference: list[np.ndarray], samples: list[np.ndarray]) -> list[float]:
    """Of every metric the value less its target."""
    arrays, gaps = Features(reference, samples), []
    keep = {name: np.arange(len(volumes)) for name, volumes in arrays.sets.items()}
    for name in EXPECTED:
        metric = get_metric(name)
        gathered = metric.gather(arrays)  # type: ignore[arg-type]
        gaps.append(metric.value(gathered, keep) - (metric.target(gathered, keep) or 0.0))
    return gaps


def fresh_gaps(generators: list[Generator], n: int, draws: int, seed: int) -> np.ndarray:
    """`[K,draws,EXPECTED]`; all generators have the same random numbers in one draw."""
    if len(set(generators)) == 1:
        return np.repeat(_fresh_gaps(generators[:1], n, draws, seed), len(generators), axis=0)
    return _fresh_gaps(generators, n, draws, seed)


def _fresh_gaps(generators: list[Generator], n: int, draws: int, seed: int) -> np.ndarray:
    gaps = np.empty((len(generators), draws, len(EXPECTED)))
    for draw in range(draws):
        reference = Generator().draw(np.random.default_rng([seed, draw, 0]), REFERENCE[n])
        for k, generator in enumerate(generators):
            gaps[k, draw] = _gaps(reference, generator.draw(np.random.default_rng([seed, draw, 1]), n))
    return gaps


@dataclass(frozen=True)
class Board:
    """One leaderboard: the scores of K entrants, and `fresh` gaps `[K,draws,EXPECTED]` of the same generators."""

    kind: str
    n: int
    generators: list[Generator]
    entrants: list[dict[str, Score]]
    fresh: np.ndarray = field(repr=False)


def _generators(rng: np.random.Generator, kind: str, k: int) -> list[Generator]:
    def faults(width: float) -> Generator:
        shift, spread, noise = rng.uniform(-1, 1, 3) * width
        return Generator(abs(0.4 + 0.6 * shift), 0.9 + 0.4 * spread, abs(0.4 + 0.6 * noise))

    if kind == "equal":
        return [Generator() if rng.random() < 0.4 else faults(1.0)] * k
    if kind == "mixed":
        return [faults(0.15) for _ in range(k - k // 2)] + [faults(1.5) for _ in range(k // 2)]
    return [faults({"close": 0.2, "far": 1.5}[kind]) for _ in range(k)]


def make_board(seed: int, kind: str, n: int) -> Board:
    """The board of that seed."""
    rng = np.random.default_rng([seed, KINDS.index(kind), n])
    generators = _generators(rng, kind, int(rng.choice([3, 5])))
    reference = Generator().draw(rng, REFERENCE[n])
    real = scores(reference, Generator().draw(rng, n), "real")
    baselines = {
        name: RealBaseline(value=s.value, low=s.low, high=s.high, n=n, how="fresh real features")
        for name, s in real.items()
    }
    entrants = [
        {
            name: score.model_copy(update={"real_baseline": baselines[name]})
            for name, score in scores(reference, generator.draw(rng, n), str(k)).items()
        }
        for k, generator in enumerate(generators)
    ]
    return Board(kind, n, generators, entrants, fresh_gaps(generators, n, FRESH[n], seed))


def stored_board(folder: Path, seed: int, kind: str, n: int) -> Board:
    """The same, from the folder where it is there."""
    path = folder / f"{kind}-{n}-{seed}.pickle"
    if not path.exists():
        with atomic(path) as fresh:
            fresh.write_bytes(pickle.dumps(make_board(seed, kind, n)))
    board: Board = pickle.loads(path.read_bytes())
    return board


def false_differences(
    folder: Path, chunk: int, boards: int, metrics: tuple[str, ...]
) -> list[dict[str, object]]:
    """Boards of five equal generators, every other one faulty: which columns show a difference, as now and before.

    "before" is without the correction for what the jackknife counts twice. Kept in the folder, chunk by chunk.
    """
    path = folder / f"equal-{chunk}.json"
    if not path.exists():
        rows = [_false_difference(chunk * boards + i, metrics) for i in range(boards)]
        write_json(path, rows)
    rows = read_json(path)
    return rows


def _false_difference(seed: int, metrics: tuple[str, ...]) -> dict[str, object]:
    rng = np.random.default_rng([seed, 99])
    generator = Generator() if seed % 2 else Generator(0.6, 0.8, 0.3)
    reference = Generator().draw(rng, REFERENCE[16])
    entrants = [scores(reference, generator.draw(rng, 16), str(k), metrics) for k in range(5)]
    row: dict[str, object] = {"faulty": seed % 2 == 0}
    for name in metrics:
        column = [entrant[name] for entrant in entrants]
        before = [score.model_copy(update={"second_order": 0.0}) for score in column]
        row[name] = [bool(differing(of).any()) for of in (column, before)]
    return row
