"""Slice profiles: brightness along the axial slices, and the steps between them, against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from mribench.data.volume_set import VolumeSet
from mribench.reports.page.figures import SAMPLE, SHARP, Picture, plotted

MOST_VOLUMES = 32  # of each set; a mean of 32 curves moves little, and reading 500 volumes takes minutes
BAND, MIDDLE = "#d5dade", "#6b7580"
LOWEST, HIGHEST = 5, 95  # percentiles of the band over volumes


@dataclass(frozen=True)
class Profiles:
    """`brightness[N,D]`: mean of each axial slice; `steps[N,D-1]`: mean |x_{z+1} - x_z|; D counted from `start`."""

    brightness: np.ndarray
    steps: np.ndarray
    start: int = 0


def measure(volumes: VolumeSet) -> Profiles:
    """The profiles of the first 32 volumes; raises MribenchError when one cannot be read."""
    count = min(len(volumes), MOST_VOLUMES)
    pairs = [_of(volumes[i]) for i in range(count)]
    start = volumes.slab[0] if volumes.slab else 0
    return Profiles(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]), start)


def _of(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return volume.mean(axis=(1, 2)), abs(np.diff(volume, axis=0)).mean(axis=(1, 2))


def profile_plot(own: Profiles, reference: Profiles, label: str) -> Picture:
    """Two panels: the entrant's mean curve over the 5 to 95 % band of the reference volumes."""
    figure = Figure(figsize=(4.4, 1.75), dpi=100)
    titles = ("slice mean", "step to the next slice")
    both = ((own.brightness, reference.brightness), (own.steps, reference.steps))
    for i, (title, (mine, real)) in enumerate(zip(titles, both, strict=True)):
        axes = figure.add_axes((0.095 + 0.5 * i, 0.2, 0.385, 0.66))
        z = np.arange(real.shape[1])
        low, high = np.percentile(real, (LOWEST, HIGHEST), axis=0)
        axes.fill_between(z, low, high, color=BAND, linewidth=0)
        axes.plot(z, real.mean(axis=0), color=MIDDLE, linewidth=0.8)
        axes.plot(own.start + np.arange(mine.shape[1]), mine.mean(axis=0), color=SAMPLE, linewidth=1.4)
        axes.set_title(title, fontsize=8, loc="left")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, real.shape[1] - 1)
        axes.tick_params(labelsize=7)
        axes.grid(color="#e4e6e8", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    figure.text(0.5, 0.015, "axial slice, from below", fontsize=7, ha="center")
    return plotted(figure, _alt(own, reference, label), SHARP)


def _alt(own: Profiles, reference: Profiles, label: str) -> str:
    start, count = own.start, own.brightness.shape[1]
    here = reference.brightness[:, start : start + count]
    dark = _outside(own.brightness, here)
    steep = _outside(own.steps, reference.steps[:, start : start + count - 1])
    return (
        f"Slice profiles of {label}: the mean brightness lies outside the reference band in {dark} of {count} "
        f"axial slices, the step between neighbours in {steep} of {count - 1}"
    )


def _outside(own: np.ndarray, reference: np.ndarray) -> int:
    low, high = np.percentile(reference, (LOWEST, HIGHEST), axis=0)
    mean: Sequence[float] = own.mean(axis=0)
    return int(((mean < low) | (mean > high)).sum())
