"""Does a generator copy? The nearest training volume against the nearest held-out volume, by MS-SSIM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mribench.metrics.metric import Better, BlockSource, Keep
from mribench.metrics.ms_ssim import definition_for

COPY_RATIO = 0.5  # between 0.01 (noisy copies) and 0.90 (the smallest of independent volumes)
DUPLICATE = 1e-6  # 1 - MS-SSIM below this is the same volume in float32


@dataclass(frozen=True)
class Memorisation:
    """P(a sample's nearest training volume is more similar than its nearest held-out one), sizes equalised.

    The nearest of more volumes is nearer: with T training and H held-out volumes of one law, the nearest of
    all is a training volume in T / (T + H) of cases, exactly. Dividing the wins of each side by its size
    makes 1/2 the value of a generator that does not copy, whatever T and H; with T = H it is the plain share
    of wins. Ties count half. A sample that is itself a held-out volume (equal digests: the control
    real_heldout) is not compared with itself; on the training side nothing is ever left out, because an
    exact copy of a training volume is a copy.
    """

    name: str = "memorisation"
    title: str = "Memorisation AUC"
    unit: str = ""
    family: str = "memorisation"
    ranked: bool = True
    better: Better = "match"
    sees: tuple[str, ...] = ("train_copy",)
    deletes: tuple[str, ...] = ("samples",)
    target_deletes: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 2, "train": 2, "holdout": 2}

    def definition(self, blocks: BlockSource) -> dict[str, Any]:
        return {
            "similarity": definition_for(min(blocks.shape)).name,
            "statistic": "nearest-wins-per-volume",
            "sizes": f"{len(blocks.sets['train'])}+{len(blocks.sets['holdout'])}",
        }

    def prepare(self, blocks: BlockSource) -> np.ndarray:
        """Per sample its win over the size of the training set, and its loss over the other's; `[N,2]`."""
        train, holdout = blocks.pairs("samples", "train"), blocks.pairs("samples", "holdout")
        itself = _same_volume(blocks)
        difference = train.max(axis=1) - np.where(itself, -np.inf, holdout).max(axis=1)
        win = np.heaviside(difference, 0.5)
        others = np.maximum(1, holdout.shape[1] - itself.sum(axis=1))
        return np.stack([win / train.shape[1], (1 - win) / others], axis=1)

    def value(self, prepared: np.ndarray, keep: Keep) -> float:
        wins, losses = prepared[keep["samples"]].sum(axis=0)
        return float(wins / (wins + losses))

    def target(self, prepared: Any, keep: Keep) -> float:
        return 0.5


def _same_volume(blocks: BlockSource) -> np.ndarray:
    """Whether sample i is held-out volume j, `[N,H]`."""
    samples, holdout = (np.array(blocks.sets[name].digests) for name in ("samples", "holdout"))
    same: np.ndarray = samples[:, None] == holdout[None]
    return same


@dataclass(frozen=True)
class CopyRate:
    """Share of samples whose nearest training volume is less than half as far (1 - MS-SSIM) as the second."""

    name: str = "copy_rate"
    title: str = "Copies"
    unit: str = "share"
    family: str = "memorisation"
    ranked: bool = False
    better: Better = "lower"
    sees: tuple[str, ...] = ("train_copy",)
    deletes: tuple[str, ...] = ("samples",)
    target_deletes: tuple[str, ...] = ()

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 2, "train": 2}

    def definition(self, blocks: BlockSource) -> dict[str, Any]:
        return {
            "similarity": definition_for(min(blocks.shape)).name,
            "statistic": f"ratio-below-{COPY_RATIO}",
            "sizes": str(len(blocks.sets["train"])),
        }

    def prepare(self, blocks: BlockSource) -> np.ndarray:
        """Per sample 1 if it is a copy, else 0; `[N]`."""
        _, similarity = blocks.nearest("samples", "train", k=2)
        first, second = 1 - similarity.T
        return (first < COPY_RATIO * second) | (first < DUPLICATE)

    def value(self, prepared: np.ndarray, keep: Keep) -> float:
        return float(prepared[keep["samples"]].mean())

    def target(self, prepared: Any, keep: Keep) -> None:
        return None


MEMORISATION = Memorisation()
COPY_RATE = CopyRate()
