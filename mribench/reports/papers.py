"""Figures and Table 1 for papers: vector files with captions, the same bytes from the same bench."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.cells import cell_len

from mribench import __version__
from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.data.grid import Grid
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError
from mribench.files import SUMS, atomic, write_sums, write_text
from mribench.reports.fields import make_table
from mribench.reports.grid import Table, TableRow, plain, short_names
from mribench.reports.latex import as_table_1
from mribench.reports.page import words
from mribench.reports.page.figures import central_levels, draw_embedding
from mribench.reports.page.intervals import draw_intervals, plotted_scores
from mribench.reports.records import read_embedding, said
from mribench.reports.rows import Leaderboard

FIGURES, FORMATS = ("sheet", "intervals", "tsne"), ("svg", "pdf")
TABLE_1 = "table-1.tex"
_WIDTH, _TITLE = 7.2, 0.19  # inches: two columns of text, and a line
_NAME, _LONGEST_NAME = 20, 24  # characters of a name
_PIXELS, _GAP = 176, 4  # along the longest side of the field of view, and between views
_TSNE_ACROSS, _LARGEST = 5, 2.4  # panels side by side, inches of one
_ACROSS, _ROW = 3, 0.155  # panels of intervals side by side, inches of an entrant
_CONTROL, _TEXT = "#6b7580", 7.5
_STYLE: dict[Any, Any] = {"svg.hashsalt": "mribench", "pdf.fonttype": 42, "font.family": "DejaVu Sans"}
_NO_DATE = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def write_figures(bench: Bench, cohort: Cohort | None, board: Leaderboard) -> None:
    """Write sheet, intervals and t-SNE (each .svg, .pdf and .txt) and Table 1, in the place of earlier ones.

    Each .txt has the caption and a citation line. Volumes that cannot be read are named in the sheet with the reason.
    """
    table, citation = make_table(board), _citation(bench, cohort)
    simulated = words.SIMULATED if cohort is not None and cohort.source == "simulated" else ""
    made = (
        (_sheet(bench, cohort, table), _SHEET),
        (_intervals(table), f"{_INTERVALS} {board.headline}"),
        (_tsne(bench, table), _TSNE),
    )
    remove_figures(bench)
    names = [TABLE_1]
    for name, (figure, caption) in zip(FIGURES, made, strict=True):
        if figure is None:
            continue
        files = [bench.figures / f"{name}.{form}" for form in (*FORMATS, "txt")]
        for form, file in zip(FORMATS, files, strict=False):
            _save(figure, file, form)
        sentences = [caption, _NAMES, _counts(table), simulated]
        write_text(files[-1], plain(" ".join(filter(None, sentences))) + f"\n{citation}\n")
        names += [file.name for file in files]
    write_text(bench.figures / TABLE_1, as_table_1(table, citation))
    write_sums(bench.figures, names)


def remove_figures(bench: Bench) -> None:
    """Remove what `write_figures` wrote, which is no longer of the bench's scores; other files stay."""
    for name in (SUMS, TABLE_1, *(f"{figure}.{form}" for figure in FIGURES for form in (*FORMATS, "txt"))):
        (bench.figures / name).unlink(missing_ok=True)
    with suppress(OSError):  # it is not there, or has other files
        bench.figures.rmdir()


_SHEET = (
    "Central axial, coronal and sagittal slices of the first reference volume and of the first sample of every "
    "entrant; none was selected. Window [0, 1]; the subject's left is on the left. Grey areas: axial slices that an "
    "entrant does not make."
)
_INTERVALS = (
    "Scores with 95 % intervals. Solid line: target. Dashed line and band: what real volumes of other subjects score, "
    "with its 95 % interval. Hollow: not comparable with the others. Arrow: beyond the axis, with the value."
)
_TSNE = (
    "Joint t-SNE of the training volumes and the samples of all entrants; a panel an entrant. Circles: its samples. "
    "Triangles: the training volumes that are most similar to them. Dots: the other training volumes."
)


_NAMES = "Grey names: controls. Asterisk: without a place in the ranking."


def _citation(bench: Bench, cohort: Cohort | None) -> str:
    protocol = bench.protocol
    of = f", cohort {cohort.digest[:12]}" if cohort is not None else ""
    return plain(
        f"Made with mribench {__version__} (cite as in its CITATION.cff), protocol {protocol.name} version "
        f"{protocol.version}, digest {protocol.digest[:12]}{of}."
    )


def _counts(table: Table) -> str:
    counts = {row.counts for row in table.contestants if row.counts}
    return f"Volumes per entrant: {counts.pop()}." if len(counts) == 1 else ""


def _save(figure: Figure, path: Path, form: str) -> None:
    with rc_context(_STYLE), warnings.catch_warnings(), atomic(path) as temporary:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names may be of any script
        figure.savefig(temporary, format=form, metadata=_NO_DATE[form], dpi=150)


def _labels(rows: Sequence[TableRow]) -> list[str]:
    """Names that differ, an asterisk behind those of contestants without a place."""
    names = [row.name if row.kind == "control" else row.title for row in rows]
    short = short_names(names, _NAME, _LONGEST_NAME)
    return [f"{name} *" if row.unranked else name for name, row in zip(short, rows, strict=True)]


def _title(axes: Axes, title: str, control: bool) -> None:
    text = axes.set_title(title, fontsize=_TEXT, pad=3, loc="left", color=_CONTROL if control else "black")
    text.set_parse_math(False)


def _panels(count: int, across: int, height: float, width: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels, `across` in a row, each so many inches high and wide below its title."""
    down, line = math.ceil(count / across), height + _TITLE
    figure = Figure(figsize=(across * width, down * line + 0.05), facecolor="white")
    places = [divmod(i, across) for i in range(count)]
    tall = figure.get_figheight()
    boxes = [
        (column / across + 0.004, 1 - (row + 1) * line / tall, 1 / across - 0.008, height / tall)
        for row, column in places
    ]
    return figure, [figure.add_axes(box) for box in boxes]


def _sheet(bench: Bench, cohort: Cohort | None, table: Table) -> Figure | None:
    """Three views of the first reference volume and of every entrant's first sample."""
    grid = cohort.grid if cohort else bench.protocol.cohort.voxels
    rows = table.contestants + table.controls
    blocks = [
        (label, row.kind == "control", _strip(bench.run(row.name).samples, grid))
        for row, label in zip(rows, _labels(rows), strict=True)
    ]
    if cohort is not None:
        blocks = [("Real (reference)", False, _strip(partial(cohort.set, "reference"), grid)), *blocks]
    if not blocks:
        return None
    shapes = [strip.shape for _, _, strip in blocks if isinstance(strip, np.ndarray)]
    across = 1 + (len(blocks) > 2) + (len(blocks) > 14)
    width = _WIDTH / across
    figure, panels = _panels(
        len(blocks), across, width * (shapes[0][0] / shapes[0][1] if shapes else 0.3), width
    )
    for axes, (title, control, strip) in zip(panels, blocks, strict=True):
        axes.set_axis_off()
        _title(axes, title, control)
        if isinstance(strip, np.ndarray):
            axes.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="none")
        else:
            why = "\n".join(textwrap.wrap(said(strip, bench.folder), 130 // across)[:6])
            axes.text(0, 1, why, fontsize=6, va="top", color=_CONTROL).set_parse_math(False)
    return figure


def _strip(volumes: Callable[[], VolumeSet], grid: Grid) -> np.ndarray | Exception:
    """The views of the first volume side by side `[h,w]` uint8, or why there are none."""
    try:
        of = volumes()
        views = central_levels(of[0], grid, of.slab, grid.longest_mm / _PIXELS)
    except (MribenchError, ValueError) as error:
        return error
    height = max(view.shape[0] for view in views.values())
    padded = []
    for view in views.values():
        missing = height - view.shape[0]
        padded.append(np.pad(view, ((missing // 2, missing - missing // 2), (_GAP // 2, _GAP // 2))))
    return np.hstack(padded)


def _intervals(table: Table) -> Figure | None:
    """A panel per ranked score; all panels have the same entrants in the same order."""
    scores = [scores for scores in plotted_scores(table.of("paper", "score")) if scores[0].family]
    if not scores:
        return None
    rows = table.contestants + table.controls
    across, down = min(_ACROSS, len(scores)), math.ceil(len(scores) / _ACROSS)
    height = _ROW * (len(rows) + 0.2)
    figure = Figure(figsize=(_WIDTH, down * (height + 0.6)), facecolor="white")
    gutter = 0.075 * max(map(cell_len, _labels(rows))) / _WIDTH
    for i, (column, _, baseline) in enumerate(scores):
        cells = [row.cells[table.columns.index(column)] for row in rows]
        place, line = i % across, i // across
        wide = (1 - gutter) / across
        box = (
            gutter + place * wide + 0.01,
            1 - (line + 1) / down + 0.3 / (down * (height + 0.6)),
            wide - 0.03,
            height / (down * (height + 0.6)),
        )
        axes = figure.add_axes(box)
        draw_intervals(axes, (column, list(zip(rows, cells, strict=True)), baseline))
        axes.set_yticks(range(len(rows)), _labels(rows) if place == 0 else [""] * len(rows))
        axes.tick_params(axis="y", pad=7)  # an arrow of a value below the axis stands between
    return figure


def _tsne(bench: Bench, table: Table) -> Figure | None:
    """A panel per entrant of the joint embedding."""
    try:
        points = read_embedding(bench.embedding)
    except MribenchError:
        return None
    there = {point.entrant for point in points if point.kind == "sample"}
    rows = [row for row in table.contestants + table.controls if row.name in there]
    if not rows:
        return None
    across = min(_TSNE_ACROSS, len(rows))
    size = min(_WIDTH / across, _LARGEST)
    figure, panels = _panels(len(rows), across, size, size)
    for axes, row, label in zip(panels, rows, _labels(rows), strict=True):
        draw_embedding(axes, points, row.name, scale=(size / 3) ** 2)
        _title(axes, label, row.kind == "control")
    return figure
