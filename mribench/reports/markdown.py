"""The leaderboard as GitHub Markdown; names are text there and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mribench.reports.rows import BaselineCell, Cell, Leaderboard, Row, fixed, percent
from mribench.reports.tables import BASELINE_NAME, caption, explanations, name, plain

# What makes markup, links, HTML, entities, mathematics, emoji or references on GitHub.
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~$&@]|:(?=\S)|(?<=www)\.)", re.IGNORECASE)


def md_text(text: object) -> str:
    """Text that Markdown prints as it is."""
    return _MARKUP.sub(r"\\\1", plain(text))


def as_markdown(board: Leaderboard) -> str:
    """table.md: the columns of the page; controls and real baseline in italics below the models."""
    titles = ["model", *(column.title for column in board.columns), "mean rank"]
    titles += ["P(first)"] if board.has_chances else []
    lines = [
        md_text(caption(board)),
        "",
        _line(md_text(title) for title in titles),
        _line(["---", *["--:"] * (len(titles) - 1)]),
        *(_line(_row(board, row)) for row in board.contestants),
        *(_line(_row(board, row)) for row in board.controls),
        *([_line(_baseline(board.real_baseline, len(titles)))] if board.real_baseline else []),
        "",
        *(f"{md_text(sentence)}\n" for sentence in (*explanations(board), *board.remarks, *_problems(board))),
        *(f"{i}. {md_text(note)}" for i, note in enumerate(board.footnotes, 1)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _problems(board: Leaderboard) -> list[str]:
    return [f"{row.entrant.name}: {problem}" for row in board.rows for problem in row.entrant.problems]


def _row(board: Leaderboard, row: Row) -> list[str]:
    title = md_text(name(row))
    rank = _bold(fixed(row.rank, 2), row.best) if row.rank is not None else "–"
    rank += _raised([str(n) for n in board.numbers([row.unranked])] if row.unranked else [])
    cells = [f"_{title}_" if row.entrant.kind == "control" else title]
    cells += [*(_cell(board, cell) for cell in row.cells), rank]
    if board.has_chances:
        cells.append(md_text(percent(row.chances[0])) if row.chances else "–")
    return cells


def _cell(board: Leaderboard, cell: Cell) -> str:
    marks = [cell.group, "\\*" if cell.why_not else "", *(str(n) for n in board.numbers(cell.remarks))]
    raised = _raised([mark for mark in marks if mark])
    if cell.score is None:
        return f"–{raised}"
    return f"{_bold(cell.text, cell.best)}{raised}{_interval(*cell.texts[1:])}"


def _baseline(real_baseline: Sequence[BaselineCell], width: int) -> list[str]:
    cells = [f"_{md_text(BASELINE_NAME)}_"]
    cells += [f"{c.texts[0]}{_interval(*c.texts[1:])}" if c.real_baseline else "–" for c in real_baseline]
    return cells + [""] * (width - len(cells))


def _interval(low: str, high: str) -> str:
    return rf"<br>\[{low}, {high}\]"


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _raised(marks: Sequence[str]) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""
