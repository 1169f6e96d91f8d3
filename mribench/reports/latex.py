"""The leaderboard for papers (LaTeX, booktabs); nothing in a name is ever a command."""

from __future__ import annotations

from collections.abc import Sequence

from mribench.reports.rows import BaselineCell, Cell, Leaderboard, Row, fixed, percent
from mribench.reports.tables import BASELINE_NAME, caption, explanations, name, plain

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
    '"': r"''",
    "³": r"$^3$",
    "–": "--",
    "α": r"$\alpha$",
    "≈": r"$\approx$",
}


def tex_text(text: object) -> str:
    """Text that LaTeX prints and never runs; characters beyond Latin-1 become a question mark."""
    return "".join(_TEX.get(c, c if ord(c) < 256 else "?") for c in plain(text))


def as_tex(board: Leaderboard) -> str:
    """table.tex: a table with booktabs rules; controls below a rule, the real baseline below another."""
    titles = ["model", *(tex_text(column.title) for column in board.columns), "mean rank"]
    titles += ["P(first)"] if board.has_chances else []
    groups = [
        [_tex_row(board, row) for row in board.contestants],
        [_tex_row(board, row) for row in board.controls],
        [_tex_baseline(board.real_baseline, len(titles))] if board.real_baseline else [],
    ]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{tex_text(caption(board))}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
        "\\toprule",
        " & ".join(titles) + r" \\",
        *(line for group in groups if group for line in ("\\midrule", *group)),
        "\\bottomrule",
        "\\end{tabular}",
        *_tex_notes(board),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex_row(board: Leaderboard, row: Row) -> str:
    cells = [tex_text(name(row)), *(_tex_cell(board, cell) for cell in row.cells), _tex_rank(board, row)]
    if board.has_chances:
        cells.append(tex_text(percent(row.chances[0])) if row.chances else "--")
    return " & ".join(cells) + r" \\"


def _tex_baseline(real_baseline: Sequence[BaselineCell], width: int) -> str:
    cells = [
        BASELINE_NAME,
        *(_tex_interval(*cell.texts) if cell.real_baseline else "--" for cell in real_baseline),
    ]
    return " & ".join(cells + [""] * (width - len(cells))) + r" \\"


def _tex_rank(board: Leaderboard, row: Row) -> str:
    if row.rank is not None:
        return _tex_bold(fixed(row.rank, 2), row.best)
    return f"--$^{{{board.numbers([row.unranked])[0]}}}$" if row.unranked else "--"


def _tex_cell(board: Leaderboard, cell: Cell) -> str:
    marks = ("*" if cell.why_not else "") + ",".join(str(n) for n in board.numbers(cell.remarks))
    letters = rf"\mathrm{{{cell.group}}}" if cell.group else ""
    mark = "\\,".join(part for part in (letters, marks) if part)
    mark = f"$^{{{mark}}}$" if mark else ""
    if cell.score is None:
        return f"--{mark}"
    value, low, high = cell.texts
    return _tex_interval(value, low, high, mark, cell.best)


def _tex_interval(value: str, low: str, high: str, mark: str = "", bold: bool = False) -> str:
    above = _tex_bold(_tex_number(value), bold)
    return rf"\shortstack{{{above}{mark}\\{{\scriptsize {{[}}{_tex_number(low)}, {_tex_number(high)}{{]}}}}}}"


def _tex_number(text: str) -> str:
    return f"${text}$" if text.startswith("-") else text


def _tex_bold(text: str, bold: bool) -> str:
    return rf"\textbf{{\boldmath {text}}}" if bold else text


def _tex_notes(board: Leaderboard) -> list[str]:
    notes = [f"$^{{{i}}}$ {tex_text(note.rstrip('.'))}." for i, note in enumerate(board.footnotes, 1)]
    said = [*(tex_text(line) for line in (*explanations(board), *board.remarks)), *notes]
    said += [
        tex_text(f"{row.entrant.name}: {problem}") for row in board.rows for problem in row.entrant.problems
    ]
    return [rf"\par\medskip\footnotesize {' '.join(said)}"] if said else []
