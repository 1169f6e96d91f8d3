"""MS-SSIM of one pair of simulated brains at 128^3 under settings that scripts use without naming them.

    OMP_NUM_THREADS=1 python benchmarks/conventions.py      (under a minute; writes benchmarks/results/conventions.json)

Also what padding, lower intensities and a wrong data range do to the score of that pair.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from provenance import machine
from pytorch_msssim import ms_ssim

from mribench.data.simulate import simulate
from mribench.files import write_json
from mribench.metrics.arrays.similarity import Definition, Kwon2019
from mribench.metrics.ms_ssim import ms_ssim_matrix

SIDE, PADDED = 128, 160


def own(pair: np.ndarray, definition: Definition | Kwon2019) -> float:
    """Our score of two volumes `[2,D,H,W]`."""
    return float(ms_ssim_matrix(pair, definition=definition)[0, 1])


def peer(pair: np.ndarray, data_range: float = 1.0, k2: float = 0.03) -> float:
    """pytorch-msssim's score of two volumes, window 7, 5 scales."""
    x, y = (torch.from_numpy(volume)[None, None] for volume in pair)
    return float(ms_ssim(x, y, win_size=7, data_range=data_range, K=(0.01, k2)))


def main() -> None:
    pair = np.stack([simulate(0, index, SIDE)[0] for index in range(2)])
    edge = (PADDED - SIDE) // 2
    padded = np.pad(pair, [(0, 0), *[(edge, edge)] * 3])
    plain = Definition(window=7, scales=5)
    result = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/conventions.py",
        "conventions": {
            "window 7, 5 scales, valid (ours at 128³)": own(pair, plain),
            "window 7, 5 scales, valid (pytorch-msssim)": peer(pair),
            "window 3, 5 scales, valid": own(pair, Definition(window=3, scales=5)),
            "window 11, 4 scales, valid": own(pair, Definition(window=11, scales=4)),
            "window 7, 5 scales, K2 = 0.4": peer(pair, k2=0.4),
            "reflected borders, last factor four times (Kwon 2019)": own(pair, Kwon2019()),
        },
        "padded": own(padded, plain),
        "halved": own(pair / 2, plain),
        "range_255": peer(pair, data_range=255.0),
        "machine": machine("pytorch-msssim"),
    }
    write_json(Path(__file__).resolve().parent / "results" / "conventions.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
