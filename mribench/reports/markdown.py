"""The leaderboard as GitHub Markdown; names are text there and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mribench.reports.grid import Table, TableCell, TableRow, plain

# What makes markup, links, HTML, entities, mathematics, emoji or references on GitHub.
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~$&@]|:(?=\S)|(?<=www)\.)", re.IGNORECASE)


def as_markdown(table: Table) -> str:
    """table.md: the columns of the page; controls and real baseline in italics below the models."""
    table = table.of("chance", "excess", "gates", "paper", "score")
    titles = ["model", *(column.title for column in table.columns)]
    lines = [
        *(f"**{_escaped(sentence)}**\n" for sentence in table.lead),
        _escaped(table.caption),
        "",
        _line(_escaped(title) for title in titles),
        _line(["---", *["--:"] * len(table.columns)]),
        *(_line(_row(row)) for row in table.rows),
        "",
        *(f"{_escaped(said)}\n" for said in (*table.explanations, *table.remarks, *table.problems)),
        *(f"{i}. {_escaped(note)}" for i, note in enumerate(table.footnotes, 1)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _escaped(text: object) -> str:
    """Text that Markdown prints as it is."""
    return _MARKUP.sub(r"\\\1", plain(text))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(row: TableRow) -> list[str]:
    title = _escaped(row.title)
    return [f"_{title}_" if row.kind in ("control", "real_baseline") else title, *map(_cell, row.cells)]


def _cell(cell: TableCell) -> str:
    marks = [cell.letters, "\\*" if cell.starred else "", *map(str, cell.footnotes)]
    raised = ",".join(mark for mark in marks if mark)
    value = f"**{cell.text}**" if cell.best else _escaped(cell.text)
    value += f"<sup>{raised}</sup>" if raised else ""
    return value + (rf"<br>\[{cell.low}, {cell.high}\]" if cell.interval else "")
