"""Does a generator copy? The nearest training volume against the nearest held-out volume, by MS-SSIM.

A copy may be flipped: every search also takes the sample with left and right exchanged (axis W of `[D,H,W]`), and
the better of the two orientations counts. Only nearest neighbours are computed, never all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mribench.metrics.metric import ArraySource, Better, Keep, wilson
from mribench.metrics.ms_ssim import definition_for

COPY_RATIO = 0.5  # between 0.01 (noisy copies) and 0.90 (the smallest of independent volumes)
DUPLICATE = 1e-6  # 1 - MS-SSIM below this is the same volume in float32
ORIENTATIONS = "as-is+mirrored"


class Copies(NamedTuple):
    """Per sample the most similar volume of a set, in the better of two orientations; arrays `[N]`."""

    neighbour: np.ndarray  # number of the most similar volume
    mirrored: np.ndarray  # it is the sample with left and right exchanged that is so similar
    similarity: np.ndarray  # MS-SSIM with that volume
    second: np.ndarray  # MS-SSIM with the most similar of the other volumes

    @property
    def ratio(self) -> np.ndarray:
        """(1 - similarity) / (1 - second), near 0 for a copy; 1 where both are 1."""
        first, second = 1 - self.similarity, 1 - self.second
        ratio: np.ndarray = np.divide(first, second, out=np.ones_like(first), where=second > 0)
        return ratio

    @property
    def copied(self) -> np.ndarray:
        """Whether each sample is a copy: less than half as far as from any other volume, or the same volume."""
        first, second = 1 - self.similarity, 1 - self.second
        copied: np.ndarray = (first < COPY_RATIO * second) | (first < DUPLICATE)
        return copied


def copies(arrays: ArraySource, set_name: str = "train") -> Copies:
    """For every sample, which volume of `set_name` it may be a copy of; raises MribenchError below 2 volumes."""
    indices, scores = _both_orientations(arrays, set_name, 2)
    rows = np.arange(len(scores))
    best = scores.argmax(axis=1)  # of equals the sample as it is, which comes first
    neighbour = indices[rows, best]
    others = np.where(indices == neighbour[:, None], -np.inf, scores)
    return Copies(neighbour, best >= 2, scores[rows, best], others.max(axis=1))


def _both_orientations(arrays: ArraySource, set_name: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and MS-SSIM `[N,2k]`: the k nearest to each sample, then the k nearest to it mirrored."""
    found = [arrays.nearest("samples", set_name, k, mirrored=flip) for flip in (False, True)]
    indices, scores = zip(*found, strict=True)
    return np.concatenate(indices, axis=1), np.concatenate(scores, axis=1)


@dataclass(frozen=True)
class Memorisation:
    """P(a sample's nearest training volume is more similar than its nearest held-out one), sizes equalised.

    The nearest of more volumes is nearer: with T training and H held-out volumes of one law, the nearest of
    all is a training volume in T / (T + H) of cases, exactly. Dividing the wins of each side by its size
    makes 1/2 the value of a generator that does not copy, whatever T and H; with T = H it is the plain share
    of wins. Ties count half. A sample that is itself a held-out volume (equal digests: the control
    real_heldout) is not compared with itself; on the training side nothing is ever left out, because an
    exact copy of a training volume is a copy. Both sides are searched in both orientations, so that flips move
    the value of a copier alone.
    """

    name: str = "memorisation"
    title: str = "Memorisation AUC"
    unit: str = ""
    family: str = "memorisation"
    ranked: bool = True
    better: Better = "match"
    detects: tuple[str, ...] = ("train_copy",)
    resampled: tuple[str, ...] = ("samples",)
    target_resampled: tuple[str, ...] = ()
    proportion_of: str = "samples"

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 2, "train": 2, "holdout": 2}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "similarity": definition_for(min(arrays.shape)).name,
            "statistic": "nearest-wins-per-volume",
            "orientations": ORIENTATIONS,
            "sizes": f"{len(arrays.sets['train'])}+{len(arrays.sets['holdout'])}",
        }

    def gather(self, arrays: ArraySource) -> np.ndarray:
        """Per sample its win over the size of the training set, and its loss over the other's; `[N,2]`."""
        itself = _same_volume(arrays)
        held = itself.shape[1]
        enough = min(held, 1 + int(itself.sum(axis=1).max()))  # the nearest that is not the sample itself
        indices, holdout = _both_orientations(arrays, "holdout", enough)
        holdout = np.where(np.take_along_axis(itself, indices, axis=1), -np.inf, holdout)
        win = np.heaviside(copies(arrays).similarity - holdout.max(axis=1), 0.5)
        others = np.maximum(1, held - itself.sum(axis=1))
        return np.stack([win / len(arrays.sets["train"]), (1 - win) / others], axis=1)

    def value(self, prepared: np.ndarray, keep: Keep) -> float:
        wins, rank_keys = prepared[keep["samples"]].sum(axis=0)
        return float(wins / (wins + rank_keys))

    def target(self, prepared: Any, keep: Keep) -> float:
        return 0.5

    def least_interval(self, value: float, n: Mapping[str, int]) -> tuple[float, float]:
        """Wilson's of the share of wins, each end divided by the sets' sizes as the value is."""
        train, held = n["train"], n["holdout"]
        wins = value * train / (value * train + (1 - value) * held)
        low, high = ((end / train) / (end / train + (1 - end) / held) for end in wilson(wins, n["samples"]))
        return low, high


def _same_volume(arrays: ArraySource) -> np.ndarray:
    """Whether sample i is held-out volume j, `[N,H]`."""
    samples, holdout = (np.array(arrays.sets[name].digests) for name in ("samples", "holdout"))
    same: np.ndarray = samples[:, None] == holdout[None]
    return same


@dataclass(frozen=True)
class CopyRate:
    """Share of samples whose nearest training volume is less than half as far (1 - MS-SSIM) as the second."""

    name: str = "copy_rate"
    title: str = "Copies"
    unit: str = "proportion"
    family: str = "memorisation"
    ranked: bool = False
    better: Better = "lower"
    detects: tuple[str, ...] = ("train_copy",)
    resampled: tuple[str, ...] = ("samples",)
    target_resampled: tuple[str, ...] = ()
    proportion_of: str = "samples"

    @property
    def needs(self) -> Mapping[str, int]:
        return {"samples": 2, "train": 2}

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "similarity": definition_for(min(arrays.shape)).name,
            "statistic": f"ratio-below-{COPY_RATIO}",
            "orientations": ORIENTATIONS,
            "sizes": str(len(arrays.sets["train"])),
        }

    def gather(self, arrays: ArraySource) -> np.ndarray:
        """Per sample 1 if it is a copy, else 0; `[N]`."""
        return copies(arrays).copied

    def value(self, prepared: np.ndarray, keep: Keep) -> float:
        return float(prepared[keep["samples"]].mean())

    def target(self, prepared: Any, keep: Keep) -> None:
        return None

    def least_interval(self, value: float, n: Mapping[str, int]) -> tuple[float, float]:
        """Wilson's."""
        return wilson(value, n["samples"])


MEMORISATION = Memorisation()
COPY_RATE = CopyRate()
