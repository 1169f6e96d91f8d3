"""The leaderboard for a terminal: a table, or for a single entrant a list."""

from __future__ import annotations

from collections.abc import Sequence

from mribench.reports.grid import ABSENT, Table, TableCell, TableRow, plain

_LEGEND = "^ best of the comparable models that make whole volumes   * not comparable   [n] see below"


def as_text(table: Table) -> str:
    """A table; of a single entrant a list with intervals and companion scores."""
    alone = len(table.contestants + table.controls) == 1
    real = [f"Real MS-SSIM: {table.real_ms_ssim} %"] if table.real_ms_ssim else []
    lines = [
        *map(plain, table.warnings if alone else table.lead),
        "",
        *(_list(table) if alone else _table(table)),
        "",
        *real,
        *([] if alone else [_LEGEND]),
        *table.explanations,
        *map(plain, () if alone else table.remarks),
        *map(plain, table.problems),
        *(f"[{i}] {plain(note)}" for i, note in enumerate(table.footnotes, 1)),
    ]
    return "\n".join(lines).strip() + "\n"


def _table(table: Table) -> list[str]:
    """Ranked and other contestants, controls and the real baseline, each group below a rule."""
    table = table.of("chance", "excess", "gates", "paper", "score")
    header = ["model", *(plain(column.title) for column in table.columns)]
    lines = _aligned([header, *(_row(row) for row in table.rows)])
    rule, rest = "-" * max(len(line) for line in lines), iter(lines[1:])
    ruled = [line for rows in table.groups for line in (rule, *(next(rest) for _ in rows))]
    return [lines[0], *(ruled or [rule])]


def _row(row: TableRow) -> list[str]:
    title = row.name if row.kind == "control" else row.title
    return [plain(title)[:40], *map(_cell, row.cells)]


def _cell(cell: TableCell) -> str:
    marks = ("^" if cell.best else "") + cell.letters + ("*" if cell.starred else "")
    numbers = f"[{','.join(map(str, cell.footnotes))}]" if cell.footnotes else ""
    return cell.text.replace(ABSENT, "-") + marks + numbers


def _list(table: Table) -> list[str]:
    """One line a score; columns for real baseline and p only where some score has one."""
    table = table.of("paper", "score", "companion", "gates")
    row, *baseline = table.rows
    lines = [["metric", "value", "95 % interval", "real baseline", "95 % interval", "p"]]
    reals = baseline[0].cells if baseline else [TableCell()] * len(row.cells)
    for column, cell, real in zip(table.columns, row.cells, reals, strict=True):
        p = "" if cell.p_value is None or column.gap else f"{cell.p_value:.2g}"
        text = real.text if real.values else ""
        lines.append([plain(column.title), _cell(cell), cell.interval, text, real.interval, p])
    used = [i for i in range(6) if i < 3 or any(line[i] for line in lines[1:])]
    return [plain(row.title), "", *_aligned([[line[i] for i in used] for line in lines])]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
