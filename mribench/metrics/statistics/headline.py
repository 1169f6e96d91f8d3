"""The one number that entrants are ranked by, and the probability that an entrant is the best by it.

The excess of a score is its distance from the real baseline in standard deviations of the real baseline; the excess of
a family is the mean over its metrics. The headline is the largest excess of any family: by how much the samples differ
from real volumes where they differ most. benchmarks/ranking.py compares it with others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata
from scipy.stats import t as student_t

from mribench.metrics.score import Score
from mribench.metrics.statistics.jackknife import deviations, half_width

Families = Sequence[Sequence[str]]  # metrics of every ranked family
_Scores = Mapping[str, Score]
_DRAWS = 20_000
_SHRINKAGES = np.append((np.arange(40) + 0.5) / 40, 1.0)  # the last: all entrants are equally good
_EQUAL = 1 / 3  # its probability beforehand, chosen by benchmarks/ranking.py
_NORMAL_95 = half_width(1.0, math.inf)


class Yardstick(NamedTuple):
    """Of one metric: the rank key of real volumes, and the standard deviation that differences are counted in."""

    real: float
    unit: float

    def excess(self, rank_key: float) -> float:
        return (rank_key - self.real) / self.unit


def yardsticks(runs: Sequence[_Scores], metrics: Sequence[str]) -> dict[str, Yardstick]:
    """From the real baseline; without one from the target or the best rank key, and the runs' own median error."""
    return {metric: _yardstick([run[metric] for run in runs]) for metric in metrics}


def _yardstick(scores: Sequence[Score]) -> Yardstick:
    for score in scores:
        real = score.real_baseline
        if real is not None and real.high > real.low:
            key = score.model_copy(update={"value": real.value}).rank_key
            return Yardstick(key, (real.high - real.low) / (2 * _NORMAL_95))
    keys = [score.rank_key for score in scores]
    error = float(
        np.median([math.sqrt(sum((d @ d) for d in _deviations(score).values())) for score in scores])
    )
    real_key = 0.0 if scores[0].better == "match" else min(keys)
    return Yardstick(real_key, error or float(np.std(keys)) or 1.0)


def _deviations(score: Score) -> dict[str, np.ndarray]:
    """Per set the jackknife deviations of the rank key; those of the samples without what is counted twice."""
    changes = {}
    for side in score.replicates:
        change = deviations(score.rank_key, score.rank_key_replicates(side), score.n[side])
        if side == "samples" and (variance := float(change @ change)) > 0:
            once = max(variance - score.second_order, score.least_variance)
            change = change * math.sqrt(once / variance)
        changes[side] = change
    return changes


@dataclass(frozen=True)
class Headlines:
    """`values` `[K]` of K entrants, lower is better, and their error `covariance` `[K,K]`.

    `families` `[K]` are the numbers of the families that they come from.
    """

    values: np.ndarray
    covariance: np.ndarray
    families: np.ndarray

    def of(self, chosen: np.ndarray) -> Headlines:
        """Those of the entrants with these numbers."""
        return Headlines(self.values[chosen], self.covariance[np.ix_(chosen, chosen)], self.families[chosen])

    def better(self, i: int, j: int) -> float:
        """The probability that entrant i is better than entrant j, of these two scores alone."""
        c = self.covariance
        variance = c[i, i] + c[j, j] - 2 * c[i, j]
        delta = self.values[j] - self.values[i]
        return float(norm.cdf(delta / math.sqrt(variance))) if variance > 0 else (np.sign(delta) + 1) / 2


def headlines(entrants: Sequence[Sequence[_Scores]], families: Families) -> Headlines:
    """Of entrants given as their runs (one, or several trainings of one model that differ in the seed).

    The error covers the samples and the real volumes, which all entrants share, and the seed: as soon as a model has
    several trainings, the variance between its trainings stands for that of every model.
    """
    runs = [run for entrant in entrants for run in entrant]
    owner = np.repeat(np.arange(len(entrants)), [len(entrant) for entrant in entrants])
    mean = (owner == np.arange(len(entrants))[:, None]) / np.bincount(owner)[:, None]
    scales = yardsticks(runs, [m for family in families for m in family])
    excess = np.array([[_family_excess(run, family, scales) for family in families] for run in runs])
    shared, own = _covariances(runs, [families[k] for k in excess.argmax(axis=1)], scales)
    values = excess.max(axis=1)
    covariance = mean @ (shared + own) @ mean.T
    covariance += np.diag(_seed_variance(values, np.diag(own), owner) / np.bincount(owner))
    return Headlines(mean @ values, covariance, (mean @ excess).argmax(axis=1))


def _family_excess(run: _Scores, family: Sequence[str], scales: Mapping[str, Yardstick]) -> float:
    return float(np.mean([scales[metric].excess(run[metric].rank_key) for metric in family]))


def _covariances(
    runs: Sequence[_Scores], decisive: Sequence[Sequence[str]], scales: Mapping[str, Yardstick]
) -> tuple[np.ndarray, np.ndarray]:
    """`[R,R]` of the excesses of every run's decisive family: by the real volumes, and by the samples.

    Groups of volumes left out are the same for all metrics of one run and, of real volumes, for all runs, so what is
    correlated stays correlated.
    """
    sides: dict[tuple[str, str, int], np.ndarray] = {}
    for r, (run, family) in enumerate(zip(runs, decisive, strict=True)):
        for metric in family:
            score, slope = run[metric], 1 / (len(family) * scales[metric].unit)
            for side, change in _deviations(score).items():
                owner = score.digests.get("samples", str(r)) if side == "samples" else ""
                moved = sides.setdefault((side, owner, len(change)), np.zeros((len(runs), len(change))))
                moved[r] += slope * change
    parts = {True: np.zeros((len(runs),) * 2), False: np.zeros((len(runs),) * 2)}
    for (side, *_), moved in sides.items():
        parts[side == "samples"] += moved @ moved.T
    return parts[False], parts[True]


def _seed_variance(values: np.ndarray, own: np.ndarray, owner: np.ndarray) -> float:
    """Variance between trainings of one model beyond that of their samples; 0 when no model has several.

    It comes from few trainings, so it is raised by the square of Student's over the normal one-sigma quantile.
    """
    several = [values[owner == k] for k in np.unique(owner) if (owner == k).sum() > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return 0.0
    between = sum(float(((group - group.mean()) ** 2).sum()) for group in several) / freedom
    sampled = np.mean([own[owner == k].mean() for k in np.unique(owner) if (owner == k).sum() > 1])
    one_sigma = norm.cdf(1)
    return max(0.0, between - float(sampled)) * float(student_t.ppf(one_sigma, freedom)) ** 2


def rank_chances(headline: Headlines, draws: int = _DRAWS) -> np.ndarray:
    """`[K,K]`: the probability that entrant k takes rank 1, 2, ... by the true headline.

    True headlines are taken as normal about a common mean, so that those of entrants that the errors do not separate
    are drawn together. How strongly is not known: beforehand all are equal with the probability 1/3, and else the
    shrinkage is uniform between 0 and 1 (Daniels, Canadian Journal of Statistics 27, 1999); the likelihood weighs.
    Entrants of equal headline share places.
    """
    values, covariance = headline.values, headline.covariance
    rng = np.random.default_rng(0)
    posteriors = [_posterior(values, covariance, shrinkage) for shrinkage in _SHRINKAGES]
    weights = np.exp([p.evidence - max(q.evidence for q in posteriors) for p in posteriors])
    weights *= np.append(np.full(len(posteriors) - 1, (1 - _EQUAL) / (len(posteriors) - 1)), _EQUAL)
    counts = rng.multinomial(draws, weights / weights.sum())
    drawn = np.concatenate([p.draw(rng, count) for p, count in zip(posteriors, counts, strict=True) if count])
    drawn = drawn.round(9)  # equal but for rounding
    first = rankdata(drawn, "min", axis=-1).astype(int)  # of the places that equal entrants share
    last = rankdata(drawn, "max", axis=-1).astype(int)
    places = np.arange(1, len(values) + 1)
    shares = ((first[..., None] <= places) & (places <= last[..., None])) / (last - first + 1)[..., None]
    return np.asarray(shares.mean(axis=0))


class _Posterior(NamedTuple):
    """Of the true headlines at one shrinkage: mean, a root of the covariance, and the log evidence."""

    mean: np.ndarray
    root: np.ndarray
    evidence: float

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        drawn: np.ndarray = self.mean + rng.standard_normal((count, self.root.shape[1])) @ self.root.T
        return drawn


def _posterior(values: np.ndarray, covariance: np.ndarray, shrinkage: float) -> _Posterior:
    """With a flat prior of the common mean: only the contrasts of the values count.

    In an orthonormal basis of the contrasts, the error is E and the prior tau^2 I with tau^2 = mean error x
    (1 - shrinkage) / shrinkage.
    """
    k = len(values)
    basis = np.linalg.svd(np.eye(k) - 1 / k)[0][:, : k - 1]
    error = basis.T @ covariance @ basis
    seen = basis.T @ values
    typical = max(
        float(np.trace(error)) / (k - 1), 1e-9 * float(seen @ seen), 1e-30
    )  # 0: no errors are known
    prior = typical * (1 - shrinkage) / shrinkage * np.eye(k - 1)
    total = error + prior + 1e-12 * typical * np.eye(k - 1)
    gain = np.linalg.solve(total, prior).T
    spread = prior - gain @ prior
    eigenvalues, vectors = np.linalg.eigh((spread + spread.T) / 2)
    root = basis @ vectors * np.sqrt(np.maximum(eigenvalues, 0))
    _, determinant = np.linalg.slogdet(total)
    evidence = -0.5 * (determinant + float(seen @ np.linalg.solve(total, seen)))
    return _Posterior(basis @ gain @ seen, root, evidence)
