"""Best cells, tie groups, ranks and their odds: of comparable entrants that make whole volumes, controls never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mribench.metrics.statistics.comparison import (
    COULD_BE_FIRST,
    differing,
    mean_ranks,
    rank_chances,
    tie_letters,
)
from mribench.reports.rows import Cell, Column, Row, percent

_Families = Mapping[str, Sequence[Column]]  # ranking family -> its columns


def _families(rows: Sequence[Row]) -> _Families:
    """In the order of the columns. A gap is a second view of a score and stays out."""
    families: dict[str, list[Column]] = {}
    for cell in rows[0].cells if rows else ():
        if cell.column.family and not cell.column.gap:
            families.setdefault(cell.column.family, []).append(cell.column)
    return families


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark, per ranked column, the best cell, the tie groups and what shares one with the best.

    Alone nobody is best, and neither where all score exactly the same.
    """
    marks: dict[str, dict[str, Cell]] = {row.entrant.name: {} for row in rows}
    columns = [cell.column for cell in rows[0].cells] if rows else []
    for column in (column for column in columns if column.family):
        cells = {row.entrant.name: row.cell(column.key) for row in rows if row.whole}
        for name, cell in _compared(cells).items():
            marks[name][column.key] = cell
    return [
        replace(row, cells=tuple(marks[row.entrant.name].get(c.column.key, c) for c in row.cells))
        for row in rows
    ]


def _compared(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Those of a column's cells whose scores are ranked, marked; none when fewer than two."""
    scores = {name: cell.score for name, cell in cells.items() if cell.ranked and cell.score}
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
    families = _families(rows)
    counting = {
        family: columns
        for family, columns in families.items()
        if 2 * sum(_has(row, columns) for row in candidates) > len(candidates)
    }
    ranked = [row for row in candidates if counting and all(_has(row, c) for c in counting.values())]
    if len(ranked) < 2:
        return sorted(rows, key=_order), []
    places = dict(zip((row.entrant.name for row in ranked), _places(ranked, counting), strict=True))
    best = min(mean for mean, _ in places.values())
    done = [
        replace(row, rank=mean, best=mean == best, chances=chances)
        for row in ranked
        for mean, chances in [places[row.entrant.name]]
    ]
    done += [_unranked(row, counting) for row in rows if row.entrant.name not in places]
    remarks = [_first(done)]
    left_out = [_title(columns) for family, columns in families.items() if family not in counting]
    if left_out:
        remarks.append(f"Not part of the mean rank, because most models lack it: {', '.join(left_out)}.")
    return sorted(done, key=_order), remarks


def _places(rows: Sequence[Row], families: _Families) -> list[tuple[float, tuple[float, ...]]]:
    """Mean rank of each row, and its probability of every rank."""
    scores = [row.entrant.scores for row in rows]
    metrics = [[column.metric for column in columns] for columns in families.values()]
    means = mean_ranks(lambda m: np.array([of_row[m].rank_key for of_row in scores]), metrics)
    chances = rank_chances(scores, metrics)
    return [
        (float(mean), tuple(float(p) for p in of_row)) for mean, of_row in zip(means, chances, strict=True)
    ]


def _title(columns: Sequence[Column]) -> str:
    return columns[0].family_title


def _first(rows: Sequence[Row]) -> str:
    """Who could be first, the likeliest first: whether the order of the mean ranks means anything."""
    could = sorted((row for row in rows if row.could_be_first), key=lambda row: -row.chances[0])
    odds = ", ".join(f"{row.entrant.label} {percent(row.chances[0])}" for row in could)
    sure = "Only this model could" if len(could) == 1 else "These models could, as far as the scores tell,"
    return f"{sure} have the best mean rank (probability at least {percent(COULD_BE_FIRST)}): {odds}."


def _has(row: Row, columns: Sequence[Column]) -> bool:
    return all(row.cell(column.key).ranked for column in columns)


def _unranked(row: Row, counting: _Families) -> Row:
    lacking = [_title(columns) for columns in counting.values() if not _has(row, columns)]
    return replace(
        row, unranked=f"no mean rank without a comparable {', '.join(lacking)}" if lacking else "not ranked"
    )


def _order(row: Row) -> tuple[int, float, str]:
    """Ranked, then scored, then without any score; by name within."""
    group = 0 if row.rank is not None else 1 if row.entrant.scores else 2
    return group, row.rank or 0.0, row.entrant.name
