"""Scores during a training: a few samples of the weights as they are, by metrics that are cheap."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mribench.bench.records import StepScore, TrainingStep
from mribench.data.cohort import Cohort
from mribench.data.grid import from_model_range
from mribench.data.volume_set import VolumeSet, volume_set
from mribench.errors import UsageError
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.scoring import score_all
from mribench.models.generator import Generator
from mribench.runtime import Context, Noise, derive

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

METRICS = ("mmd", "ms_ssim")  # a distance and a diversity; both need no search and little time
SAMPLES, REFERENCES = 8, 32


@dataclass
class TrainingScores:
    """Scores of `SAMPLES` volumes against the first `REFERENCES` reference volumes of a cohort.

    The samples are always made from the same noise, so that scores of two moments differ by the weights alone. What is
    computed of the reference volumes is kept in a temporary folder.
    """

    cohort: Cohort
    extractor: str
    context: Context
    _said: set[str] = field(default_factory=set)
    _cache: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def __call__(self, generator: Generator, seed: int) -> Mapping[str, StepScore]:
        """Metric -> score of the generator's samples; a metric without a score is left out, and said once."""
        reference = self.cohort.set("reference")
        sets = {
            "samples": self._samples(generator, seed),
            "reference": reference.subset(range(min(REFERENCES, len(reference)))),
        }
        scores, missing = score_all(
            Arrays(sets, Path(self._cache.name), self.extractor, self.context), METRICS
        )
        for absent in missing:
            if absent.metric not in self._said:
                log.warning("No %s during the training: %s", absent.metric, absent.reason)
                self._said.add(absent.metric)
        return {
            score.metric: StepScore(value=score.value, low=score.low, high=score.high, samples=SAMPLES)
            for score in scores
        }

    def _samples(self, generator: Generator, seed: int) -> VolumeSet:
        noise = Noise([derive(seed, "score", i) for i in range(SAMPLES)], self.context.device)
        generator.eval()
        with torch.no_grad(), self.context.mixed_precision():
            volumes = from_model_range(generator.sample(noise)[:, 0]).float().cpu().numpy()
        return replace(volume_set(volumes, "samples"), slab=generator.slab)


class TensorBoard:
    """Losses and scores of a training for TensorBoard, by volumes seen; raises UsageError where that is missing."""

    def __init__(self, folder: Path, run: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                f"--tensorboard needs the package tensorboard, which cannot be loaded ({error}). "
                "Run: pip install tensorboard"
            ) from error
        self._writer: SummaryWriter = SummaryWriter(str(folder / run))

    def write(self, step: TrainingStep) -> None:
        """Add one step."""
        for name, value in step.losses.items():
            self._writer.add_scalar(f"loss/{name}", value, step.seen)
        for name, score in step.scores.items():
            self._writer.add_scalar(f"score/{name}", score.value, step.seen)

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()
