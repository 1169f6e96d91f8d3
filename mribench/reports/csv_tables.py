"""The leaderboard for spreadsheets: table.csv has a row per entrant, scores.csv a row per score."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from mribench.metrics import METRICS
from mribench.metrics.score import Score
from mribench.reports.grid import ColumnKind, Table, TableCell, TableColumn, plain
from mribench.reports.records import Entrant
from mribench.reports.rows import Cell, Leaderboard

_FORMULA = ("=", "+", "-", "@", "|", "%")  # what a spreadsheet may take for a formula or a command
_SCORE_TITLES = (
    "run", "model", "kind", "metric", "title", "family", "ranked", "comparable", "value", "low", "high", "gap",
    "gap low", "gap high", "better", "target", "unit", "n", "interval", "version", "signature", "seconds",
    "real_baseline", "real_baseline_low", "real_baseline_high", "real_baseline_how", "p_value", "group", "notes",
)  # fmt: skip


def as_csv(table: Table) -> str:
    """table.csv: run, model, Table 1's columns, their intervals, n, notes, everything else, then plug-ins' scores.

    The last row, of kind "real_baseline", is what real volumes of other subjects score.
    """
    table = table.of("paper", "score", "excess", "gates", "cost")
    rows = table.rows
    places = max((len(row.chances) for row in rows), default=0)
    columns: dict[str, list[object]] = {
        "run": [row.name for row in rows],
        "model": [row.label for row in rows],
        **_scores(table, "paper"),
        "n": [row.counts for row in rows],
        "notes": ["; ".join(row.notes) for row in rows],
        "kind": [row.kind for row in rows],
        **_scores(table, "score"),
        **_values(table, "excess"),
        **_values(table, "gates"),
        "not ranked": [row.unranked for row in rows],
        "ranked as one": [row.together for row in rows],
        **_values(table, "cost"),
    }
    for i, column in enumerate(table.columns):
        if column.family:
            columns[f"{column.title} group"] = [row.cells[i].letters for row in rows]
    for i in range(places):
        columns[f"P(rank {i + 1})"] = [row.chances[i] if row.chances else None for row in rows]
    for title, values in _scores(table, "score", of_plugins=True).items():
        columns[f"{title} (plug-in)" if title in columns else title] = values
    lines = zip(*columns.values(), strict=True)
    return _csv(columns, (dict(zip(columns, line, strict=True)) for line in lines))


def _scores(table: Table, kind: ColumnKind, of_plugins: bool = False) -> dict[str, list[object]]:
    """The values of all columns of a kind, then the ends of their intervals."""
    columns = _values(table, kind, of_plugins)
    for i, column in enumerate(table.columns):
        if column.kind == kind and _is_plugin(column) == of_plugins:
            for part, end in ((1, "low"), (2, "high")):
                columns[f"{column.title} {end}"] = [_value(row.cells[i], part) for row in table.rows]
    return columns


def _values(table: Table, kind: ColumnKind, of_plugins: bool = False) -> dict[str, list[object]]:
    return {
        column.unrounded_title or column.title: [_value(row.cells[i], 0) for row in table.rows]
        for i, column in enumerate(table.columns)
        if column.kind == kind and _is_plugin(column) == of_plugins
    }


def _is_plugin(column: TableColumn) -> bool:
    return column.metric not in ("", *METRICS)


def _value(cell: TableCell, part: int) -> object:
    return cell.values[part] if cell.values else cell.sort_key


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
    titles = list(titles)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_text, titles))
    writer.writerows([_text(row.get(title)) for title in titles] for row in rows)
    return text.getvalue()


def _text(value: object) -> str:
    """A value in six digits, or text that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return str(value) if isinstance(value, int) else f"{value:.6g}"
    clean = plain(value)
    return f"'{clean}" if clean.startswith(_FORMULA) else clean
