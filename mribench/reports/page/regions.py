"""A forest plot per entrant: every trait's effect size and ratio of spreads, with intervals and corrected p values."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mribench.metrics.regions import RegionRow
from mribench.reports.page.figures import SAMPLE, SHARP, Picture, plotted
from mribench.reports.page.pictures import Group
from mribench.reports.records import Entrant

LEVEL = 0.05  # of the Holm-corrected p values
_DIFFERENT, _ALIKE, _LINE = "#c0392b", SAMPLE, "#2a7f3f"
# The same axes for every entrant, so that panels compare; what lies beyond has an arrow at the edge.
_D_ENDS, _SPREAD_ENDS = (-3.0, 3.0), (0.25, 4.0)


def forests(entrants: Sequence[Entrant]) -> tuple[list[Group], str]:
    """A plot for every scored entrant or its reason, or the reason why there are none."""
    scored = [entrant for entrant in entrants if entrant.scores]
    if not any(entrant.regions for entrant in scored):
        reasons = [entrant.missing["anatomy"] for entrant in scored if "anatomy" in entrant.missing]
        return [], reasons[0] if reasons else "No entrant has a score of anatomy."
    return [_group(entrant) for entrant in scored], ""


def _group(entrant: Entrant) -> Group:
    if entrant.regions:
        return Group(entrant, picture=forest(entrant.regions, entrant.label))
    return Group(entrant, problem=entrant.missing.get("anatomy", "It has no score of anatomy."))


def forest(rows: Sequence[RegionRow], label: str) -> Picture:
    """Two panels: Cohen's d, and the ratio of the standard deviations on a logarithmic axis."""
    height = 0.19 * len(rows) + 0.62
    figure = Figure(figsize=(5.2, height), dpi=100)
    size = (0.3 / height, (height - 0.62) / height)
    effect = figure.add_axes((0.245, size[0], 0.345, size[1]))
    spread = figure.add_axes((0.635, size[0], 0.345, size[1]))
    spread.set_xscale("log")
    for y, row in enumerate(rows):
        _draw(effect, y, (row.d, row.d_low, row.d_high), _D_ENDS, row.p_mean)
        _draw(spread, y, (row.spread, row.spread_low, row.spread_high), _SPREAD_ENDS, row.p_spread)
    _dress(effect, "Cohen's d", 0.0, _D_ENDS, len(rows))
    _dress(spread, "ratio of spreads", 1.0, _SPREAD_ENDS, len(rows))
    effect.set_yticks(range(len(rows)), [row.trait for row in rows], fontsize=7.5)
    spread.set_xticks((0.25, 0.5, 1, 2, 4), ("1/4", "1/2", "1", "2", "4"))
    spread.xaxis.set_minor_locator(NullLocator())
    spread.set_yticks([])
    return plotted(figure, _alt(rows, label), SHARP)


def _draw(
    axes: Axes, y: int, interval: tuple[float, float, float], ends: tuple[float, float], p: float
) -> None:
    """A dot on its interval, cut at the ends of the axis; beyond them an arrow."""
    (value, *sides), (first, last) = interval, ends
    colour = _DIFFERENT if p <= LEVEL else _ALIKE
    low, high = (min(max(side, first), last) for side in sides)
    axes.plot((low, high), (y, y), color=colour, linewidth=1.6, solid_capstyle="butt")
    marker = "<" if value < first else ">" if value > last else "o"
    face = colour if p <= LEVEL else "white"
    axes.plot(
        min(max(value, first), last),
        y,
        marker,
        color=colour,
        markerfacecolor=face,
        markersize=5,
        clip_on=False,
    )


def _dress(axes: Axes, title: str, target: float, ends: tuple[float, float], count: int) -> None:
    axes.axvline(target, color=_LINE, linewidth=1.2, zorder=0)
    axes.set_title(title, fontsize=8.5, loc="left", fontweight="bold")
    axes.set(xlim=ends, ylim=(count - 0.4, -0.6))
    axes.tick_params(axis="x", labelsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e6e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _alt(rows: Sequence[RegionRow], label: str) -> str:
    lines = [
        f"{row.trait}: {row.change:+.1f} %, d {row.d:.2f} [{row.d_low:.2f}, {row.d_high:.2f}] p {row.p_mean:.2g}, "
        f"spread {row.spread:.2f} [{row.spread_low:.2f}, {row.spread_high:.2f}] p {row.p_spread:.2g}"
        for row in rows
    ]
    return f"Region volumes of {label} against the reference, 95 % intervals, Holm-corrected p. {'; '.join(lines)}"
