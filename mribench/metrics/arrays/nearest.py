"""Exact nearest neighbours by MS-SSIM: scales 2 to S of all pairs first, then scale 1 of those that can be nearest.

Weights are not negative and, by Cauchy and Schwarz, no factor exceeds 1; so the product over any scales is an upper
bound of the score. Scale 1 costs 85 % of a pair and has the exponent 0.0448, so the other scales' bound is tight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from mribench import processes
from mribench.errors import MribenchError
from mribench.metrics.arrays.pairs import State, Volumes, allot, group_rows, volume_tensor
from mribench.metrics.arrays.similarity import Definition, definition_for
from mribench.metrics.arrays.workers import worker_count, workers
from mribench.runtime import DEFAULT_MEMORY

# How far float32 can lift a factor over 1: four moments, 21 roundings of 6e-8 each, over C2 = 9e-4.
ROUNDING = 6e-3


class Neighbours(NamedTuple):
    """The k most similar volumes of each query, best first."""

    indices: np.ndarray  # [N,k]
    scores: np.ndarray  # [N,k] MS-SSIM
    share: float  # of all pairs, those that needed scale 1


def nearest_neighbours(
    queries: Volumes,
    reference: Volumes,
    k: int,
    definition: Definition | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Neighbours:
    """The `k` volumes of `reference` with the highest MS-SSIM to each query; of equals, the first.

    Always the full matrix's answer. Volumes are `[D,H,W]` in [0,1]; `definition=None` applies the size rule.
    Raises MribenchError for too few volumes, and as `pair_matrix` does. `progress` is told the queries done;
    `memory` bounds the bytes of prepared volumes, on `device`.

    >>> import numpy as np
    >>> from mribench.metrics.arrays.nearest import nearest_neighbours
    >>> reference = np.random.default_rng(0).random((5, 32, 32, 32)).astype(np.float32)
    >>> nearest = nearest_neighbours(reference[[3, 1]], reference, k=1)
    >>> nearest.indices.tolist(), nearest.scores.tolist()
    ([[3], [1]], [[1.0], [1.0]])
    """
    if not 1 <= k <= len(reference):
        raise MribenchError(f"{k} nearest volumes were asked for, but there are {len(reference)}.")
    shape = queries[0].shape
    kernel = definition or definition_for(min(shape))
    kernel.check(shape)
    first = kernel.prepare(volume_tensor(queries, 0, shape, torch.device(device)))
    size = sum(t.nbytes for t in first) + sum(t.nbytes for t in first[len(first) // kernel.scales :])
    del first
    budget = allot(memory, size, shape, min(len(queries), group_rows(device)), 1, worker_count(device))
    found: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}
    with processes.agreement("nearest"), workers(device, budget.workers) as pool:
        for start in processes.divided(range(0, len(queries), budget.rows)):
            stop = min(len(queries), start + budget.rows)
            group = range(start, stop)
            search = _Search(kernel, shape, queries, reference, group, k, torch.device(device), pool)
            found[start] = search.run()
            if progress:
                progress(stop, len(queries))
    parts = [part for _, part in sorted(processes.exchange(found, "nearest").items())]
    indices, scores = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Neighbours(indices, scores, sum(part[2] for part in parts) / (len(queries) * len(reference)))


@dataclass(frozen=True)
class _Search:
    kernel: Definition
    shape: tuple[int, ...]
    queries: Volumes
    reference: Volumes
    group: range
    k: int
    device: torch.device
    pool: ThreadPoolExecutor

    def run(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Indices and scores `[G,k]` of a group of G queries, and the number of pairs that needed scale 1."""
        held = list(self.pool.map(lambda i: self.kernel.prepare(self._volume(self.queries, i)), self.group))
        each = len(held[0]) // self.kernel.scales
        coarse = tuple(torch.cat(tensors) for tensors in zip(*(s[each:] for s in held), strict=True))
        finest = [state[:each] for state in held]
        del held
        factors = self._coarse(coarse)
        del coarse
        bound = factors.prod(axis=0) * (1 + ROUNDING) ** self.kernel.weights[0]
        scores = np.full(bound.shape, -np.inf)
        likely = np.zeros(bound.shape, dtype=bool)
        np.put_along_axis(likely, np.argsort(-bound, axis=1, kind="stable")[:, : self.k], True, axis=1)
        self._finish(finest, factors, scores, likely)
        self._finish(finest, factors, scores, np.isinf(scores) & (bound >= self._worst(scores)))
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
        return order, np.take_along_axis(scores, order, axis=1), int(np.isfinite(scores).sum())

    def _worst(self, scores: np.ndarray) -> np.ndarray:
        """The k-th best score so far, `[G,1]`."""
        worst: np.ndarray = np.partition(scores, -self.k, axis=1)[:, -self.k, None]
        return worst

    def _coarse(self, rows: State) -> np.ndarray:
        """The factors of scales 2 to S of all pairs, `[S-1,G,M]`."""
        factors = np.ones((self.kernel.scales - 1, len(self.group), len(self.reference)))

        def column(index: int) -> None:
            if len(factors):
                pooled = F.avg_pool3d(self._volume(self.reference, index), 2)
                state = self.kernel.prepare(pooled, first=1)
                for scale, x, y in self._scales(rows, state):
                    factors[scale - 1, :, index] = self.kernel.factor(x, y, scale)[:, 0].cpu()

        list(self.pool.map(column, range(len(self.reference))))
        return factors

    def _scales(self, rows: State, columns: State) -> Iterator[tuple[int, State, State]]:
        each = len(rows) // (self.kernel.scales - 1)
        for scale in range(1, self.kernel.scales):
            chosen = slice(each * (scale - 1), each * scale)
            yield scale, rows[chosen], columns[chosen]

    def _finish(self, held: list[State], factors: np.ndarray, scores: np.ndarray, wanted: np.ndarray) -> None:
        """Scale 1 and the score, multiplied in the order of `Definition.compare`, of the wanted pairs."""

        def column(index: int) -> None:
            state = self.kernel.statistics(self._volume(self.reference, index))
            for row in np.flatnonzero(wanted[:, index]):
                score = self.kernel.factor(held[row], state, 0).item()
                for factor in factors[:, row, index]:
                    score *= factor
                scores[row, index] = score

        list(self.pool.map(column, np.flatnonzero(wanted.any(axis=0)).tolist()))

    def _volume(self, volumes: Volumes, index: int) -> torch.Tensor:
        return volume_tensor(volumes, index, self.shape, self.device)
