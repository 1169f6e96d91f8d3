"""The row of the table that a perfect generator would have: real volumes of other subjects at the same n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mribench.metrics.metric import Floor, Score
from mribench.reports.rows import Cell, Column


@dataclass(frozen=True)
class FloorRow:
    """One cell a column, empty where the metric has no floor; `how` says which volumes played the generator."""

    cells: tuple[Cell, ...]
    how: str


def floor_row(columns: Sequence[Column], usual: Mapping[str, Score]) -> FloorRow | None:
    """The floors of the usual definitions in table units; None when no score has one."""
    floors = [score.floor for score in usual.values() if score.floor]
    if not floors:
        return None
    cells = tuple(_cell(column, usual.get(column.metric)) for column in columns)
    return FloorRow(cells, "; ".join(dict.fromkeys(floor.how for floor in floors)))


def _cell(column: Column, score: Score | None) -> Cell:
    if score is None or score.floor is None:
        return Cell(column)
    if column.key != "gap":
        return Cell(column, as_score(score, score.floor))
    return Cell(replace(column, key="floor"), as_score(score, _distance(score.floor, score.target or 0.0)))


def as_score(score: Score, floor: Floor) -> Score:
    """The floor in the place of the value."""
    ends = {"value": floor.value, "low": floor.low, "high": floor.high}
    return score.model_copy(update={**ends, "replicates": {}, "floor": None, "p_value": None})


def _distance(floor: Floor, target: float) -> Floor:
    """|floor - target|, its interval folded at 0."""
    low, high = floor.low - target, floor.high - target
    ends = sorted((abs(low), abs(high)))
    inside = low <= 0 <= high
    return floor.model_copy(
        update={
            "value": abs(floor.value - target),
            "low": 0.0 if inside else ends[0],
            "high": ends[1],
        }
    )
