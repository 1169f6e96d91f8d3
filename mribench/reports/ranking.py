"""Best cells, tie groups, ranks and their odds: of comparable entrants that make whole volumes, controls never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mribench.metrics import FAMILIES
from mribench.metrics.statistics.comparison import (
    COULD_BE_FIRST,
    differing,
    mean_ranks,
    rank_chances,
    tie_letters,
)
from mribench.reports.rows import COLUMNS, FAMILY_TITLES, Cell, Column, Row, percent

# MS-SSIM and its gap are two views of one score.
RANKED: dict[str, tuple[Column, ...]] = {
    family: tuple(column for column in COLUMNS if column.family == family and column.key != "gap")
    for family in FAMILIES
}


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark, per ranked column, the best cell, the tie groups and what shares one with the best.

    Alone nobody is best, and neither where all score exactly the same.
    """
    marks: dict[str, dict[str, Cell]] = {row.entrant.name: {} for row in rows}
    for column in COLUMNS:
        cells = {row.entrant.name: row.cell(column.key) for row in rows if row.whole}
        for name, cell in _compared(cells if column.family else {}).items():
            marks[name][column.key] = cell
    return [
        replace(row, cells=tuple(marks[row.entrant.name].get(c.column.key, c) for c in row.cells))
        for row in rows
    ]


def _compared(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """The comparable ones of a column's cells, marked; none when fewer than two."""
    scores = {name: cell.score for name, cell in cells.items() if cell.comparable and cell.score}
    if len(scores) < 2:
        return {}
    rank_keys = [score.rank_key for score in scores.values()]
    different = differing(list(scores.values()))
    letters = tie_letters(rank_keys, different)
    best, alike = int(np.argmin(rank_keys)), len(set(rank_keys)) == 1
    return {
        name: replace(
            cells[name],
            group=letters[i],
            best=rank_keys[i] == rank_keys[best] and not alike,
            tied=rank_keys[i] != rank_keys[best] and not different[i, best],
        )
        for i, name in enumerate(scores)
    }


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
    families = [[column.metric for column in RANKED[family]] for family in counting]
    scores = [row.entrant.scores for row in ranked]
    means = mean_ranks(lambda m: np.array([one[m].rank_key for one in scores]), families)
    chances = rank_chances(scores, families)
    place = {row.entrant.name: i for i, row in enumerate(ranked)}
    done = [
        replace(
            row,
            rank=float(means[place[row.entrant.name]]),
            best=means[place[row.entrant.name]] == min(means),
            chances=tuple(float(p) for p in chances[place[row.entrant.name]]),
        )
        if row.entrant.name in place
        else _unranked(row, counting)
        for row in rows
    ]
    left_out = [FAMILY_TITLES[f] for f in FAMILIES if f not in counting]
    remarks = [_first(done)]
    if left_out:
        remarks.append(f"Not part of the mean rank, because most models lack it: {', '.join(left_out)}.")
    return sorted(done, key=_order), remarks


def _first(rows: Sequence[Row]) -> str:
    """Who could be first, the likeliest first: whether the order of the mean ranks means anything."""
    could = sorted((row for row in rows if row.could_be_first), key=lambda row: -row.chances[0])
    odds = ", ".join(f"{row.entrant.label} {percent(row.chances[0])}" for row in could)
    sure = "Only this model could" if len(could) == 1 else "These models could, as far as the scores tell,"
    return f"{sure} have the best mean rank (probability at least {percent(COULD_BE_FIRST)}): {odds}."


def _has(row: Row, family: str) -> bool:
    return all(row.cell(column.key).comparable for column in RANKED[family])


def _unranked(row: Row, counting: Sequence[str]) -> Row:
    lacking = [FAMILY_TITLES[family] for family in counting if not _has(row, family)]
    return replace(
        row, unranked=f"no mean rank without a comparable {', '.join(lacking)}" if lacking else "not ranked"
    )


def _order(row: Row) -> tuple[int, float, str]:
    """Ranked, then scored, then without any score; by name within."""
    group = 0 if row.rank is not None else 1 if row.entrant.scores else 2
    return group, row.rank or 0.0, row.entrant.name
