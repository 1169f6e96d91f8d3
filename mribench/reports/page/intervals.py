"""One plot per metric: every entrant's value with its interval, the target, and the real baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mribench.metrics.score import Score
from mribench.reports.page.figures import SHARP, Picture, plotted, short
from mribench.reports.rows import Column, Leaderboard, Row, significant
from mribench.reports.tables import companions, name

MODEL, CONTROL, BASELINE, TARGET = "#1f5fa8", "#6b7580", "#cfe6d3", "#2a7f3f"
INSIDE = "real_heldout"  # the only control that may widen the axis
ROW_INCHES, WIDTH_INCHES = 0.19, 4.4


@dataclass(frozen=True)
class Mark:
    """One entrant's line, in the units of the table. A score that is not comparable has a hollow mark."""

    name: str
    label: str
    value: float
    low: float
    high: float
    control: bool
    comparable: bool


def interval_plots(board: Leaderboard, usual: Mapping[str, Score]) -> list[Picture]:
    """A plot per column (MS-SSIM once), then one per companion score that two entrants have."""
    columns = [column for column in board.columns if column.key != "gap"]
    known = {column.metric for column in columns}
    for score in (score for row in board.rows for score in companions(row)):
        if score.metric not in known:
            known.add(score.metric)
            columns.append(Column(score.metric, score.title, score.metric, score.better))
    plots = []
    for column in columns:
        marks = [mark for row in board.rows if (mark := _mark(row, column, usual)) is not None]
        if len(marks) > 1:
            plots.append(_plot(column, marks, usual.get(column.metric)))
    return plots


def _mark(row: Row, column: Column, usual: Mapping[str, Score]) -> Mark | None:
    entrant = row.entrant
    score = entrant.scores.get(column.metric)
    if score is None:
        return None
    same = column.metric in usual and usual[column.metric].version == score.version
    cells = [cell for cell in row.cells if cell.column.metric == column.metric]
    comparable = cells[0].comparable if cells else same and row.whole and not entrant.doubts
    numbers = column.numbers(score)
    control = entrant.kind == "control"
    return Mark(entrant.name, entrant.name if control else name(row), *numbers, control, comparable)


def _plot(column: Column, marks: Sequence[Mark], usual: Score | None) -> Picture:
    height = ROW_INCHES * len(marks) + 0.62
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=100)
    left = min(0.4, 0.04 + 0.0145 * max(len(short(mark.label)) for mark in marks))
    axes = figure.add_axes((left, 0.3 / height, 0.95 - left, (height - 0.62) / height))
    real_baseline = usual.real_baseline if usual else None
    band = column.baseline_numbers(real_baseline, usual.target) if usual and real_baseline else None
    target = usual.target * column.scale if usual and usual.target is not None else None
    low, high = _limits(marks, [*(band or ()), *([] if target is None else [target])], column.bounds)
    if band:
        axes.axvspan(band[1], band[2], color=BASELINE, linewidth=0)
        axes.axvline(band[0], color=TARGET, linewidth=1, linestyle="--")
    if target is not None:
        axes.axvline(target, color=TARGET, linewidth=1.2)
    for y, mark in enumerate(marks):
        _draw(axes, y, mark, low, high)
    _dress(axes, column, marks, (low, high))
    return plotted(figure, _alt(column, marks, band, target), SHARP)


def _limits(
    marks: Sequence[Mark], others: Iterable[float], bounds: tuple[float, float]
) -> tuple[float, float]:
    """The models, real volumes, target and real baseline; other controls may be so bad that they hide the rest."""
    inner = [mark for mark in marks if not mark.control or mark.name == INSIDE] or marks
    ends = [*(end for mark in inner for end in (mark.low, mark.high)), *others]
    if min(ends) == max(ends):
        ends = [ends[0], ends[0] + (abs(ends[0]) or 1.0)]
    width = max(ends) - min(ends)
    # A little over where the quantity itself ends, so that a mark there is whole.
    low, high = max(min(ends) - 0.05 * width, bounds[0]), min(max(ends) + 0.05 * width, bounds[1])
    return low - 0.02 * width, high + 0.02 * width


def _draw(axes: Axes, y: int, mark: Mark, low: float, high: float) -> None:
    colour = CONTROL if mark.control else MODEL
    if not low <= mark.value <= high:
        left = mark.value < low
        axes.annotate(
            significant(mark.value),
            (low if left else high, y),
            xytext=(9 if left else -9, 0),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center",
            fontsize=7,
            color=colour,
        )
        axes.plot(low if left else high, y, "<" if left else ">", color=colour, markersize=5, clip_on=False)
        return
    axes.plot((mark.low, mark.high), (y, y), color=colour, linewidth=1.6, solid_capstyle="butt")
    face = colour if mark.comparable else "white"
    axes.plot(mark.value, y, "o", color=colour, markerfacecolor=face, markersize=5, clip_on=False)


def _dress(axes: Axes, column: Column, marks: Sequence[Mark], limits: tuple[float, float]) -> None:
    axes.set(xlim=limits, ylim=(len(marks) - 0.4, -0.6), yticks=range(len(marks)))
    texts = axes.set_yticklabels([short(mark.label) for mark in marks], fontsize=7.5)
    for text, mark in zip(texts, marks, strict=True):
        text.set_parse_math(False)
        text.set_color(CONTROL if mark.control else "black")
    title = axes.set_title(column.title.replace("(x10", "(×10"), fontsize=9, loc="left", fontweight="bold")
    title.set_parse_math(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", labelsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e6e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _alt(
    column: Column, marks: Sequence[Mark], band: tuple[float, float, float] | None, target: float | None
) -> str:
    values = "; ".join(
        f"{mark.label} {significant(mark.value)} [{significant(mark.low)}, {significant(mark.high)}]"
        for mark in marks
    )
    lines = ([f"target {significant(target)}"] if target is not None else []) + (
        [f"real volumes {significant(band[0])}"] if band else []
    )
    return f"{column.title} with 95 % intervals. {'; '.join([*lines, values])}"
