"""Does a generator copy? The nearest training volume against the nearest held-out volume, by MS-SSIM.

A copy may be flipped: every search also takes the sample with left and right exchanged (axis W of `[D,H,W]`), and
the better of the two orientations counts. Only nearest neighbours are computed, never all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mribench.metrics.metric import ArraySource, Keep, Metric
from mribench.metrics.score import Display
from mribench.metrics.statistics.jackknife import wilson

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
    nearest = [arrays.nearest("samples", set_name, k, mirrored=flip) for flip in (False, True)]
    indices, scores = zip(*nearest, strict=True)
    return np.concatenate(indices, axis=1), np.concatenate(scores, axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class CopyMetric(Metric[np.ndarray]):
    """A number from each sample's nearest volumes; only the samples are resampled."""

    family: str = "memorisation"
    detects: tuple[str, ...] = ("train_copy",)
    resampled: tuple[str, ...] = ("samples",)
    proportion_of: str | None = "samples"


@dataclass(frozen=True, kw_only=True, eq=False)
class Memorisation(CopyMetric):
    """P(a sample's nearest training volume is more similar than its nearest held-out volume), sizes equalised.

    The nearest of more volumes is nearer: with T training and H held-out volumes of one distribution, the nearest of
    all is a training volume in T / (T + H) of cases, exactly. Dividing the wins of each side by its size makes 1/2
    the value of a generator that does not copy, for every T and H; with T = H it is the plain proportion of wins. Ties
    count half. A sample that is itself a held-out volume (equal digests: the control real_heldout) is not compared
    with itself; on the training side nothing is ever left out, because an exact copy of a training volume is a copy.
    Both sides are searched in both orientations, so that flips change the value only if the generator copies.
    """

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "similarity": arrays.similarity,
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

    def value(self, gathered: np.ndarray, keep: Keep) -> float:
        wins, losses = gathered[keep["samples"]].sum(axis=0)
        return float(wins / (wins + losses))

    def target(self, gathered: np.ndarray, keep: Keep) -> float:
        return 0.5

    def least_interval(self, value: float, n: Mapping[str, int]) -> tuple[float, float]:
        """Wilson's of the proportion of wins, each end divided by the sets' sizes as the value is."""
        train, held = n["train"], n["holdout"]
        wins = value * train / (value * train + (1 - value) * held)
        low, high = ((end / train) / (end / train + (1 - end) / held) for end in wilson(wins, n["samples"]))
        return low, high


def _same_volume(arrays: ArraySource) -> np.ndarray:
    """Whether sample i is held-out volume j, `[N,H]`."""
    samples, holdout = (np.array(arrays.sets[name].digests) for name in ("samples", "holdout"))
    same: np.ndarray = samples[:, None] == holdout[None]
    return same


@dataclass(frozen=True, kw_only=True, eq=False)
class CopyRate(CopyMetric):
    """Proportion of samples whose nearest training volume is less than half as far (1 - MS-SSIM) as the second."""

    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        return {
            "similarity": arrays.similarity,
            "statistic": f"ratio-below-{COPY_RATIO}",
            "orientations": ORIENTATIONS,
            "sizes": str(len(arrays.sets["train"])),
        }

    def gather(self, arrays: ArraySource) -> np.ndarray:
        """Per sample 1 if it is a copy, else 0; `[N]`."""
        return copies(arrays).copied

    def value(self, gathered: np.ndarray, keep: Keep) -> float:
        return float(gathered[keep["samples"]].mean())


MEMORISATION = Memorisation(
    name="memorisation",
    title="Memorisation AUC",
    better="match",
    needs={"samples": 2, "train": 2, "holdout": 2},
    measures=(
        "Copying: how often the volume most similar to a sample is a training volume and not one of equally many "
        "held-out volumes, mirrored or not. A generator that copies nothing has the expected value 0.5; a generator "
        "that only copies has 1."
    ),
    blind_to=(
        "It does not measure quality and does not detect copies that were turned or shifted. An interval of zero width "
        "means that all samples agreed, not that the value is certain."
    ),
    display=Display(
        heading="memorisation AUC", family="memorisation", aim="near 0.5", digits=2, bounds=(0, 1)
    ),
)
COPY_RATE = CopyRate(
    name="copy_rate",
    title="Copies",
    unit="proportion",
    better="lower",
    needs={"samples": 2, "train": 2},
    measures=(
        "Copying, sample by sample: the proportion of samples whose nearest training volume is less than half as far "
        "away as the second nearest, mirrored or not."
    ),
    blind_to=(
        "It does not measure quality and does not detect copies that were turned or shifted, or copies of a volume "
        "that the training set holds twice. An interval of zero width around 0 means that no copy was found, not that "
        "there is none."
    ),
    display=Display(heading="copy rate (%)", scale=100, digits=1, bounds=(0, 100)),
)
