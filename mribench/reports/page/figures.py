"""Pictures as data URIs: central slices in their true aspect, t-SNE panels, training curves."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image
from scipy.ndimage import zoom

from mribench.bench.records import TrainingStep
from mribench.data.grid import Grid
from mribench.data.volume_set import Slab
from mribench.reports.grid import plain
from mribench.reports.records import Point

SAMPLE, _NEAREST, _REST = "#1f5fa8", "#e07b00", "#a3abb3"
SHARP = 2  # pixels drawn per pixel shown, for plots with text
_ABSENT = 0.5  # grey of slices that a slab entrant does not make
_LINES = (SAMPLE, _NEAREST, "#2a7f3f", "#9b3fa0", "#7a5c2e", "#c0392b")
_MOST_POINTS = 1500  # of one training curve, so that the page stays small
_SCORE_INCHES = 0.95  # of a score below the losses
_MOST_LETTERS = 26  # of a name in a plot


@dataclass(frozen=True)
class Picture:
    """One image; `width` and `height` in pixels, `alt` says in words what it shows."""

    uri: str
    alt: str
    width: int
    height: int


def central_pictures(
    volume: np.ndarray, grid: Grid, slab: Slab | None, pixel_mm: float, alt: str
) -> tuple[Picture, ...]:
    """The three central slices of `[D,H,W]` in [0,1], as `central_levels`."""
    levels = central_levels(volume, grid, slab, pixel_mm)
    return tuple(
        Picture(image_uri(grey, lossless=True), f"{alt}, {view} view", grey.shape[1], grey.shape[0])
        for view, grey in levels.items()
    )


def central_levels(
    volume: np.ndarray, grid: Grid, slab: Slab | None, pixel_mm: float
) -> dict[str, np.ndarray]:
    """View -> its central slice `[h,w]` uint8 at the window [0,1], square pixels of `pixel_mm`.

    Neurological convention: the subject's left is on the left; anterior is up in axial and right in sagittal
    views, superior is up in coronal and sagittal views.
    """
    volume = whole_volume(volume, grid, slab)
    d, h, w = (n // 2 for n in volume.shape)
    x, y, z = grid.spacing_mm
    cuts = (("axial", volume[d], y, x), ("coronal", volume[:, h], z, x), ("sagittal", volume[:, :, w], z, y))
    return {
        view: grey_levels(stretched(plane[::-1], (down / pixel_mm, across / pixel_mm)))
        for view, plane, down, across in cuts
    }


def whole_volume(volume: np.ndarray, grid: Grid, slab: Slab | None) -> np.ndarray:
    """`[D,H,W]` with grey in place of the axial slices that a slab lacks."""
    if slab is None:
        return volume
    whole = np.full((grid.shape[0], *volume.shape[1:]), _ABSENT, dtype=np.float32)
    whole[slab[0] : slab[1]] = volume
    return whole


def stretched(voxels: np.ndarray, factors: tuple[float, ...]) -> np.ndarray:
    """An array with its axes stretched; where a voxel comes to cover several it stays visible as a voxel."""
    order = 0 if min(factors) >= 2 else 1
    result: np.ndarray = zoom(voxels, factors, order=order, mode="nearest", grid_mode=True)
    return result


def grey_levels(plane: np.ndarray) -> np.ndarray:
    """[0,1] -> 0 to 255 at the fixed window [0,1], whatever the plane's own range."""
    levels: np.ndarray = np.round(np.clip(plane, 0, 1) * 255).astype(np.uint8)
    return levels


def image_uri(levels: np.ndarray, **options: Any) -> str:
    """`[h,w]` or `[h,w,3]` uint8 as an image inside the page: WebP, which is a third smaller than PNG."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "webp", **options)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def plotted(figure: Figure, alt: str, sharp: int = 1) -> Picture:
    """A figure as a picture that is shown at 1/`sharp` of its size."""
    figure.set_dpi(figure.get_dpi() * sharp)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names may be of any script
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    width, height = canvas.get_width_height()
    return Picture(image_uri(pixels, lossless=True), alt, width // sharp, height // sharp)


def short(name: str) -> str:
    """A name as a label of a plot."""
    line = plain(name)
    return line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 1]}…"


def embedding_panel(points: Sequence[Point], entrant: str, label: str) -> Picture:
    """One entrant in the joint t-SNE, as `draw_embedding`."""
    figure = Figure(figsize=(3, 3), dpi=110)
    samples, near, train = draw_embedding(figure.add_axes((0.01, 0.01, 0.98, 0.98)), points, entrant)
    alt = f"t-SNE panel of {label}: {samples} samples, {near} nearest of {train} training volumes"
    return plotted(figure, alt)


def draw_embedding(
    axes: Axes, points: Sequence[Point], entrant: str, scale: float = 1.0
) -> tuple[int, int, int]:
    """Samples blue, their nearest training volumes orange, the rest grey. Returns how many: samples, nearest, all.

    `scale` multiplies the area of a mark.
    """
    samples = [point for point in points if point.kind == "sample" and point.entrant == entrant]
    names = {point.nearest for point in samples}
    train = [point for point in points if point.kind == "train"]
    near = [point for point in train if point.name in names]
    rest = [point for point in train if point.name not in names]
    axes.set(xticks=[], yticks=[], xlim=_limits([p.x for p in points]), ylim=_limits([p.y for p in points]))
    size = scale * float(np.clip(9000 / len(points), 8, 40))
    for layer, colour, marker in ((rest, _REST, "."), (near, _NEAREST, "^"), (samples, SAMPLE, "o")):
        x, y = [point.x for point in layer], [point.y for point in layer]
        axes.scatter(x, y, s=size, c=colour, marker=marker, linewidths=0)
    for spine in axes.spines.values():
        spine.set_color("#c4c8cc")
    return len(samples), len(near), len(train)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Of all points, so that every panel has the same."""
    margin = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def training_curves(records: Sequence[TrainingStep], label: str) -> Picture:
    """Losses against volumes seen, every record pale, their running mean dark; below them, scores of that time."""
    names = sorted({name for record in records for name in record.losses})
    scored = sorted({name for record in records for name in record.scores})
    inches = 2.9 + _SCORE_INCHES * len(scored)
    figure = Figure(figsize=(5.2, inches), dpi=110)
    axes = figure.add_axes((0.13, 1 - 2.44 / inches, 0.84, 2.32 / inches))
    lowest = np.inf
    for name, colour in zip(names, cycle(_LINES), strict=False):
        seen, loss = _curve(records, name)
        lowest = min(lowest, loss.min())
        axes.plot(seen, loss, color=colour, alpha=0.25, linewidth=0.7)
        label_shown = short(name.lstrip("_"))  # matplotlib hides labels that begin with an underscore
        axes.plot(seen, _running_mean(loss), color=colour, linewidth=1.6, label=label_shown)
    if lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("volumes seen", fontsize=8)
    axes.tick_params(labelsize=8, which="both")
    axes.grid(color="#e4e6e8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(fontsize=8, frameon=False).get_texts() if names else ():
        text.set_parse_math(False)
    for i, name in enumerate(scored, 1):
        bottom = 1 - (2.44 + _SCORE_INCHES * i) / inches
        _score_curve(figure.add_axes((0.13, bottom, 0.84, 0.62 / inches), sharex=axes), records, name)
    last = records[-1]
    alt = f"Training losses of {label} over {last.seen} volumes in {last.step} steps"
    return plotted(figure, f"{alt}; scores: {', '.join(scored)}" if scored else alt, SHARP)


def _score_curve(axes: Axes, records: Sequence[TrainingStep], name: str) -> None:
    """One metric against volumes seen, with its 95 % interval."""
    points = [(record.seen, record.scores[name]) for record in records if name in record.scores]
    seen, values = [seen for seen, _ in points], [score.value for _, score in points]
    low, high = [score.low for _, score in points], [score.high for _, score in points]
    axes.fill_between(seen, low, high, color=SAMPLE, alpha=0.18, linewidth=0)
    axes.plot(seen, values, color=SAMPLE, linewidth=1.4, marker="o", markersize=2.5)
    title = axes.set_title(f"{name} of {points[-1][1].samples} samples", fontsize=8, loc="left", pad=3)
    title.set_parse_math(False)
    axes.tick_params(labelsize=7)
    axes.tick_params(axis="x", labelbottom=False)
    axes.grid(color="#e4e6e8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(records: Sequence[TrainingStep], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(volumes seen, loss), thinned by averaging neighbours."""
    points = np.array([(r.seen, r.losses[name]) for r in records if name in r.losses])
    size = math.ceil(len(points) / _MOST_POINTS)
    seen, loss = np.array([points[i : i + size].mean(axis=0) for i in range(0, len(points), size)]).T
    return seen, loss


def _running_mean(values: np.ndarray) -> np.ndarray:
    half = max(1, len(values) // 60)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    smooth: np.ndarray = (sums[last] - sums[first]) / (last - first)
    return smooth
