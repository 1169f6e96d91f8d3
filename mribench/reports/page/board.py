"""The leaderboard as the page shows it: groups of columns that fold, and a mark in every cell that has an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mribench.reports.grid import Table, TableCell, TableColumn, TableRow
from mribench.reports.page.intervals import limits

_WIDTH = 72  # of a mark, in pixels
_FIRST, _UNRANKED, _COSTS = "Rank", "Not ranked", "Costs"


@dataclass(frozen=True)
class Mark:
    """A value, its interval and the real baseline on the axis of a column, in pixels from the left.

    `beyond` is "left" or "right" where the value is off the axis.
    """

    value: float
    low: float
    high: float
    real: tuple[float, float] | None
    target: float | None
    beyond: str = ""


@dataclass(frozen=True)
class BoardColumn:
    """A column of the table, the number of its group, and the ends of the axis of its marks."""

    shown: TableColumn
    group: int
    ends: tuple[float, float] | None
    real: tuple[float, ...]

    def mark(self, cell: TableCell) -> Mark | None:
        """None for a cell without an interval."""
        if self.ends is None or len(cell.values) < 3:
            return None
        value, low, high = cell.values
        first, last = self.ends
        beyond = "left" if value < first else "right" if value > last else ""
        target = None if self.shown.target is None or self.shown.gap else self._at(self.shown.target)
        real = (self._at(self.real[1]), self._at(self.real[2])) if self.real else None
        return Mark(self._at(value), self._at(low), self._at(high), real, target, beyond)

    def _at(self, value: float) -> float:
        first, last = self.ends or (0.0, 1.0)
        inside = min(max(value, first), last)
        return round(4 + (_WIDTH - 8) * (inside - first) / (last - first), 1)


@dataclass(frozen=True)
class ColumnGroup:
    """Columns that fold together; `shown` says whether they are unfolded at first."""

    number: int
    title: str
    columns: tuple[BoardColumn, ...]
    shown: bool

    @property
    def folds(self) -> bool:
        return self.title != _FIRST


@dataclass(frozen=True)
class Board:
    """The table with its columns in groups: what decides the places, every ranking family, the rest."""

    table: Table
    groups: tuple[ColumnGroup, ...]

    @property
    def contestants(self) -> int:
        """How many there are, without the controls that stand below them."""
        return sum(row.kind != "control" for row in self.table.contestants)

    @property
    def ranked(self) -> int:
        """How many contestants have a place."""
        return sum(row.place is not None for row in self.table.ranked)

    @property
    def columns(self) -> list[BoardColumn]:
        return [column for group in self.groups for column in group.columns]


def make_board(table: Table) -> Board:
    """Families first, then scores that are not ranked, then costs; columns that hold nothing are left out."""
    table = table.in_order("chance", "excess", "gates", "paper", "score", "cost")
    order = sorted(range(len(table.columns)), key=lambda i: _rank(table.columns[i], table.columns))
    table = table.chosen(order)
    groups = []
    places = groupby(range(len(table.columns)), key=lambda i: _group(table.columns[i]))
    for number, (title, members) in enumerate(places):
        columns = tuple(_column(table, i, number) for i in members)
        groups.append(ColumnGroup(number, title, columns, shown=title not in (_UNRANKED, _COSTS)))
    return Board(table, tuple(groups))


def _group(column: TableColumn) -> str:
    if column.kind == "cost":
        return _COSTS
    return (column.family or _UNRANKED) if column.kind in ("paper", "score") else _FIRST


def _rank(column: TableColumn, columns: Sequence[TableColumn]) -> int:
    """Of its group; a family stands where its first column does."""
    groups = dict.fromkeys(map(_group, columns))
    last = [name for name in (_UNRANKED, _COSTS) if name in groups]
    return [*(name for name in groups if name not in last), *last].index(_group(column))


def _column(table: Table, i: int, group: int) -> BoardColumn:
    column = table.columns[i]
    entrants: tuple[TableRow, ...] = table.contestants + table.controls
    marks = [(row, row.cells[i]) for row in entrants if len(row.cells[i].values) == 3]
    real = table.baseline[0].cells[i].values if table.baseline else ()
    targets = [] if column.target is None or column.gap else [column.target]
    ends = limits(marks, [*real, *targets], column.bounds) if marks else None
    return BoardColumn(column, group, ends, real)


def score_marks(table: Table) -> dict[str, dict[str, Mark]]:
    """Entrant -> metric -> its mark, companion scores too."""
    table = table.of("paper", "score", "companion")
    columns = [_column(table, i, 0) for i, column in enumerate(table.columns) if not column.gap]
    values = [i for i, column in enumerate(table.columns) if not column.gap]
    marks: dict[str, dict[str, Mark]] = {}
    for row in table.contestants + table.controls:
        made = [(column, column.mark(row.cells[i])) for i, column in zip(values, columns, strict=True)]
        marks[row.name] = {column.shown.metric: mark for column, mark in made if mark}
    return marks
