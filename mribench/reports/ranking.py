"""Best cells, ties and mean ranks: among comparable entrants that make whole volumes, controls never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from mribench.metrics import FAMILIES
from mribench.metrics.metric import Score, difference
from mribench.reports.rows import COLUMNS, FAMILY_TITLES, Cell, Column, Row

# MS-SSIM and its gap are two views of one score.
RANKED: dict[str, tuple[Column, ...]] = {
    family: tuple(column for column in COLUMNS if column.family == family and column.key != "gap")
    for family in FAMILIES
}


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark, per ranked column, the best cell and those not distinguishable from it.

    Alone nobody is best, and neither where all score exactly the same.
    """
    marks: dict[tuple[str, str], tuple[bool, bool]] = {}
    for column in COLUMNS:
        scores = {
            row.entrant.name: score
            for row in rows
            if row.whole and (score := _comparable(row.cell(column.key))) is not None
        }
        if column.family and len({score.loss for score in scores.values()}) > 1:
            best = min(scores.values(), key=lambda score: score.loss)
            for name, score in scores.items():
                marks[name, column.key] = (score.loss == best.loss, _tied(score, best))
    return [replace(row, cells=tuple(_marked(cell, row, marks) for cell in row.cells)) for row in rows]


def _comparable(cell: Cell) -> Score | None:
    return cell.score if cell.comparable else None


def _marked(cell: Cell, row: Row, marks: Mapping[tuple[str, str], tuple[bool, bool]]) -> Cell:
    best, tied = marks.get((row.entrant.name, cell.column.key), (False, False))
    return replace(cell, best=best, tied=tied and not best)


def _tied(score: Score, best: Score) -> bool:
    if score is best or score.version != best.version or score.n != best.n:
        return score is best
    _, low, high = difference(score, best)
    return low <= 0 <= high


def rank(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows with their mean rank, best first, and sentences about what the ranks leave out.

    A family counts when more than half of the whole-volume models have all its scores comparably; an
    entrant that lacks a family that counts gets no rank, because a mean over fewer families is no mean rank.
    """
    candidates = [row for row in rows if row.whole and row.entrant.scores and not row.entrant.doubts]
    counting = [f for f in FAMILIES if 2 * sum(_has(row, f) for row in candidates) > len(candidates)]
    ranked = [row for row in candidates if counting and all(_has(row, family) for family in counting)]
    if len(ranked) < 2:
        return sorted(rows, key=_order), []
    means = np.mean([_family_ranks(ranked, family) for family in counting], axis=0)
    place = {row.entrant.name: float(mean) for row, mean in zip(ranked, means, strict=True)}
    done = [_placed(row, place, counting) for row in rows]
    left_out = [FAMILY_TITLES[f] for f in FAMILIES if f not in counting]
    remarks = (
        [f"Not part of the mean rank, because most models lack it: {', '.join(left_out)}."]
        if left_out
        else []
    )
    return sorted(done, key=_order), remarks


def _has(row: Row, family: str) -> bool:
    return all(row.cell(column.key).comparable for column in RANKED[family])


def _family_ranks(rows: Sequence[Row], family: str) -> np.ndarray:
    """`[N]`: mean over the family's columns of the ranks by loss, 1 = best, equal values share theirs."""
    losses = [[_loss(row.cell(column.key)) for row in rows] for column in RANKED[family]]
    return np.mean([rankdata(column) for column in losses], axis=0)


def _loss(cell: Cell) -> float:
    assert cell.score is not None
    return cell.score.loss


def _placed(row: Row, place: Mapping[str, float], counting: Sequence[str]) -> Row:
    name = row.entrant.name
    if name in place:
        return replace(row, rank=place[name], best=place[name] == min(place.values()))
    lacking = [FAMILY_TITLES[family] for family in counting if not _has(row, family)]
    return replace(
        row, unranked=f"no mean rank without a comparable {', '.join(lacking)}" if lacking else "not ranked"
    )


def _order(row: Row) -> tuple[int, float, str]:
    """Ranked, then scored, then without any score; by name within."""
    group = 0 if row.rank is not None else 1 if row.entrant.scores else 2
    return group, row.rank or 0.0, row.entrant.name
