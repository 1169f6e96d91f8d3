"""One plot per metric: every entrant's value with its interval, the target, and the real baseline."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mribench.reports.grid import Table, TableCell, TableColumn, TableRow
from mribench.reports.page.figures import SHARP, Picture, plotted, short
from mribench.reports.rows import significant

_MODEL, _CONTROL, _BASELINE, _TARGET = "#1f5fa8", "#6b7580", "#cfe6d3", "#2a7f3f"
_INSIDE = "real_heldout"  # the only control that may widen the axis
_ROW_INCHES, _WIDTH_INCHES = 0.19, 4.4

Marks = Sequence[tuple[TableRow, TableCell]]
Scores = tuple[
    TableColumn, Marks, Sequence[float]
]  # a column, who has what there, the real baseline's values


def interval_plots(table: Table) -> list[tuple[bool, Picture]]:
    """A plot per column (MS-SSIM once), then one per companion score that two entrants have: (companion?, plot)."""
    drawn = plotted_scores(table.of("paper", "score", "companion"))
    return [(scores[0].kind == "companion", _plot(*scores)) for scores in drawn]


def plotted_scores(table: Table) -> list[Scores]:
    """The columns that two entrants have, without distances from a target."""
    scores: list[Scores] = []
    for i, column in enumerate(table.columns):
        marks = [(row, row.cells[i]) for row in table.contestants + table.controls if row.cells[i].values]
        if len(marks) > 1 and not column.gap:
            scores.append((column, marks, table.baseline[0].cells[i].values if table.baseline else ()))
    return scores


def _plot(column: TableColumn, marks: Marks, baseline: Sequence[float]) -> Picture:
    height = _ROW_INCHES * len(marks) + 0.62
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=100)
    left = min(0.4, 0.04 + 0.0145 * max(len(short(_label(row))) for row, _ in marks))
    axes = figure.add_axes((left, 0.3 / height, 0.95 - left, (height - 0.62) / height))
    draw_intervals(axes, (column, marks, baseline))
    return plotted(figure, _alt(column, marks, baseline), SHARP)


def draw_intervals(axes: Axes, scores: Scores) -> None:
    """Every entrant's value, if any, with its interval; the target as a line, the real baseline as a band."""
    column, marks, baseline = scores
    targets = [] if column.target is None else [column.target]
    low, high = limits([mark for mark in marks if mark[1].values], [*baseline, *targets], column.bounds)
    if baseline:
        axes.axvspan(baseline[1], baseline[2], color=_BASELINE, linewidth=0)
        axes.axvline(baseline[0], color=_TARGET, linewidth=1, linestyle="--")
    for target in targets:
        axes.axvline(target, color=_TARGET, linewidth=1.2)
    for y, (row, cell) in enumerate(marks):
        if cell.values:
            _draw(axes, y, cell, _CONTROL if row.kind == "control" else _MODEL, low, high)
    _dress(axes, column.title, marks)
    axes.set(xlim=(low, high), ylim=(len(marks) - 0.4, -0.6))


def _label(row: TableRow) -> str:
    return row.name if row.kind == "control" else row.title


def limits(marks: Marks, others: Sequence[float], bounds: tuple[float, float]) -> tuple[float, float]:
    """The models, real volumes, target and real baseline; other controls may be so bad that they hide the rest."""
    inner = [cell for row, cell in marks if row.kind != "control" or row.name == _INSIDE]
    ends = [*(end for cell in inner or [cell for _, cell in marks] for end in cell.values[1:]), *others]
    if min(ends) == max(ends):
        ends = [ends[0], ends[0] + (abs(ends[0]) or 1.0)]
    width = max(ends) - min(ends)
    # A little over where the quantity itself ends, so that a mark there is whole.
    low, high = max(min(ends) - 0.05 * width, bounds[0]), min(max(ends) + 0.05 * width, bounds[1])
    return low - 0.02 * width, high + 0.02 * width


def _draw(axes: Axes, y: int, cell: TableCell, colour: str, first: float, last: float) -> None:
    """A dot on its interval; beyond the axis an arrow at the edge, with the value."""
    value, low, high = cell.values
    if first <= value <= last:
        axes.plot((low, high), (y, y), color=colour, linewidth=1.6, solid_capstyle="butt")
        face = "white" if cell.starred else colour
        axes.plot(value, y, "o", color=colour, markerfacecolor=face, markersize=5, clip_on=False)
        return
    edge, arrow, side, shift = (first, "<", "left", 9) if value < first else (last, ">", "right", -9)
    text = axes.annotate(significant(value), (edge, y), xytext=(shift, 0), textcoords="offset points")
    text.set(ha=side, va="center", fontsize=7, color=colour)
    axes.plot(edge, y, arrow, color=colour, markersize=5, clip_on=False)


def _dress(axes: Axes, title: str, marks: Marks) -> None:
    axes.set_yticks(range(len(marks)), [short(_label(row)) for row, _ in marks], fontsize=7.5)
    for tick, (row, _) in zip(axes.get_yticklabels(), marks, strict=True):
        tick.set_parse_math(False)
        tick.set_color(_CONTROL if row.kind == "control" else "black")
    heading = axes.set_title(title.replace("(x10", "(×10"), fontsize=9, loc="left", fontweight="bold")
    heading.set_parse_math(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", labelsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e6e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _alt(column: TableColumn, marks: Marks, baseline: Sequence[float]) -> str:
    lines = [] if column.target is None else [f"target {significant(column.target)}"]
    lines += [f"real volumes {significant(baseline[0])}"] if baseline else []
    for row, cell in marks:
        value, low, high = (significant(x) for x in cell.values)
        lines.append(f"{_label(row)} {value} [{low}, {high}]")
    return f"{column.title} with 95 % intervals. {'; '.join(lines)}"
