"""The leaderboard for spreadsheets: table.csv has a row per entrant, scores.csv a row per score."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from mribench.metrics.metric import Score
from mribench.reports.grid import ColumnKind, Table, TableRow, plain
from mribench.reports.records import Entrant
from mribench.reports.rows import Cell, Leaderboard

_FORMULA = ("=", "+", "-", "@", "|", "%")  # what a spreadsheet may take for a formula or a command
_SCORE_TITLES = (
    "run", "model", "kind", "metric", "title", "family", "ranked", "comparable", "value", "low", "high", "gap",
    "gap low", "gap high", "better", "target", "unit", "n", "interval", "version", "signature", "seconds",
    "real_baseline", "real_baseline_low", "real_baseline_high", "real_baseline_how", "p_value", "group", "notes",
)  # fmt: skip

_Field = tuple[str, Callable[[TableRow], object]]


def as_csv(table: Table) -> str:
    """table.csv: run, model, Table 1's columns, their intervals, n, notes, then everything else.

    The last row, of kind "real_baseline", is what real volumes of other subjects score.
    """
    table = table.of("paper", "score", "rank", "cost")
    places = max((len(row.chances) for row in table.rows), default=0)
    fields: list[_Field] = [
        ("run", lambda row: row.name),
        ("model", lambda row: row.label),
        *_scores(table, "paper"),
        ("n", lambda row: row.counts),
        ("notes", lambda row: "; ".join(row.notes)),
        ("kind", lambda row: row.kind),
        *_scores(table, "score"),
        *_parts(table, 0, "", "rank", "cost"),
        *((f"{c.title} group", partial(_letters, i)) for i, c in enumerate(table.columns) if c.ranked),
        *((f"P(rank {place + 1})", partial(_chance, place)) for place in range(places)),
    ]
    rows = ({title: value(row) for title, value in fields} for row in table.rows)
    return _csv([title for title, _ in fields], rows)


def _scores(table: Table, kind: ColumnKind) -> list[_Field]:
    """The values of all columns of a kind, then the two ends of each one's interval."""
    lows, highs = _parts(table, 1, " low", kind), _parts(table, 2, " high", kind)
    return [*_parts(table, 0, "", kind), *(end for ends in zip(lows, highs, strict=True) for end in ends)]


def _parts(table: Table, part: int, suffix: str, *kinds: ColumnKind) -> list[_Field]:
    return [
        (f"{column.unrounded_title or column.title}{suffix}", partial(_part, i, part))
        for i, column in enumerate(table.columns)
        if column.kind in kinds
    ]


def _part(column: int, part: int, row: TableRow) -> object:
    values = row.cells[column].values
    return values[part] if values else None


def _letters(column: int, row: TableRow) -> str:
    return row.cells[column].letters


def _chance(place: int, row: TableRow) -> float | None:
    return row.chances[place] if row.chances else None


def as_scores_csv(board: Leaderboard) -> str:
    """scores.csv: one row a score, in the metric's own unit; an absent score has its reason in the notes."""
    rows: list[Mapping[str, object]] = []
    for row in board.rows:
        entrant, cells = row.entrant, {cell.column.metric: cell for cell in row.cells}
        rows += [_score(entrant, score, cells.get(name)) for name, score in entrant.scores.items()]
        absent = entrant.missing or ({} if entrant.scores else {"": "; ".join(entrant.problems)})
        rows += [{**_about(entrant), "metric": name, "notes": reason} for name, reason in absent.items()]
    return _csv(_SCORE_TITLES, rows)


def _about(entrant: Entrant) -> dict[str, object]:
    return {"run": entrant.name, "model": entrant.label, "kind": entrant.kind}


def _score(entrant: Entrant, score: Score, cell: Cell | None) -> Mapping[str, object]:
    why_not = cell.why_not if cell else entrant.doubts
    baseline = score.real_baseline
    real = (
        {f"real_baseline_{key}": getattr(baseline, key) for key in ("low", "high", "how")} if baseline else {}
    )
    return {
        **score.model_dump(include=set(_SCORE_TITLES) - {"real_baseline"}),
        **_about(entrant),
        "ranked": str(score.ranked).lower(),
        "comparable": str(not why_not).lower(),
        "gap": score.gap,
        "gap low": score.gap_interval[0],
        "gap high": score.gap_interval[1],
        "n": " ".join(f"{side}={n}" for side, n in score.n.items()),
        "real_baseline": baseline.value if baseline else None,
        **real,
        "group": cell.group if cell else "",
        "notes": "; ".join(dict.fromkeys((*why_not, *score.notes))),
    }


def _csv(titles: Iterable[str], rows: Iterable[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(titles), lineterminator="\n")
    writer.writeheader()
    writer.writerows({title: _text(value) for title, value in row.items()} for row in rows)
    return text.getvalue()


def _text(value: object) -> str:
    """A value in six digits, or text that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return str(value) if isinstance(value, int) else f"{value:.6g}"
    clean = plain(value)
    return f"'{clean}" if clean.startswith(_FORMULA) else clean
