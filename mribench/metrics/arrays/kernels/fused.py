"""The loops, compiled by numba. What a stripe, ring, tile and span are stands in the package's docstring."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from mribench.metrics.arrays.kernels.lanes import (
    LANES,
    across,
    along,
    load,
    minus_product,
    splat,
    store,
    summed,
    widened,
)

_STRIPE = 32  # rows of windows: the rings of a tile stay in the cache, and 6 of 38 rows are filtered twice
_TILE = 4  # volumes on a side
_FLOAT = 4  # bytes of a float32
# (K1 L)^2 and (K2 L)^2 with the data range L = 1. Here, because numba's cache notices a change of this file only.
C1, C2 = 0.01**2, 0.03**2
_C1, _C2, _ZERO = np.float32(C1), np.float32(C2), np.float32(0)

Weights = tuple[np.float32, ...]


class Scale(NamedTuple):
    """N volumes at one scale with their statistics; V is W, padded to a multiple of LANES."""

    volume: np.ndarray  # [N,D,H,V] float32
    mean: np.ndarray  # [N,d,h,V] float32, for each window inside
    variance: np.ndarray
    spans: np.ndarray  # [N,D,stripes,4] int32: first and end register of what products yield here; of windows


_compiled = njit(nogil=True, cache=True, error_model="numpy")


def statistics(volumes: np.ndarray, window: tuple[float, ...]) -> Scale:
    """Of `[N,D,H,W]` float32: the padded volumes, local means and variances, and spans."""
    taps = len(window)
    count, depth, height, width = volumes.shape
    padded = -(-width // LANES) * LANES
    wide = empty((count, depth, height, padded))
    wide[..., :width], wide[..., width:] = volumes, 0
    mean = empty((count, depth - taps + 1, height - taps + 1, padded))
    variance = empty(mean.shape)
    spans = np.zeros((count, depth, -(-mean.shape[2] // _STRIPE), 4), np.int32)
    rings, rows = empty((2, taps, _STRIPE, padded)), empty((_STRIPE + taps - 1, padded))
    turned, ones = _turned(window), np.ones_like(rows)
    for arrays in zip(wide, spans, mean, variance, strict=True):
        _spans(arrays[0], taps, arrays[1])
        _statistics(*arrays, turned, rings, rows, ones)
    variance[..., width - taps + 1 :] = np.inf
    return Scale(wide, mean, variance, spans)


def factors(rows: Scale, columns: Scale, window: tuple[float, ...], last: bool) -> np.ndarray:
    """Mean over positions of cs (with `last`: of the full SSIM) of all rows with all columns, `[R,C]` float64."""
    x, y = (Scale(*map(np.ascontiguousarray, scale)) for scale in (rows, columns))
    padded, taps = x.volume.shape[3], len(window)
    width = int(np.isfinite(x.variance[0, 0, 0]).sum())
    means = np.empty((len(x.volume), len(y.volume)))
    rings = empty((min(_TILE, len(means)) * _TILE, taps, _STRIPE, padded))
    _factors(x, y, _turned(window), last, width, rings, empty((_STRIPE + taps - 1, padded)), means)
    return means


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 that begins where a register does in the cache: one that straddles two lines takes twice as long."""
    size = int(np.prod(shape))
    room = np.empty(size + LANES, np.float32)
    first = -room.ctypes.data // 4 % LANES
    return room[first : first + size].reshape(shape)


def _turned(window: tuple[float, ...]) -> tuple[Weights, ...]:
    """The weights for each place in the ring that the first plane can have."""
    taps = len(window)
    weights = tuple(np.float32(w) for w in window)
    return tuple(tuple(weights[(place - first) % taps] for place in range(taps)) for first in range(taps))


@_compiled
def _factors(x: Any, y: Any, turned: Any, last: bool, width: int, rings: Any, rows: Any, means: Any) -> None:
    x_data, y_data, work = _addresses(x), _addresses(y), (rings.ctypes.data, rows.ctypes.data)
    means[:] = 0
    for j in range(0, len(y.volume), _TILE):
        for i in range(0, len(x.volume), _TILE):
            corner, shape = (i, j), (*x.volume.shape[1:], width)
            _tile(x_data, x.spans, y_data, y.spans, corner, turned, last, shape, work, means)
    means /= x.mean.shape[1] * x.mean.shape[2] * width


@_compiled
def _addresses(scale: Any) -> Any:
    return scale.volume.ctypes.data, scale.mean.ctypes.data, scale.variance.ctypes.data


@_compiled
def _tile(
    x: Any,
    x_spans: Any,
    y: Any,
    y_spans: Any,
    corner: Any,
    turned: Any,
    last: bool,
    shape: Any,
    work: Any,
    totals: Any,
) -> None:
    """Adds the similarities of 4 x 4 pairs to `totals`; windows that are empty in both volumes count 1."""
    (i0, j0), (depth, height, padded, width), taps = corner, shape, len(turned)
    d_end, h_end = depth - taps + 1, height - taps + 1
    for s in range(x_spans.shape[2]):
        top, count = s * _STRIPE, min(_STRIPE, h_end - s * _STRIPE)
        for plane in range(depth):
            d = plane - taps + 1
            for i in range(i0, min(i0 + _TILE, totals.shape[0])):
                for j in range(j0, min(j0 + _TILE, totals.shape[1])):
                    ring = work[0] + _FLOAT * ((i - i0) * _TILE + j - j0) * taps * _STRIPE * padded
                    left = max(x_spans[i, plane, s, 0], y_spans[j, plane, s, 0])
                    right = min(x_spans[i, plane, s, 1], y_spans[j, plane, s, 1])
                    x_at = x[0] + _FLOAT * ((i * depth + plane) * height + top) * padded
                    y_at = y[0] + _FLOAT * ((j * depth + plane) * height + top) * padded
                    out = ring + _FLOAT * (plane % taps * _STRIPE * padded)
                    _filter(x_at, y_at, left, right, count, padded, turned[0], work[1], out)
                    if d < 0:
                        continue
                    left = min(x_spans[i, d, s, 2], y_spans[j, d, s, 2])
                    right = max(x_spans[i, d, s, 3], y_spans[j, d, s, 3])
                    totals[i, j] += count * (width - max(0, min(width, right * LANES) - left * LANES))
                    if left < right:
                        x_at = _FLOAT * ((i * d_end + d) * h_end + top) * padded
                        y_at = _FLOAT * ((j * d_end + d) * h_end + top) * padded
                        x_here, y_here = (x[1] + x_at, x[2] + x_at), (y[1] + y_at, y[2] + y_at)
                        weights = turned[d % taps]
                        totals[i, j] += _similarity(
                            x_here, y_here, left, right, count, padded, weights, ring, last
                        )


@_compiled
def _filter(
    x: int, y: int, left: int, right: int, count: int, padded: int, weights: Any, rows: int, out: int
) -> None:
    """A stripe's products, filtered along W and H within registers left..right, and 0 elsewhere: `[count,V]`."""
    end = padded - LANES
    first, stop = (left * LANES, right * LANES) if left < right else (padded, padded)
    for h in range(0, (count + len(weights) - 1) * padded, padded):
        value = splat(_ZERO)
        if first < stop:
            value = load(x, h + first) * load(y, h + first)
        for w in range(first, stop, LANES):
            next_w = h + min(w + LANES, end)  # no window reaches beyond the end
            following = load(x, next_w) * load(y, next_w)
            store(rows, h + w, along(value, following, weights))
            value = following
    for h in range(0, count * padded, padded):
        for w in range(h, h + first, LANES):
            store(out, w, splat(_ZERO))
        for w in range(h + first, h + stop, LANES):
            store(out, w, across(rows, w, padded, weights))
        for w in range(h + stop, h + padded, LANES):
            store(out, w, splat(_ZERO))


@_compiled
def _similarity(
    x: Any, y: Any, left: int, right: int, count: int, padded: int, weights: Any, ring: int, last: bool
) -> float:
    """The sum over a stripe's windows in registers left..right, from addresses of means and variances."""
    total = widened(splat(_ZERO))
    for h in range(0, count * padded, padded):
        row = splat(_ZERO)
        for w in range(h + left * LANES, h + right * LANES, LANES):
            mx, my = load(x[0], w), load(y[0], w)
            covariance = minus_product(across(ring, w, _STRIPE * padded, weights), mx, my)
            spread = load(x[1], w) + load(y[1], w)
            similarity = (covariance + covariance + splat(_C2)) / (spread + splat(_C2))
            if last:
                means = mx * my
                similarity = similarity * ((means + means + splat(_C1)) / (mx * mx + my * my + splat(_C1)))
            row = row + similarity
        total = total + widened(row)
    return summed(total)


@_compiled
def _statistics(
    volume: Any, spans: Any, mean: Any, variance: Any, turned: Any, rings: Any, rows: Any, ones: Any
) -> None:
    """The mean is the product with ones, the square that with itself, each filtered as a pair's product is."""
    taps, (depth, height, padded), h_end = len(turned), volume.shape, mean.shape[1]
    ring, work = rings.ctypes.data, rows.ctypes.data
    squares = ring + _FLOAT * taps * _STRIPE * padded
    for s in range(spans.shape[1]):
        top, count = s * _STRIPE, min(_STRIPE, h_end - s * _STRIPE)
        for plane in range(depth):
            left, right, out = (
                spans[plane, s, 0],
                spans[plane, s, 1],
                _FLOAT * (plane % taps * _STRIPE * padded),
            )
            x = volume.ctypes.data + _FLOAT * (plane * height + top) * padded
            _filter(x, ones.ctypes.data, left, right, count, padded, turned[0], work, ring + out)
            _filter(x, x, left, right, count, padded, turned[0], work, squares + out)
            d = plane - taps + 1
            if d >= 0:
                at = _FLOAT * (d * h_end + top) * padded
                to = (mean.ctypes.data + at, variance.ctypes.data + at)
                _moments(ring, squares, count * padded, _STRIPE * padded, turned[d % taps], to)


@_compiled
def _moments(ring: int, squares: int, size: int, stride: int, weights: Any, to: Any) -> None:
    for at in range(0, size, LANES):
        mean = across(ring, at, stride, weights)
        store(to[0], at, mean)
        store(to[1], at, minus_product(across(squares, at, stride, weights), mean, mean))


@_compiled
def _spans(volume: np.ndarray, taps: int, spans: np.ndarray) -> None:
    """Fills `[D,stripes,4]`. An empty span runs from the last register to the first."""
    depth, height, padded = volume.shape
    for d in range(depth):
        for s in range(spans.shape[1]):
            left, right = padded, 0
            for h in range(s * _STRIPE, min(height, (s + 1) * _STRIPE + taps - 1)):
                first, stop = 0, padded
                while first < left and volume[d, h, first] == 0:
                    first += 1
                while stop > right and volume[d, h, stop - 1] == 0:
                    stop -= 1
                left, right = min(left, first), max(right, stop)
            empty_here = left >= right
            spans[d, s, 0] = padded // LANES if empty_here else max(0, left - taps + 1) // LANES
            spans[d, s, 1] = 0 if empty_here else (right + LANES - 1) // LANES
    for d in range(depth - taps + 1):
        for s in range(spans.shape[1]):
            spans[d, s, 2], spans[d, s, 3] = spans[d, s, 0], spans[d, s, 1]
            for p in range(d + 1, d + taps):
                spans[d, s, 2] = min(spans[d, s, 2], spans[p, s, 0])
                spans[d, s, 3] = max(spans[d, s, 3], spans[p, s, 1])
