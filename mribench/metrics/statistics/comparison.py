"""Which of several entrants' scores in one metric differ significantly.

Tests are paired on the shared real volumes and corrected after Holm (1979); entrants that no test separates
share a letter (Piepho 2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import t as student_t

from mribench.metrics.score import Score
from mribench.metrics.statistics.intervals import paired

_LEVEL = 0.05  # family-wise, over all pairs of entrants in one metric
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
