"""UpConv against nn.Upsample and nn.Conv3d: the same function, forward and backward, seconds and multiplications.

    OMP_NUM_THREADS=1 python benchmarks/upconv.py       (about a minute; writes benchmarks/results/upconv.json)

Interleaved in one run. The limit of the ratio is that of the multiplications, 216 to 64 for each voxel that enters;
beyond it, the ratio shows what the enlarged copy costs.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from provenance import machine
from torch import nn

from mribench.bench.folder import versions
from mribench.files import write_json
from mribench.models.blocks import UpConv

SHAPES = (
    (64, 32, 4),
    (32, 16, 8),
    (16, 1, 16),
    (128, 64, 16),
)  # channels in, out, side in: `tiny`, and one of 64^3
ROUNDS = 7


def seconds(layer: nn.Module, x: torch.Tensor) -> float:
    begun = time.perf_counter()
    layer(x).sum().backward()
    return time.perf_counter() - begun


def compare(channels_in: int, channels_out: int, side: int) -> dict[str, float]:
    """Best of several interleaved rounds, batch 4."""
    torch.manual_seed(0)
    ours = UpConv(channels_in, channels_out)
    peer = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv3d(channels_in, channels_out, 3, padding=1))
    peer[1].load_state_dict(ours.state_dict())
    x = torch.randn(4, channels_in, side, side, side, requires_grad=True)
    rounds = [(seconds(ours, x), seconds(peer, x)) for _ in range(ROUNDS)]
    mine, theirs = (min(column) for column in zip(*rounds, strict=True))
    return {
        "channels_in": channels_in,
        "channels_out": channels_out,
        "side_in": side,
        "ours_seconds": mine,
        "peer_seconds": theirs,
        "ratio": theirs / mine,
        "largest_difference": float((ours(x) - peer(x)).abs().max().detach()),
    }


def main() -> None:
    rows = [compare(*shape) for shape in SHAPES]
    for row in rows:
        print({k: round(v, 6) for k, v in row.items()})
    result = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/upconv.py",
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "batch": 4,
        "rows": rows,
    }
    write_json(Path(__file__).resolve().parent / "results" / "upconv.json", result)


if __name__ == "__main__":
    main()
