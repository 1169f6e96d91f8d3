"""The leaderboard for papers (LaTeX, booktabs); nothing in a name is ever a command."""

from __future__ import annotations

from mribench.reports.grid import Table, TableCell, TableRow, plain

_TEX = {
    **{c: f"\\{c}" for c in "{}$&#%_"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", '"': "''"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--"},
    **{"³": r"$^3$", "α": r"$\alpha$", "≈": r"$\approx$"},
}


def as_tex(table: Table) -> str:
    """table.tex: a table with booktabs rules; controls below a rule, the real baseline below another."""
    table = table.of("chance", "excess", "gates", "paper", "score")
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped(' '.join((*table.lead, table.caption)))}}}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        " & ".join(["model", *(_escaped(column.title) for column in table.columns)]) + r" \\",
        *(line for rows in table.groups for line in ("\\midrule", *map(_row, rows))),
        "\\bottomrule",
        "\\end{tabular}",
        *_notes(table),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def as_table_1(table: Table, citation: str) -> str:
    """Table 1 in the form of Peng et al.: the gap in brackets behind MS-SSIM, MMD, FID per view; no intervals.

    Columns are those of TABLE_1 that have a score; contestants in their order, the real baseline below a rule.
    """
    table = table.of("paper")
    columns = [(i, column) for i, column in enumerate(table.columns) if not column.gap]
    gaps = {column.metric: i for i, column in enumerate(table.columns) if column.gap}
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped(_caption_1(table, citation))}}}",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(["", *(_escaped(column.title) for _, column in columns)]) + r" \\",
    ]
    for rows in (table.ranked, table.unranked, table.baseline):
        lines += ["\\midrule"] if rows else []
        for row in rows:
            cells = [_short_cell(row, i, gaps.get(column.metric)) for i, column in columns]
            lines.append(" & ".join([_escaped(row.title), *cells]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _caption_1(table: Table, citation: str) -> str:
    counts = {row.counts for row in table.contestants if row.counts}
    sentences = (
        f"Scores of {' / '.join(sorted(counts))} volumes." if counts else "",
        f"In brackets: distance from the MS-SSIM of the real volumes ({table.real_ms_ssim} %)."
        if table.real_ms_ssim
        else "",
        "Bold: best of the comparable models that make whole volumes; * = not comparable.",
        "Below the last rule: what real volumes of other subjects score." if table.baseline else "",
        *table.warnings,
        citation,
    )
    return " ".join(filter(None, sentences))


def _short_cell(row: TableRow, index: int, gap: int | None) -> str:
    """ "78.6 (0.6)", bold where it is the best."""
    cell = row.cells[index]
    text = _number(cell.text) + (
        f" ({_number(row.cells[gap].text)})" if gap is not None and cell.values else ""
    )
    text = rf"\textbf{{\boldmath {text}}}" if cell.best else text
    return text + ("$^{*}$" if cell.starred else "")


def _escaped(text: object) -> str:
    """Text that LaTeX prints and never runs; characters beyond Latin-1 become a question mark."""
    return "".join(_TEX.get(c, c if ord(c) < 256 else "?") for c in plain(text))


def _row(row: TableRow) -> str:
    return " & ".join([_escaped(row.title), *map(_cell, row.cells)]) + r" \\"


def _cell(cell: TableCell) -> str:
    marks = ("*" if cell.starred else "") + ",".join(map(str, cell.footnotes))
    raised = "\\,".join(
        part for part in (rf"\mathrm{{{cell.letters}}}" if cell.letters else "", marks) if part
    )
    value = _number(cell.text)
    value = rf"\textbf{{\boldmath {value}}}" if cell.best else value
    value += f"$^{{{raised}}}$" if raised else ""
    if not cell.interval:
        return value
    low, high = _number(cell.low), _number(cell.high)
    return rf"\shortstack{{{value}\\{{\scriptsize {{[}}{low}, {high}{{]}}}}}}"


def _number(text: str) -> str:
    return f"${text}$" if text.startswith("-") else _escaped(text)


def _notes(table: Table) -> list[str]:
    said = [_escaped(line) for line in (*table.explanations, *table.remarks)]
    said += [f"$^{{{i}}}$ {_escaped(note.rstrip('.'))}." for i, note in enumerate(table.footnotes, 1)]
    said += [_escaped(problem) for problem in table.problems]
    return [rf"\par\medskip\footnotesize {' '.join(said)}"] if said else []
