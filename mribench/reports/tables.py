"""The leaderboard for spreadsheets (CSV), and what all its tables share; names are inert in each."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

from mribench.metrics.score import Score
from mribench.reports.records import Entrant
from mribench.reports.rows import TABLE_1, BaselineCell, Cell, Column, Leaderboard, Row

LETTERS = (
    "Letters: two models that share a letter in a column do not differ there (paired jackknife tests, family-wise "
    "error 5 % after Holm); a holds the best."
)
BASELINE = (
    "real baseline: what real volumes of other subjects score at that number of volumes, hence what a perfect "
    "generator would get."
)
CHANCE = "P(first): the probability that this mean rank is the best one, from the joint errors of all scores."
BASELINE_NAME = "real baseline"
_FORMULA = ("=", "+", "-", "@", "|", "%")  # what a spreadsheet may take for a formula or a command


def plain(text: object) -> str:
    """Text on one line, without control, invisible and direction-changing characters."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    if line.isprintable():
        return line
    return "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def csv_text(text: object) -> str:
    """Text that no spreadsheet takes for a formula."""
    clean = plain(text)
    return f"'{clean}" if clean.startswith(_FORMULA) else clean


def as_csv(board: Leaderboard) -> str:
    """table.csv: run, model, Table 1's columns, their intervals, n, notes, then everything else.

    The last row, of kind "real_baseline", is what real volumes of other subjects score.
    """
    first = [column for column in board.columns if column.key in TABLE_1]
    extra = [column for column in board.columns if column.key not in TABLE_1]
    ranked = [column for column in board.columns if column.family]
    places = max((len(row.chances) for row in board.rows), default=0)
    header = ["run", "model", *(c.title for c in first), *_interval_titles(first), "n", "notes", "kind"]
    header += [*(c.title for c in extra), *_interval_titles(extra), "mean rank", *_COSTS]
    header += [f"{column.title} group" for column in ranked]
    header += [f"P(rank {place})" for place in range(1, places + 1)]
    rows = [_csv_row(row, first, extra) + _csv_ties(row, ranked, places) for row in board.rows]
    if board.real_baseline:
        rows.append(_csv_baseline(board.real_baseline, first, extra, len(header)))
    return _csv(header, rows)


_COSTS = ("parameters", "volumes seen", "training seconds", "seconds per volume", "device")


def _csv_row(row: Row, first: Sequence[Column], extra: Sequence[Column]) -> list[str]:
    entrant = row.entrant
    known = [
        csv_text(entrant.name),
        csv_text(entrant.label),
        *_values(row, first),
        *_intervals(row, first),
    ]
    known += [counts(entrant), csv_text("; ".join(_notes(row))), entrant.kind]
    known += [*_values(row, extra), *_intervals(row, extra), _number(row.rank)]
    known += [_number(x) for x in (entrant.parameters, entrant.seen, entrant.training_seconds)]
    return [*known, _number(entrant.seconds_per_volume), csv_text(entrant.devices)]


def _csv_ties(row: Row, ranked: Sequence[Column], places: int) -> list[str]:
    """Tie groups, then the probability of each rank."""
    groups = [row.cell(column.key).group for column in ranked]
    return [*groups, *(_number(p) for p in row.chances), *[""] * (places - len(row.chances))]


def _csv_baseline(
    real_baseline: Sequence[BaselineCell], first: Sequence[Column], extra: Sequence[Column], width: int
) -> list[str]:
    def values(columns: Sequence[Column]) -> list[str]:
        numbers = [cell.numbers for cell in real_baseline if cell.column in columns]
        ends = [_number(x) for n in numbers for x in (n[1:] if n else (None, None))]
        return [*(_number(n[0] if n else None) for n in numbers), *ends]

    real_baselines = [cell.real_baseline for cell in real_baseline if cell.real_baseline]
    counts = "/".join(str(n) for n in sorted({one.n for one in real_baselines}))
    known = [csv_text(BASELINE_NAME), "Real volumes of other subjects", *values(first)]
    known += [
        f"{counts} samples",
        csv_text("; ".join(dict.fromkeys(f.how for f in real_baselines))),
        "real_baseline",
        *values(extra),
    ]
    return known + [""] * (width - len(known))


def _interval_titles(columns: Iterable[Column]) -> list[str]:
    return [f"{column.title} {end}" for column in columns for end in ("low", "high")]


def _values(row: Row, columns: Iterable[Column]) -> list[str]:
    cells = [row.cell(column.key) for column in columns]
    return [_number(cell.column.numbers(cell.score)[0]) if cell.score else "" for cell in cells]


def _intervals(row: Row, columns: Iterable[Column]) -> list[str]:
    ends: list[str] = []
    for column in columns:
        score = row.cell(column.key).score
        ends += [_number(x) for x in column.numbers(score)[1:]] if score else ["", ""]
    return ends


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


def counts(entrant: Entrant) -> str:
    """ "16 samples, 24 reference": volumes per set, over all scores."""
    sides: dict[str, set[int]] = {}
    for score in entrant.scores.values():
        for side, n in score.n.items():
            sides.setdefault(side, set()).add(n)
    return ", ".join(f"{'/'.join(str(n) for n in sorted(ns))} {plain(side)}" for side, ns in sides.items())


def _notes(row: Row) -> list[str]:
    """Problems of the row, then every cell's remarks with the titles of the columns they concern."""
    about: dict[str, list[str]] = {}
    for cell in row.cells:
        for remark in (*(f"not comparable: {why}" for why in cell.why_not), *cell.notes, cell.absent):
            if remark:
                about.setdefault(remark, []).append(cell.column.title)
    return [*row.entrant.problems, *(f"{', '.join(titles)}: {remark}" for remark, titles in about.items())]


_SCORE_COLUMNS = [
    "run",
    "model",
    "kind",
    "metric",
    "title",
    "family",
    "ranked",
    "comparable",
    "value",
    "low",
    "high",
    "gap",
    "gap low",
    "gap high",
    "better",
    "target",
    "unit",
    "n",
    "interval",
    "version",
    "signature",
    "seconds",
    "real_baseline",
    "real_baseline_low",
    "real_baseline_high",
    "real_baseline_how",
    "p_value",
    "group",
    "notes",
]


def as_scores_csv(board: Leaderboard) -> str:
    """scores.csv: one row a score, in the metric's own unit; an absent score has its reason in the notes."""
    rows = []
    for row in board.rows:
        cells = {cell.column.metric: cell for cell in row.cells}
        rows += [
            _score_row(row.entrant, score, cells.get(name)) for name, score in row.entrant.scores.items()
        ]
        rows += [_missing_row(row.entrant, name, reason) for name, reason in row.entrant.missing.items()]
        if not row.entrant.scores and not row.entrant.missing:
            rows.append(_missing_row(row.entrant, "", "; ".join(row.entrant.problems)))
    return _csv(_SCORE_COLUMNS, rows)


def _score_row(entrant: Entrant, score: Score, cell: Cell | None) -> list[str]:
    why_not = cell.why_not if cell else entrant.doubts
    known = [csv_text(x) for x in (entrant.name, entrant.label, entrant.kind, score.metric, score.title)]
    known += [csv_text(score.family), str(score.ranked).lower(), str(not why_not).lower()]
    known += [_number(x) for x in (score.value, score.low, score.high, score.gap, *score.gap_interval)]
    known += [score.better, _number(score.target), csv_text(score.unit)]
    known += [csv_text(" ".join(f"{side}={n}" for side, n in score.n.items()))]
    known += [csv_text(x) for x in (score.interval, score.version, score.signature)]
    real_baseline = score.real_baseline
    known += (
        [
            _number(score.seconds),
            *(_number(x) for x in (real_baseline.value, real_baseline.low, real_baseline.high)),
        ]
        if real_baseline
        else [_number(score.seconds), "", "", ""]
    )
    known += [
        csv_text(real_baseline.how) if real_baseline else "",
        _number(score.p_value),
        cell.group if cell else "",
    ]
    return [*known, csv_text("; ".join(dict.fromkeys((*why_not, *score.notes))))]


def _missing_row(entrant: Entrant, metric: str, reason: str) -> list[str]:
    known = [csv_text(x) for x in (entrant.name, entrant.label, entrant.kind, metric)]
    return [*known, *[""] * (len(_SCORE_COLUMNS) - len(known) - 1), csv_text(reason)]


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def caption(board: Leaderboard) -> str:
    """What the table shows, with the real set's own MS-SSIM."""
    real = f" The real (reference) set's own MS-SSIM is {board.real_ms_ssim} %." if board.real_ms_ssim else ""
    return (
        f"Scores with 95 % intervals.{real} gap = distance to it; best in bold among comparable models that "
        "make whole volumes; * = not comparable; controls are never ranked."
    )


def explanations(board: Leaderboard) -> list[str]:
    """What letters, the real baseline and P(first) mean, of those that the table shows."""
    letters = any(cell.group for row in board.rows for cell in row.cells)
    shown = ((LETTERS, letters), (CHANCE, board.has_chances), (BASELINE, bool(board.real_baseline)))
    return [sentence for sentence, there in shown if there]


def name(row: Row) -> str:
    """The paper's name, followed by the run's where that says more."""
    entrant = row.entrant
    model = entrant.run.model if entrant.run else None
    plain_run = entrant.name in (model, entrant.label)
    return entrant.label if plain_run and entrant.kind != "control" else f"{entrant.label} ({entrant.name})"


def companions(row: Row) -> list[Score]:
    """Scores that have no column."""
    shown = {cell.column.metric for cell in row.cells}
    return [score for metric, score in row.entrant.scores.items() if metric not in shown]
