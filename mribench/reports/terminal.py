"""The leaderboard for a terminal: a table of 80 columns, or of all columns; for a single entrant a list."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from mribench.reports.grid import ABSENT, Table, TableCell, TableColumn, TableRow, plain, short_names

WIDTH = 80
_NAME, _LONGEST_NAME, _WORD = 14, 40, 8  # widths: the least that names get, the most, and of a heading's line
_BEST, _STARRED, _NUMBERED = "^ best of the comparable models", "* not comparable", "[n] see below"
_LIKE_REAL = "= the 95 % interval meets that of other real volumes"


@dataclass(frozen=True)
class _Text:
    """A text as it stands in a table: the `marks` begin where the column's longest text ends."""

    text: str = ""
    marks: str = ""
    colour: str = ""


def as_text(table: Table, wide: bool = False) -> str:
    """At most 80 columns with marks for intervals, or all columns and footnotes; the result stands last.

    Of a single entrant a list with intervals and companion scores. Coloured by escape sequences, which `click.echo`
    leaves out where the output is no terminal.
    """
    alone = len(table.contestants + table.controls) == 1
    body = _list(table, wide) if alone else _wide(table) if wide else _narrow(table)
    held_back = any(row.unranked for row in table.rows)
    said = [
        *([f"Real MS-SSIM: {table.real_ms_ssim} %"] if table.real_ms_ssim and (alone or wide) else []),
        *(table.explanations if wide else ()),
        *(f"[{i}] {note}" for i, note in enumerate(table.footnotes, 1) if alone or wide),
        *(() if alone else table.remarks),
    ]
    lines = [
        *body,
        *_wrapped(said),
        *(click.style(line, fg="red") for line in _wrapped(table.problems)),
        *(click.style(line, fg="red" if held_back else "yellow") for line in _wrapped(table.warnings)),
        *(click.style(line, bold=True) for line in _wrapped([] if alone else [table.headline])),
    ]
    return "\n".join(lines) + "\n"


def _wrapped(sentences: Iterable[str]) -> Iterator[str]:
    """Lines of at most 80 columns; those that go on are indented."""
    console = Console()
    for sentence in map(plain, sentences):
        for i, line in enumerate(Text(sentence).wrap(console, WIDTH - 2)):
            yield "  " * (i > 0) + line.plain.rstrip()


def _wide(table: Table) -> list[str]:
    """Every score with its interval, letters of tie groups and numbers of footnotes."""
    table = table.of("chance", "excess", "gates", "paper", "score")
    names = [plain(_name(row))[:_LONGEST_NAME] for row in table.rows]
    columns = [column for i, _ in _of(table) for column in _with_interval(table, i)]
    legend = f"{_BEST} that make whole volumes   {_STARRED}   {_NUMBERED}"
    return [*_grouped(table, _joined(names, columns, 1, "  "), 1), "", legend]


def _narrow(table: Table) -> list[str]:
    """The columns that fit, those that decide first."""
    table = table.of("chance", "excess", "gates", "paper", "score")
    names = short_names([_name(row) for row in table.rows], _NAME, _LONGEST_NAME)
    order = sorted(_of(table), key=lambda numbered: _priority(numbered[1]))
    height = max((len(_heading(column)) for _, column in order), default=1)
    columns = [_column(table, i, column, height) for i, column in order]
    used = accumulate(
        (1 + sum(_widths(column)) for column in columns), initial=max(map(cell_len, names), default=5)
    )
    shown = [column for column, width in zip(columns, list(used)[1:], strict=True) if width <= WIDTH]
    lines = _grouped(table, _joined(names, shown, height, " "), height)
    marks = "".join(text.marks for column in shown for text in column[height:])
    legend = [text for mark, text in (("^", _BEST), ("=", _LIKE_REAL), ("*", _STARRED)) if mark in marks]
    left_out = [plain(column.title) for _, column in order[len(shown) :]]
    more = [f"More with --wide: intervals, notes{''.join(f', {title}' for title in left_out)}."]
    return [*lines, "", *_wrapped(["; ".join(legend)]), *_wrapped(more)]


def _with_interval(table: Table, index: int) -> list[list[_Text]]:
    """A column's heading and texts, and where it has intervals those beside them."""
    cells = [row.cells[index] for row in table.rows]
    intervals = [_Text("95 % interval"), *(_Text(cell.interval) for cell in cells)]
    texts = [_Text(plain(table.columns[index].title)), *map(_cell, cells)]
    return [texts, intervals] if any(cell.interval for cell in cells) else [texts]


def _of(table: Table) -> list[tuple[int, TableColumn]]:
    return list(enumerate(table.columns))


def _name(row: TableRow) -> str:
    return row.name if row.kind == "control" else row.title


def _priority(column: TableColumn) -> int:
    """P(first), what is ranked, the distance from real volumes, the gates, the rest."""
    if column.family and not column.gap:
        return 1
    return {"chance": 0, "excess": 2, "gates": 3}.get(column.kind, 4)


def _heading(column: TableColumn) -> list[str]:
    """A title on lines of at most eight characters."""
    return textwrap.wrap(plain(column.title), _WORD, break_on_hyphens=False)


def _column(table: Table, index: int, column: TableColumn, height: int) -> list[_Text]:
    """Lines of the heading, then a text a row."""
    heading = [""] * (height - len(_heading(column))) + _heading(column)
    real = next((row.cells[index].values for row in table.baseline), ())
    return [*map(_Text, heading), *(_short_cell(row, row.cells[index], column, real) for row in table.rows)]


def _short_cell(row: TableRow, cell: TableCell, column: TableColumn, real: tuple[float, ...]) -> _Text:
    """A cell without letters and numbers of footnotes; of the excess the number alone."""
    text = _cell(replace(cell, letters="", footnotes=()))
    if column.kind == "excess":
        return replace(text, text=text.text.partition(" ")[0])
    if row.kind != "real_baseline" and _overlap(cell.values, real):
        return replace(text, marks=text.marks + "=")
    return text


def _overlap(values: tuple[float, ...], real: tuple[float, ...]) -> bool:
    """Whether two intervals (value, low, high) meet."""
    return len(values) == len(real) == 3 and values[1] <= real[2] and real[1] <= values[2]


def _cell(cell: TableCell) -> _Text:
    marks = ("^" if cell.best else "") + cell.letters + ("*" if cell.starred else "")
    numbers = f"[{','.join(map(str, cell.footnotes))}]" if cell.footnotes else ""
    colour = "green" if cell.best else "red" if cell.text == "failed" else ""
    return _Text(cell.text.replace(ABSENT, "-"), marks + numbers, colour)


def _list(table: Table, wide: bool) -> list[str]:
    """One line a score; columns for real baseline and p only where some score has one, its interval if `wide`."""
    table = table.of("paper", "score", "companion", "gates")
    row, *baseline = table.rows
    lines = [["metric", "value", "95 % interval", "real baseline", "its interval", "p"]]
    reals = baseline[0].cells if baseline else [TableCell()] * len(row.cells)
    for column, cell, real in zip(table.columns, row.cells, reals, strict=True):
        p = "" if cell.p_value is None or column.gap else f"{cell.p_value:.2g}"
        text, shown = real.text if real.values else "", _cell(cell)
        interval = real.interval if wide else ""
        lines.append([plain(column.title), shown.text + shown.marks, cell.interval, text, interval, p])
    used = [i for i in range(6) if i < 3 or any(line[i] for line in lines[1:])]
    columns = [[_Text(line[i]) for line in lines] for i in used[1:]]
    return [plain(row.title), "", *_joined([line[0] for line in lines[1:]], columns, 1, "  ", "metric"), ""]


def _grouped(table: Table, lines: Sequence[str], height: int) -> list[str]:
    """Ranked and other contestants, controls and the real baseline, each group below a rule."""
    rule = "-" * max(cell_len(click.unstyle(line)) for line in lines)
    rest = iter(lines[height:])
    ruled = [line for rows in table.groups for line in (rule, *(next(rest) for _ in rows))]
    return [*lines[:height], *(ruled or [rule])]


def _widths(column: Sequence[_Text]) -> tuple[int, int]:
    return max(cell_len(text.text) for text in column), max(len(text.marks) for text in column)


def _joined(
    names: Sequence[str], columns: Sequence[Sequence[_Text]], height: int, gap: str, title: str = "model"
) -> list[str]:
    """Lines of a table: names to the left, texts to the right, marks behind them; `height` lines of headings."""
    first = [*[""] * (height - 1), title, *names]
    name_width = max(map(cell_len, first))
    widths = [_widths(column) for column in columns]
    lines = []
    for i, name in enumerate(first):
        texts = [_padded(column[i], *width) for column, width in zip(columns, widths, strict=True)]
        lines.append(gap.join([set_cell_size(name, name_width), *texts]).rstrip())
    return lines


def _padded(text: _Text, width: int, marks: int) -> str:
    shown = text.text + text.marks
    coloured = click.style(shown, fg=text.colour) if text.colour else shown
    return " " * (width - cell_len(text.text)) + coloured + " " * (marks - len(text.marks))
