"""MS-SSIM at one scale on a GPU by three Triton kernels, one for each axis of the separable window.

The first multiplies the two volumes while it filters along D, the second filters along H, the third filters along W,
compares and sums. Of a pair, two filtered volumes and some partial sums are written to memory. The order of every
sum is fixed, so a pair has the same bits in every batch.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mribench.metrics.arrays.kernels.fused import C1, C2

_BLOCK = 1024  # positions of a program
_BATCH_VOXELS = 2**25  # of all pairs that are filtered at once: two buffers of 128 MiB

State = tuple[Tensor, ...]


@triton.jit
def _product_along_d(
    x, y, out, window, first, columns, volume, plane, size, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    """out[p,e] = sum over taps of window[k] (x y)[e + k plane], e over `size` = d H W positions."""
    pair = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = e < size
    x += (first + pair) // columns * volume
    y += (first + pair) % columns * volume
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(TAPS):
        a = tl.load(x + e + k * plane, mask=inside, other=0.0)
        b = tl.load(y + e + k * plane, mask=inside, other=0.0)
        total += tl.load(window + k) * (a * b)
    tl.store(out + pair * size + e, total, mask=inside)


@triton.jit
def _along_h(source, out, window, plane_in, plane_out, width, size, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """out[p] over d h W positions from source[p] over d H W."""
    pair = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = e < size
    depth = size // plane_out
    place = e // plane_out * plane_in + e % plane_out
    source += pair * depth * plane_in
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(TAPS):
        total += tl.load(window + k) * tl.load(source + place + k * width, mask=inside, other=0.0)
    tl.store(out + pair * size + e, total, mask=inside)


@triton.jit
def _along_w_compared(
    source,
    mean_x,
    mean_y,
    variance_x,
    variance_y,
    out,
    window,
    first,
    columns,
    width_in,
    width_out,
    size,
    c1,
    c2,
    LAST: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[p,program] = the sum of the similarity over the program's positions, of d h w."""
    pair = tl.program_id(1).to(tl.int64)
    program = tl.program_id(0)
    e = program * BLOCK + tl.arange(0, BLOCK)
    inside = e < size
    place = e // width_out * width_in + e % width_out
    source += pair * (size // width_out * width_in)
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(TAPS):
        total += tl.load(window + k) * tl.load(source + place + k, mask=inside, other=0.0)
    row = (first + pair) // columns * size
    column = (first + pair) % columns * size
    mx = tl.load(mean_x + row + e, mask=inside, other=0.0)
    my = tl.load(mean_y + column + e, mask=inside, other=0.0)
    vx = tl.load(variance_x + row + e, mask=inside, other=0.0)
    vy = tl.load(variance_y + column + e, mask=inside, other=0.0)
    means = mx * my
    similarity = (2 * (total - means) + c2) / (vx + vy + c2)
    if LAST:
        similarity = similarity * (2 * means + c1) / (mx * mx + my * my + c1)
    part = tl.sum(tl.where(inside, similarity, 0.0), axis=0)
    tl.store(out + pair * tl.num_programs(0) + program, part)


def factors(x: State, y: State, window: tuple[float, ...], last: bool) -> Tensor:
    """Mean over positions of cs (with `last`: of the full SSIM) of all rows with all columns, `[R,C]` float64.

    `x`, `y`: volumes `[N,D,H,W]`, local means and variances `[N,d,h,w]`, contiguous float32 on one GPU.
    """
    rows, columns = len(x[0]), len(y[0])
    _, _, height, width = x[0].shape
    depth, h, w = x[1].shape[1:]
    sizes = (depth * height * width, depth * h * width, depth * h * w)
    count = rows * columns
    batch = max(1, min(count, _BATCH_VOXELS // sizes[0]))
    taps = x[0].new_tensor(window)
    first, second = (x[0].new_empty(batch * size) for size in sizes[:2])
    programs = triton.cdiv(sizes[2], _BLOCK)
    parts = x[0].new_empty((count, programs))
    fixed = {"TAPS": len(window), "BLOCK": _BLOCK}
    for start in range(0, count, batch):
        pairs = min(batch, count - start)

        def grid(size: int, pairs: int = pairs) -> tuple[int, int]:
            return triton.cdiv(size, _BLOCK), pairs

        plane = height * width
        _product_along_d[grid(sizes[0])](
            x[0], y[0], first, taps, start, columns, x[0][0].numel(), plane, sizes[0], **fixed
        )
        _along_h[grid(sizes[1])](first, second, taps, plane, h * width, width, sizes[1], **fixed)
        _along_w_compared[grid(sizes[2])](
            second, x[1], y[1], x[2], y[2], parts[start:], taps, start, columns, width, w, sizes[2], C1, C2,
            LAST=last, **fixed,
        )  # fmt: skip
    return parts.double().sum(1).reshape(rows, columns) / sizes[2]
