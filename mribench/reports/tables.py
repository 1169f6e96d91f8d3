"""The leaderboard for spreadsheets (CSV), papers (LaTeX, booktabs) and terminals; names are inert in each."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

from mribench.metrics.metric import Score
from mribench.reports.records import Entrant
from mribench.reports.rows import TABLE_1, Cell, Column, Leaderboard, Row, fixed, significant

LEGEND = (
    "^ best of the comparable models that make whole volumes   ~ not distinguishable from the best (95 %)   "
    "* not comparable   [n] see below"
)
_FORMULA = ("=", "+", "-", "@", "|", "%")  # what a spreadsheet may take for a formula or a command
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "³": r"$^3$",
    "–": "--",
    "α": r"$\alpha$",
    "≈": r"$\approx$",
}


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


def tex_text(text: object) -> str:
    """Text that LaTeX prints and never runs; characters beyond Latin-1 become a question mark."""
    return "".join(_TEX.get(c, c if ord(c) < 256 else "?") for c in plain(text))


def as_csv(board: Leaderboard) -> str:
    """table.csv: run, model, Table 1's columns, their intervals, n, notes, then everything else."""
    extra = [column for column in board.columns if column not in TABLE_1]
    header = ["run", "model", *(c.title for c in TABLE_1), *_interval_titles(TABLE_1), "n", "notes", "kind"]
    header += [*(c.title for c in extra), *_interval_titles(extra), "mean rank", *_COSTS]
    return _csv(header, [_csv_row(row, extra) for row in board.rows])


_COSTS = ("parameters", "volumes seen", "training seconds", "seconds per volume", "device")


def _csv_row(row: Row, extra: Sequence[Column]) -> list[str]:
    entrant = row.entrant
    known = [
        csv_text(entrant.name),
        csv_text(entrant.label),
        *_values(row, TABLE_1),
        *_intervals(row, TABLE_1),
    ]
    known += [counts(entrant), csv_text("; ".join(_notes(row))), entrant.kind]
    known += [*_values(row, extra), *_intervals(row, extra), _number(row.rank)]
    known += [_number(x) for x in (entrant.parameters, entrant.seen, entrant.training_seconds)]
    return [*known, _number(entrant.seconds_per_volume), csv_text(entrant.devices)]


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
    return [*known, _number(score.seconds), csv_text("; ".join(dict.fromkeys((*why_not, *score.notes))))]


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


def as_tex(board: Leaderboard) -> str:
    """table.tex: a table with booktabs rules; controls below a rule."""
    titles = ["model", *(tex_text(column.title) for column in board.columns), "mean rank"]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{tex_text(caption(board))}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
        "\\toprule",
        " & ".join(titles) + r" \\",
        "\\midrule",
        *(_tex_row(board, row) for row in board.contestants),
        *(["\\midrule"] if board.contestants and board.controls else []),
        *(_tex_row(board, row) for row in board.controls),
        "\\bottomrule",
        "\\end{tabular}",
        *_tex_notes(board),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex_row(board: Leaderboard, row: Row) -> str:
    cells = (_tex_cell(board, cell) for cell in row.cells)
    return " & ".join([tex_text(name(row)), *cells, _tex_rank(board, row)]) + r" \\"


def _tex_rank(board: Leaderboard, row: Row) -> str:
    if row.rank is not None:
        return _tex_bold(fixed(row.rank, 2), row.best)
    return f"--$^{{{board.numbers([row.unranked])[0]}}}$" if row.unranked else "--"


def _tex_cell(board: Leaderboard, cell: Cell) -> str:
    marks = ("*" if cell.why_not else "") + ",".join(str(n) for n in board.numbers(cell.remarks))
    mark = f"$^{{{marks}}}$" if marks else ""
    if cell.score is None:
        return f"--{mark}"
    value = _tex_bold(_tex_number(cell.text), cell.best)
    _, low, high = cell.texts
    return rf"\shortstack{{{value}{mark}\\{{\scriptsize {{[}}{_tex_number(low)}, {_tex_number(high)}{{]}}}}}}"


def _tex_number(text: str) -> str:
    return f"${text}$" if text.startswith("-") else text


def _tex_bold(text: str, bold: bool) -> str:
    return rf"\textbf{{\boldmath {text}}}" if bold else text


def _tex_notes(board: Leaderboard) -> list[str]:
    notes = [f"$^{{{i}}}$ {tex_text(note.rstrip('.'))}." for i, note in enumerate(board.footnotes, 1)]
    said = [*(tex_text(remark) for remark in board.remarks), *notes]
    said += [
        tex_text(f"{row.entrant.name}: {problem}") for row in board.rows for problem in row.entrant.problems
    ]
    return [rf"\par\medskip\footnotesize {' '.join(said)}"] if said else []


def name(row: Row) -> str:
    """The paper's name, followed by the run's where that says more."""
    entrant = row.entrant
    model = entrant.run.model if entrant.run else None
    plain_run = entrant.name in (model, entrant.label)
    return entrant.label if plain_run and entrant.kind != "control" else f"{entrant.label} ({entrant.name})"


def as_text(board: Leaderboard) -> str:
    """For a terminal: a table, or for a single entrant a list with intervals."""
    grid = _list(board, board.rows[0]) if len(board.rows) == 1 else _table(board)
    notes = [f"[{i}] {plain(note)}" for i, note in enumerate(board.footnotes, 1)]
    problems = [
        plain(f"{row.entrant.name}: {problem}") for row in board.rows for problem in row.entrant.problems
    ]
    legend = [LEGEND] if len(board.rows) > 1 else []
    real = [f"Real MS-SSIM: {board.real_ms_ssim} %"] if board.real_ms_ssim else []
    said = [] if len(board.rows) == 1 else [plain(remark) for remark in board.remarks]
    return "\n".join([*grid, "", *real, *legend, *said, *problems, *notes]).strip() + "\n"


def _list(board: Leaderboard, row: Row) -> list[str]:
    lines = [
        [column.title, _text_cell(board, row.cell(column.key)), row.cell(column.key).interval]
        for column in board.columns
    ]
    lines += [_companion(score) for score in companions(row.entrant)]
    return [plain(name(row)), "", *_aligned([["metric", "value", "95 % interval"], *lines])]


def companions(entrant: Entrant) -> list[Score]:
    """Scores that have no column."""
    shown = {"ms_ssim", "mmd", "fid_a", "fid_c", "fid_s", "memorisation", "copy_rate"}
    return [score for metric, score in entrant.scores.items() if metric not in shown]


def _companion(score: Score) -> list[str]:
    interval = f"[{significant(score.low)}, {significant(score.high)}]"
    return [plain(f"{score.title} {score.unit}"), significant(score.value), interval]


def _table(board: Leaderboard) -> list[str]:
    header = ["model", *(column.title for column in board.columns), "mean rank"]
    body = [_text_row(board, row) for row in board.contestants]
    below = [_text_row(board, row) for row in board.controls]
    lines = _aligned([header, *body, *below])
    rule = "-" * max(len(line) for line in lines)
    return [lines[0], rule, *lines[1 : 1 + len(body)], *([rule, *lines[1 + len(body) :]] if below else [])]


def _text_row(board: Leaderboard, row: Row) -> list[str]:
    known = row.entrant.name if row.entrant.kind == "control" else name(row)
    return [plain(known)[:40], *(_text_cell(board, cell) for cell in row.cells), _text_rank(board, row)]


def _text_rank(board: Leaderboard, row: Row) -> str:
    if row.rank is not None:
        return f"{fixed(row.rank, 2)}{'^' if row.best else ''}"
    return f"-[{board.numbers([row.unranked])[0]}]" if row.unranked else "-"


def _text_cell(board: Leaderboard, cell: Cell) -> str:
    numbers = ",".join(str(n) for n in board.numbers(cell.remarks))
    marks = ("^" if cell.best else "~" if cell.tied else "") + ("*" if cell.why_not else "")
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
