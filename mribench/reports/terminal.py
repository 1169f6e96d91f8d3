"""The leaderboard for a terminal: a table, or for a single entrant a list."""

from __future__ import annotations

from collections.abc import Sequence

from mribench.metrics.score import Score
from mribench.reports.rows import Cell, Leaderboard, Row, fixed, percent, significant
from mribench.reports.tables import BASELINE_NAME, companions, explanations, name, plain

LEGEND = "^ best of the comparable models that make whole volumes   * not comparable   [n] see below"


def as_text(board: Leaderboard) -> str:
    """For a terminal: a table, or for a single entrant a list with intervals."""
    alone = len(board.rows) == 1
    grid = _list(board, board.rows[0]) if alone else _table(board)
    notes = [f"[{i}] {plain(note)}" for i, note in enumerate(board.footnotes, 1)]
    problems = [
        plain(f"{row.entrant.name}: {problem}") for row in board.rows for problem in row.entrant.problems
    ]
    legend = [] if alone else [LEGEND]
    real = [f"Real MS-SSIM: {board.real_ms_ssim} %"] if board.real_ms_ssim else []
    said = [] if alone else [plain(remark) for remark in board.remarks]
    lines = [*grid, "", *real, *legend, *explanations(board), *said, *problems, *notes]
    return "\n".join(lines).strip() + "\n"


def _list(board: Leaderboard, row: Row) -> list[str]:
    """One line a score; columns for real baseline and p only where some score has one."""
    real_baselines = {cell.column.key: cell for cell in board.real_baseline}
    lines = []
    for column in board.columns:
        cell, real_baseline = row.cell(column.key), real_baselines.get(column.key)
        real = real_baseline.texts if real_baseline and real_baseline.real_baseline else ("", "", "")
        p = _p(cell.score) if column.key != "gap" else ""
        lines.append([column.title, _text_cell(board, cell), cell.interval, real[0], _interval(*real[1:]), p])
    lines += [_companion(score) for score in companions(row)]
    table = [["metric", "value", "95 % interval", BASELINE_NAME, "95 % interval", "p"], *lines]
    kept = [i for i in range(6) if i < 3 or any(line[i] for line in lines)]
    return [plain(name(row)), "", *_aligned([[line[i] for i in kept] for line in table])]


def _companion(score: Score) -> list[str]:
    value, low, high = (significant(x) for x in (score.value, score.low, score.high))
    real_baseline = score.real_baseline
    real = (
        [significant(x) for x in (real_baseline.value, real_baseline.low, real_baseline.high)]
        if real_baseline
        else ["", "", ""]
    )
    title = plain(f"{score.title} {score.unit}")
    return [title, value, _interval(low, high), real[0], _interval(*real[1:]), _p(score)]


def _p(score: Score | None) -> str:
    return "" if score is None or score.p_value is None else f"{score.p_value:.2g}"


def _interval(low: str, high: str) -> str:
    return f"[{low}, {high}]" if low else ""


def _table(board: Leaderboard) -> list[str]:
    """Contestants, controls and the real baseline, each group below a rule."""
    header = ["model", *(column.title for column in board.columns), "mean rank"]
    header += ["P(first)"] if board.has_chances else []
    groups = [
        [_text_row(board, row) for row in board.contestants],
        [_text_row(board, row) for row in board.controls],
        [[BASELINE_NAME, *(cell.texts[0] if cell.real_baseline else "-" for cell in board.real_baseline)]]
        if board.real_baseline
        else [],
    ]
    rows = [header, *(row for group in groups for row in group)]
    lines = _aligned([row + [""] * (len(header) - len(row)) for row in rows])
    rule, rest = "-" * max(len(line) for line in lines), iter(lines[1:])
    ruled = [line for group in groups if group for line in (rule, *(next(rest) for _ in group))]
    return [lines[0], *(ruled or [rule])]


def _text_row(board: Leaderboard, row: Row) -> list[str]:
    known = row.entrant.name if row.entrant.kind == "control" else name(row)
    cells = [plain(known)[:40], *(_text_cell(board, cell) for cell in row.cells), _text_rank(board, row)]
    if board.has_chances:
        cells.append(percent(row.chances[0]) if row.chances else "-")
    return cells


def _text_rank(board: Leaderboard, row: Row) -> str:
    if row.rank is not None:
        return f"{fixed(row.rank, 2)}{'^' if row.best else ''}"
    return f"-[{board.numbers([row.unranked])[0]}]" if row.unranked else "-"


def _text_cell(board: Leaderboard, cell: Cell) -> str:
    numbers = ",".join(str(n) for n in board.numbers(cell.remarks))
    marks = ("^" if cell.best else "") + cell.group + ("*" if cell.why_not else "")
    return ("-" if cell.score is None else cell.text) + marks + (f"[{numbers}]" if numbers else "")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
