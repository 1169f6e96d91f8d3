"""A picture file of a few volumes in three views, to be looked at before a command is believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mribench.data.grid import Grid
from mribench.files import atomic
from mribench.reports.grid import plain
from mribench.reports.page.figures import central_levels

_INCHES = 2.6  # of one view
_PIXELS = 200  # along the longest side of the field of view


def write_preview(path: Path, rows: Sequence[tuple[str, np.ndarray]], grid: Grid) -> None:
    """Write a PNG with a row of three views for each (title, `[D,H,W]` in [0,1]); the subject's left is on the left."""
    figure = Figure(
        figsize=(3 * _INCHES, (_INCHES + 0.2) * len(rows)), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), 3, squeeze=False)
    pixel_mm = grid.longest_mm / _PIXELS
    for (title, volume), row in zip(rows, panels, strict=True):
        for (view, levels), axes in zip(
            central_levels(volume, grid, None, pixel_mm).items(), row, strict=True
        ):
            axes.imshow(levels, cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(view, fontsize=8)
        row[0].set_ylabel(plain(title)[:40].replace("$", r"\$"), fontsize=8)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png", metadata={"Software": None})
