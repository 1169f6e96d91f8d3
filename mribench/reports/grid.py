"""The table of typed cells that every output writes in its own syntax."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.cells import cell_len, set_cell_size

from mribench.reports.records import Kind

ABSENT = "–"

ColumnKind = Literal["paper", "score", "companion", "excess", "chance", "gates", "cost"]


@dataclass(frozen=True)
class TableColumn:
    """One column: a score of the paper's Table 1, another or a companion score, excess, P(first), gates or a cost."""

    kind: ColumnKind
    title: str
    unrounded_title: str = ""  # of the values in full, where their unit is another
    aim: str = ""
    metric: str = ""  # whose definition explains it
    family: str = ""  # title of the ranking family; "" = never ranked
    gap: bool = False  # shows the distance of another column's score from its target
    target: float | None = None  # as `values`, which lie within `bounds`
    bounds: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True)
class TableCell:
    """`text`, `low` and `high` as shown ("" = nothing); `values` are the same in full, () without a number.

    `letters` are those of its tie groups, `starred` cells are not comparable, `footnotes` are numbers from 1,
    and a smaller `sort_key` is better.
    """

    text: str = ""
    low: str = ""
    high: str = ""
    values: tuple[float, ...] = ()
    sort_key: float | str | None = None
    best: bool = False
    letters: str = ""
    starred: bool = False
    footnotes: tuple[int, ...] = ()
    p_value: float | None = None

    @property
    def interval(self) -> str:
        """ "[low, high]", or nothing."""
        return f"[{self.low}, {self.high}]" if self.low else ""


@dataclass(frozen=True)
class TableRow:
    """One entrant, or the real baseline: `name` of the run, `label` of the paper, `title` = what tells it apart."""

    name: str
    label: str
    title: str
    kind: Kind | Literal["unknown", "real_baseline"]
    cells: tuple[TableCell, ...]
    counts: str = ""  # volumes per set
    about: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # problems and footnotes as sentences
    chances: tuple[float, ...] = ()
    place: int | None = None
    unranked: str = ""  # why it has no place
    together: str = ""  # the runs that it is ranked with


@dataclass(frozen=True)
class Table:
    """Ranked contestants, the others, controls, at most one row of the real baseline; and the sentences around them.

    `headline` is the result; `warnings` are what must be known before the table is read.
    """

    columns: tuple[TableColumn, ...]
    headline: str
    warnings: tuple[str, ...]
    ranked: tuple[TableRow, ...]
    unranked: tuple[TableRow, ...]
    controls: tuple[TableRow, ...]
    baseline: tuple[TableRow, ...]
    caption: str
    real_ms_ssim: str
    explanations: tuple[str, ...]
    remarks: tuple[str, ...]
    footnotes: tuple[str, ...]

    @property
    def lead(self) -> tuple[str, ...]:
        """The first lines of every output."""
        return tuple(sentence for sentence in (self.headline, *self.warnings) if sentence)

    @property
    def groups(self) -> list[tuple[TableRow, ...]]:
        """Ranked and other contestants, controls and real baseline, as far as there are any."""
        return [rows for rows in (self.ranked, self.unranked, self.controls, self.baseline) if rows]

    @property
    def contestants(self) -> tuple[TableRow, ...]:
        return self.ranked + self.unranked

    @property
    def rows(self) -> tuple[TableRow, ...]:
        return self.contestants + self.controls + self.baseline

    @property
    def problems(self) -> list[str]:
        """What could not be read, by run."""
        return [f"{row.name}: {problem}" for row in self.rows for problem in row.problems]

    def of(self, *kinds: ColumnKind) -> Table:
        """The columns of these kinds; without the real baseline where it has no value in any."""
        return self.chosen([i for i, column in enumerate(self.columns) if column.kind in kinds])

    def in_order(self, *kinds: ColumnKind) -> Table:
        """As `of`, with the columns in the order of the kinds, and without columns that hold nothing."""
        places = enumerate(self.columns)
        order = [(kinds.index(column.kind), i) for i, column in places if column.kind in kinds]
        return self.chosen([i for _, i in sorted(order) if self._holds_something(i)])

    def _holds_something(self, column: int) -> bool:
        entrants = self.contestants + self.controls
        return any(row.cells[column].text not in ("", ABSENT) for row in entrants)

    def chosen(self, order: Sequence[int]) -> Table:
        """The columns of these numbers; without the real baseline where it has no value in any."""

        def cut(rows: Iterable[TableRow]) -> tuple[TableRow, ...]:
            return tuple(replace(row, cells=tuple(row.cells[i] for i in order)) for row in rows)

        baseline = tuple(row for row in cut(self.baseline) if any(cell.values for cell in row.cells))
        return replace(
            self,
            columns=tuple(self.columns[i] for i in order),
            ranked=cut(self.ranked),
            unranked=cut(self.unranked),
            controls=cut(self.controls),
            baseline=baseline,
        )


def plain(text: object) -> str:
    """Text on one line, without control, invisible and direction-changing characters."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    if line.isprintable():
        return line
    return "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def short_names(names: Sequence[str], least: int, most: int) -> list[str]:
    """Names on one line, their middles left out: as narrow as they may be while they differ, `least` to `most` wide."""
    lines = [plain(name) for name in names]
    longest = max(map(cell_len, lines), default=0)
    for width in range(least, min(longest, most)):
        short = [_shortened(line, width) for line in lines]
        if len(set(short)) == len(set(lines)):
            return short
    return [_shortened(line, most) for line in lines]


def _shortened(line: str, width: int) -> str:
    if cell_len(line) <= width:
        return line
    tail = next(line[i:] for i in range(len(line)) if cell_len(line[i:]) <= width // 3)
    return set_cell_size(line, width - 1 - cell_len(tail)).rstrip() + "…" + tail
