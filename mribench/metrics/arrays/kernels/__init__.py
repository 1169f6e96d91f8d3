"""MS-SSIM at one scale on a CPU: `statistics` of volumes, and `factors` of all pairs of them.

Callers need `statistics`, `factors`, the record `Scale` that passes between them, and the constants `C1` and `C2`.
`fused` holds the loops, compiled by numba; `lanes` holds the vector operations that the loops consist of.

Why loops of our own. Array operations write the product of two volumes, each of its three filter passes, and the
similarity map to memory before they take one mean. Here nothing of a pair is written to memory but that mean.

Lane. A register of the processor holds several float32 numbers, its lanes; one instruction works on all of them. A
value of type `Floats` in `lanes` is 16 lanes: one AVX-512 register, or several smaller ones. Neighbouring lanes are
neighbouring voxels along W. Rows are padded to a multiple of 16. Padding holds 0 in a volume and infinity in a
variance, which makes the similarity there 0, so that no loop has a special case at the end of a row.

Stripe and ring. The window is separable: filter along W, then H, then D. A stripe is 32 rows of windows. For each
stripe the loops go through the planes of D in order and filter the product of the two volumes along W and H. The last
T planes of this result, for a window of T taps, stay in a ring buffer: plane d lies at place d modulo T, so a new plane
replaces the oldest one. Filtering along D is then a weighted sum over the ring, with the weights turned to where the
oldest plane lies. A stripe is so small that the rings stay in the processor's cache.

Tile. 4 x 4 pairs of volumes take turns at each plane, each with its own ring, so that a volume is fetched from memory
once for four pairs.

Span. The background of a brain image is 0. For every plane and stripe, `Scale.spans` says which registers can be
different from 0; outside of them, products are not computed, and a window that is empty in both volumes counts as 1.

What is exact. Arithmetic is float32; similarities are summed in float32 within one row's lanes and in float64 beyond
it. The order of the operations of a pair depends on nothing but the pair: its factor has the same bits in every tile,
on every thread, and with the two volumes exchanged. Between processors the last bits can differ, because a product
and a sum are rounded together only where the processor has an instruction for it.
"""

from mribench.metrics.arrays.kernels.fused import C1, C2, Scale, factors, statistics

__all__ = ["C1", "C2", "Scale", "factors", "statistics"]
