"""Several entrants at once: which scores differ significantly, and the probability of every rank.

Tests are paired on the shared real volumes and corrected after Holm (1979); entrants that no test separates
share a letter (Piepho 2004). Probabilities of ranks come from one joint normal of all entrants' scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student_t

from mribench.metrics.score import Score
from mribench.metrics.statistics.intervals import paired
from mribench.metrics.statistics.jackknife import deviations

_LEVEL = 0.05  # family-wise, over all pairs of entrants in one metric
_DRAWS = 20_000
COULD_BE_FIRST = 0.05  # a smaller probability of rank 1 counts as none
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def p_value(a: Score, b: Score) -> float:
    """Two-sided p that the two entrants' rank keys are equal; 1 when nothing differs at all."""
    delta, variance, freedom = paired(a, b)
    if delta == 0:
        return 1.0
    if variance == 0:
        return 0.0
    return float(2 * student_t.sf(abs(delta) / math.sqrt(variance), freedom))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values in the order given: reject where one is below the family-wise level.

    The i-th smallest of m is multiplied by m - i + 1 and is at least as large as the one before (Holm 1979).
    """
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    steps = np.minimum(1, np.maximum.accumulate(np.asarray(p, dtype=float)[order] * factors))
    adjusted = np.empty(len(p))
    adjusted[order] = steps
    return [float(x) for x in adjusted]


def differing(scores: Sequence[Score], level: float = _LEVEL) -> np.ndarray:
    """`[K,K]` bool: which of K entrants' scores in one metric differ, after Holm over all their pairs."""
    pairs = list(combinations(range(len(scores)), 2))
    adjusted = holm([p_value(scores[i], scores[j]) for i, j in pairs])
    matrix = np.zeros((len(scores), len(scores)), dtype=bool)
    for (i, j), p in zip(pairs, adjusted, strict=True):
        matrix[i, j] = matrix[j, i] = p < level
    return matrix


def tie_letters(rank_keys: Sequence[float], different: np.ndarray) -> list[str]:
    """Letters such that two of K entrants share one if and only if they do not differ; "a" for the best.

    Insert and absorb (Piepho, Journal of Computational and Graphical Statistics 13, 2004): every pair that
    differs splits the groups that hold both, and a group within another is dropped.
    """
    place = {int(entrant): rank for rank, entrant in enumerate(np.argsort(rank_keys, kind="stable"))}
    groups = [frozenset(place)]
    for i, j in zip(*np.nonzero(np.triu(different)), strict=True):
        pair = {int(i), int(j)}
        split = {group - {entrant} for group in groups if pair <= group for entrant in pair}
        refined = {group for group in groups if not pair <= group} | split
        groups = [group for group in refined if not any(group < other for other in refined)]
    groups.sort(key=lambda group: sorted(place[entrant] for entrant in group))
    return [
        "".join(_letter(n) for n, group in enumerate(groups) if k in group) for k in range(len(rank_keys))
    ]


def _letter(number: int) -> str:
    """ "a" to "z", then "a1" to "z1", and so on."""
    again, letter = divmod(number, len(_ALPHABET))
    return f"{_ALPHABET[letter]}{again or ''}"


def mean_ranks(rank_keys: Callable[[str], np.ndarray], families: Sequence[Sequence[str]]) -> np.ndarray:
    """`[...,K]`: per family the mean of the ranks by its metrics (`rank_keys` of one: `[...,K]`), then their mean.

    1 = lowest rank key; equal rank keys share their mean rank; every family has weight 1.
    """
    return np.mean(
        [np.mean([rankdata(rank_keys(m), axis=-1) for m in family], axis=0) for family in families], axis=0
    )


def rank_chances(
    entrants: Sequence[Mapping[str, Score]], families: Sequence[Sequence[str]], draws: int = _DRAWS
) -> np.ndarray:
    """`[K,K]`: the probability that entrant k (its scores by metric) takes rank 1, 2, ... by `mean_ranks`.

    Values are drawn from their joint normal. Groups of volumes left out are the same for all metrics of one
    entrant and, on the real side, for all entrants: so values that are correlated stay correlated in every draw.
    Entrants of equal mean rank share their places equally, so rows and columns sum to 1.
    """
    gaps = _draw_gaps(entrants, [m for family in families for m in family], draws)
    drawn = mean_ranks(
        lambda m: np.stack([_rank_key(e[m], gaps[k, m]) for k, e in enumerate(entrants)], -1), families
    )
    first = rankdata(drawn, "min", axis=-1).astype(int)  # of the places that equal entrants share
    last = rankdata(drawn, "max", axis=-1).astype(int)
    places = np.arange(1, len(entrants) + 1)
    shares = ((first[..., None] <= places) & (places <= last[..., None])) / (last - first + 1)[..., None]
    return np.asarray(shares.mean(axis=0))


def _draw_gaps(
    entrants: Sequence[Mapping[str, Score]], metrics: Sequence[str], draws: int
) -> dict[tuple[int, str], np.ndarray]:
    """Draws `[draws]` of every entrant's gap in every metric.

    With D the deviations per group, D z of independent standard normal z has the covariance D D^T, whatever
    its rank: one z per group and draw replaces a factorisation.
    """
    rng = np.random.default_rng(0)
    normals: dict[tuple[str, str, int], np.ndarray] = {}
    gaps = {}
    for k, scores in enumerate(entrants):
        for metric in metrics:
            score = scores[metric]
            total = np.full(draws, score.gap)
            for side, replicates in score.replicates.items():
                # Samples are an entrant's own, unless two entrants have the very same ones.
                owner = score.digests.get("samples", str(k)) if side == "samples" else ""
                key = (side, owner, len(replicates))
                if key not in normals:
                    normals[key] = rng.standard_normal((draws, len(replicates)))
                change = _gap_deviations(score, side)
                total += normals[key] @ change
                if side == "samples" and (lacking := score.least_variance - float(change @ change)) > 0:
                    total += math.sqrt(lacking) * rng.standard_normal(draws)
            gaps[k, metric] = total
    return gaps


def _gap_deviations(score: Score, side: str) -> np.ndarray:
    if side in score.target_sides:
        return -deviations(score.target or 0.0, score.replicates[side], score.n[side])
    return deviations(score.value, score.replicates[side], score.n[side])


def _rank_key(score: Score, gaps: np.ndarray) -> np.ndarray:
    """As `Score.rank_key`, of drawn gaps (without a target, of values)."""
    return np.abs(gaps) if score.better == "match" else gaps if score.better == "lower" else -gaps
