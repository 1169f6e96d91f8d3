"""MS-SSIM's loops for a CPU: one pair's covariance, similarity and mean at one scale without an array in between.

Products of two volumes are filtered plane by plane, along W and H; a ring of as many planes as the window has
taps is filtered along D. Arithmetic is float32, sums are float64. A pair's sums depend on nothing but the pair,
so its factor is the same, bit for bit, in every tile and on every thread, and the same with x and y swapped.

Spans say where a volume is not empty, so that the rest need not be read: `[D,H,4]` int32, of row (d,h) of the
volume the first voxel that is not 0 and the first after the last; of row (d,h) of the windows the same for
windows that hold such a voxel (only where there is a window).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

LANES = 16  # float32 numbers in an AVX-512 register
C1 = np.float32(0.01**2)  # as in ms_ssim; written out, because the compiled cache sees this file change only
C2 = np.float32(0.03**2)
TWO = np.float32(2)

Weights = tuple[np.float32, ...]


class Scale(NamedTuple):
    """N volumes at one scale with their statistics."""

    volume: np.ndarray  # [N,D,H,W] float32
    mean: np.ndarray  # [N,d,h,w] float32, for each window inside
    variance: np.ndarray
    spans: np.ndarray  # [N,D,H,4] int32


# "contract" fuses a multiplication with its addition and changes the order of nothing.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
_exact = njit(nogil=True, cache=True, error_model="numpy", fastmath=False)  # unset, it would be the caller's
_any_order = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})


def statistics(volumes: np.ndarray, window: tuple[float, ...]) -> Scale:
    """Of `[N,D,H,W]` float32: itself, local means and variances `[N,d,h,w]`, and spans `[N,D,H,4]` int32."""
    taps = len(window)
    volumes = np.ascontiguousarray(volumes)
    inside = tuple(side - taps + 1 for side in volumes.shape[1:])
    mean = np.empty((len(volumes), *inside), np.float32)
    variance = np.empty_like(mean)
    spans = np.zeros((*volumes.shape[:3], 4), np.int32)
    turned = _turned(window)
    for volume, *made in zip(volumes, mean, variance, spans, strict=True):
        _spans(volume, taps, made[2])
        _statistics(volume, made[2], turned, made[0], made[1])
    return Scale(volumes, mean, variance, spans)


def factors(rows: Scale, columns: Scale, window: tuple[float, ...], last: bool) -> np.ndarray:
    """Mean over positions of cs (with `last`: of the full SSIM) of all rows with all columns, `[R,C]` float64."""
    means = np.empty((len(rows[0]), len(columns[0])))
    _factors(rows, columns, _turned(window), last, means)
    return means


def _turned(window: tuple[float, ...]) -> tuple[Weights, ...]:
    """The weights for each place in the ring that the first plane can have."""
    taps = len(window)
    weights = tuple(np.float32(w) for w in window)
    return tuple(tuple(weights[(place - first) % taps] for place in range(taps)) for first in range(taps))


class Workspace(NamedTuple):
    """Scratch of one thread."""

    ring: np.ndarray  # [taps,h,w] filtered planes
    rows: np.ndarray  # [H,w] the plane's rows, filtered along W
    spans: np.ndarray  # [H,2] where these are not 0
    row: np.ndarray  # [W]


@_compiled
def _workspace(height: int, width: int, taps: int) -> Workspace:
    ring = np.zeros((taps, height - taps + 1, width - taps + 1), np.float32)
    rows, spans = np.zeros((height, width - taps + 1), np.float32), np.empty((height, 2), np.int32)
    return Workspace(ring, rows, spans, np.empty(width, np.float32))


@_compiled
def _factors(x: Any, y: Any, turned: Any, last: bool, means: np.ndarray) -> None:
    work = _workspace(x.volume.shape[2], x.volume.shape[3], len(turned))
    for j in range(len(y.volume)):
        for i in range(len(x.volume)):
            one = Scale(x.volume[i], x.mean[i], x.variance[i], x.spans[i])
            other = Scale(y.volume[j], y.mean[j], y.variance[j], y.spans[j])
            means[i, j] = _total(one, other, turned, last, work) / x.mean[i].size


@_compiled
def _total(x: Any, y: Any, turned: Any, last: bool, work: Any) -> float:
    """Sum of the similarity over all windows of one pair; windows that are empty in both count 1."""
    taps, (height, width) = len(turned), work.ring.shape[1:]
    total = 0.0
    for plane in range(len(x.volume)):
        xs, ys, out = x.spans[plane], y.spans[plane], work.ring[plane % taps]
        _filter_plane(x.volume[plane], y.volume[plane], xs, ys, turned[0], work, out)
        d = plane - taps + 1
        if d < 0:
            continue
        for h in range(height):
            right = max(x.spans[d, h, 3], y.spans[d, h, 3])
            left = _whole_lanes(min(x.spans[d, h, 2], y.spans[d, h, 2]), right)
            total += width - max(0, right - left)
            if left >= right:
                continue
            similarity = work.row[: right - left]
            mx, my = x.mean[d, h, left:right], y.mean[d, h, left:right]
            vx, vy = x.variance[d, h, left:right], y.variance[d, h, left:right]
            _contrast(work.ring, np.uintp(h), np.uintp(left), turned[d % taps], mx, my, vx, vy, similarity)
            if last:
                _times_luminance(mx, my, similarity)
            total += _sum(similarity)
    return total


@_compiled
def _filter_plane(x: Any, y: Any, xs: Any, ys: Any, weights: Any, work: Any, out: np.ndarray) -> None:
    """Products of two planes `[H,W]`, filtered along W and H, `[h,w]`."""
    rows, spans, taps, width = work.rows, work.spans, len(weights), out.shape[1]
    for h in range(len(x)):
        left, right = max(xs[h, 0], ys[h, 0]), min(xs[h, 1], ys[h, 1])
        _clear(rows[h])
        if left >= right:
            spans[h, 0], spans[h, 1] = width, 0
            continue
        right = min(width, right)
        left = _whole_lanes(max(0, left - taps + 1), right)
        spans[h, 0], spans[h, 1] = left, right
        row = work.row[: right - left + taps - 1]
        _multiply(x[h, left : right + taps - 1], y[h, left : right + taps - 1], row)
        _filter_along(row, weights, rows[h, left:right])
    for h in range(len(out)):
        left, right = width, 0
        for tap in range(taps):
            left, right = min(left, spans[h + tap, 0]), max(right, spans[h + tap, 1])
        _clear(out[h])
        if left < right:
            _filter_across(rows[h : h + taps], np.uintp(left), weights, out[h, left:right])


@_compiled
def _whole_lanes(left: int, right: int) -> int:
    """A smaller `left`, so that the span fills its registers: remainders are as slow as whole registers."""
    return max(0, right - (right - left + LANES - 1) // LANES * LANES)


@_exact
def _clear(row: np.ndarray) -> None:
    for w in range(row.size):
        row[w] = 0


@_exact
def _multiply(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    for w in range(out.size):
        out[w] = x[w] * y[w]


# The loops below vectorise only over whole contiguous arrays with unsigned indices: numba lets a signed index
# count from the end, and a sliced plane may have strides.


@_compiled
def _filter_along(row: np.ndarray, weights: Any, out: np.ndarray) -> None:
    for w in range(out.size):
        total = weights[0] * row[w]
        for tap in range(1, len(weights)):
            total += weights[tap] * row[w + tap]
        out[w] = total


@_compiled
def _filter_across(rows: np.ndarray, left: Any, weights: Any, out: np.ndarray) -> None:
    for w in range(np.uintp(out.size)):
        total = weights[0] * rows[0, left + w]
        for tap in range(1, len(weights)):
            total += weights[tap] * rows[tap, left + w]
        out[w] = total


@_compiled
def _through(ring: np.ndarray, h: Any, w: Any, weights: Any) -> Any:
    """The ring at (h, w), filtered along D."""
    total = weights[0] * ring[0, h, w]
    for tap in range(1, len(weights)):
        total += weights[tap] * ring[tap, h, w]
    return total


@_compiled
def _contrast(
    ring: np.ndarray, h: Any, left: Any, weights: Any, mx: Any, my: Any, vx: Any, vy: Any, out: np.ndarray
) -> None:
    for w in range(np.uintp(out.size)):
        covariance = _through(ring, h, left + w, weights) - mx[w] * my[w]
        out[w] = (TWO * covariance + C2) / ((vx[w] + vy[w]) + C2)


@_exact
def _times_luminance(mx: np.ndarray, my: np.ndarray, out: np.ndarray) -> None:
    """A fused addition of the two squares would not be symmetric."""
    for w in range(out.size):
        out[w] *= (TWO * (mx[w] * my[w]) + C1) / ((mx[w] * mx[w] + my[w] * my[w]) + C1)


@_any_order
def _sum(row: np.ndarray) -> float:
    total = 0.0
    for w in range(row.size):
        total += np.float64(row[w])
    return total


@_compiled
def _statistics(
    x: np.ndarray, spans: np.ndarray, turned: Any, mean: np.ndarray, variance: np.ndarray
) -> None:
    """The mean is the product with ones, the square that with itself, each filtered as a pair's product is."""
    taps, height, width = len(turned), x.shape[1], x.shape[2]
    ones, everywhere = np.ones((height, width), np.float32), np.empty((height, 2), np.int32)
    everywhere[:, 0], everywhere[:, 1] = 0, width
    first, second = _workspace(height, width, taps), _workspace(height, width, taps)
    for plane in range(len(x)):
        place = plane % taps
        _filter_plane(x[plane], ones, spans[plane], everywhere, turned[0], first, first.ring[place])
        _filter_plane(x[plane], x[plane], spans[plane], spans[plane], turned[0], second, second.ring[place])
        d = plane - taps + 1
        if d >= 0:
            for h in range(mean.shape[1]):
                weights, row = turned[d % taps], np.uintp(h)
                _moments(first.ring, second.ring, row, weights, mean[d, h], variance[d, h])


@_compiled
def _moments(
    ring: np.ndarray, squares: np.ndarray, h: Any, weights: Any, mean: np.ndarray, variance: np.ndarray
) -> None:
    for w in range(np.uintp(mean.size)):
        mean[w] = _through(ring, h, w, weights)
    for w in range(np.uintp(mean.size)):
        variance[w] = _through(squares, h, w, weights) - mean[w] * mean[w]


@_exact
def _spans(x: np.ndarray, taps: int, spans: np.ndarray) -> None:
    depth, height, width = x.shape
    for d in range(depth):
        for h in range(height):
            left, right = 0, width
            while left < width and x[d, h, left] == 0:
                left += 1
            while right > left and x[d, h, right - 1] == 0:
                right -= 1
            spans[d, h, 0], spans[d, h, 1] = (left, right) if left < right else (width, 0)
    for d in range(depth - taps + 1):
        for h in range(height - taps + 1):
            left, right = width, 0
            for p in range(d, d + taps):
                for q in range(h, h + taps):
                    left, right = min(left, spans[p, q, 0]), max(right, spans[p, q, 1])
            empty = left >= right
            spans[d, h, 2] = width if empty else max(0, left - taps + 1)
            spans[d, h, 3] = 0 if empty else min(width - taps + 1, right)
