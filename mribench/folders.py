"""Scoring folders of NIfTI that mribench did not make: alone, or as an entrant of a bench."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mribench.bench.folder import Bench
from mribench.data.folder import AFFINE_TOLERANCE, open_folder
from mribench.data.nifti import Rescale
from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError
from mribench.evaluation import evaluate
from mribench.files import write_json, write_text
from mribench.metrics import default_metrics
from mribench.metrics.features.weights import Weights
from mribench.metrics.score import Missing, Score
from mribench.reports import leaderboard, tables
from mribench.runtime import choose_device

log = logging.getLogger(__name__)

DARK = 0.05


@dataclass(frozen=True)
class FolderScores:
    """What scoring two folders gives: a table to print, the same as JSON, where it was written, what failed."""

    table: str
    json: str
    path: Path
    failures: list[str]  # metrics that could not be computed, unless the sets cannot have them by design


def evaluate_folders(
    real: Path,
    samples: Path,
    train: Path | None,
    rescale: Rescale | None,
    extractor: str | None,
    weights: Weights,
    device: str,
    memory: int,
    out: Path,
    progress: Progress,
) -> FolderScores:
    """Score the volumes in `samples` against those in `real`; writes scores.json and scores.csv to `out`.

    With `train`, memorisation is tested: are samples nearer to training volumes than to the real ones (which
    then count as held out)? With weights for 3D, fid_3d is computed too. Raises MribenchError when a folder
    holds no usable volumes of one grid.
    """

    def opened(folder: Path, name: str) -> VolumeSet:
        cache = out / "cache" / f"checks-{name}.json"
        return open_folder(
            folder,
            name=name,
            rescale=rescale,
            digests_cache=cache,
            progress=lambda _, done, total: progress(f"read {name}", done, total),
        )

    sets = {"samples": opened(samples, "samples"), "reference": opened(real, "real")}
    for one in sets.values():
        _check_brightness(one)
    if train is not None:
        sets |= {"train": opened(train, "train"), "holdout": sets["reference"]}
    _warn_of_other_grids(sets)
    scores, missing = evaluate(
        sets,
        out / "cache",
        metrics=(*default_metrics(), "fid_3d") if weights.volumes else default_metrics(),
        extractor=extractor or "effnet-lite0",
        weights=weights,
        progress=progress,
        device=choose_device(device),
        memory=memory,
    )
    return _written(samples.resolve().name, scores, missing, rescale, out)


def _written(
    name: str, scores: list[Score], missing: list[Missing], rescale: Rescale | None, out: Path
) -> FolderScores:
    """Writes scores.json and scores.csv; what to print of them."""
    entrant = leaderboard.Entrant(
        name=name,
        scores={score.metric: score for score in scores},
        missing={one.metric: one.reason for one in missing},
    )
    board = leaderboard.from_scores([entrant])
    record = {
        "entrant": entrant.name,
        "rescale": rescale,
        "scores": [score.model_dump(mode="json") for score in scores],
        "missing": [one.model_dump(mode="json") for one in missing],
    }
    write_json(out / "scores.json", record)
    write_text(out / "scores.csv", tables.as_scores_csv(board))
    failures = [f"{one.metric}: {one.reason}" for one in missing if not one.by_design or not scores]
    return FolderScores(
        leaderboard.as_text(board), json.dumps(record, indent=1), out / "scores.json", failures
    )


def _warn_of_other_grids(sets: Mapping[str, VolumeSet]) -> None:
    """Files without a true affine are common, so grids that differ are no error; but axes may be swapped."""
    real = sets["reference"]
    for one in sets.values():
        apart = float(np.abs(np.subtract(one.affine, real.affine)).max())  # type: ignore[arg-type]
        if apart > AFFINE_TOLERANCE:
            log.warning(
                "The affines of %s and %s differ by up to %.4g, but scores compare voxel by voxel. Make sure that both "
                "have the same orientation, voxel size and field of view.",
                one.name,
                real.name,
                apart,
            )


def _check_brightness(volumes: VolumeSet) -> None:
    """A set that is black throughout was rescaled by another set's range: refuse to score nonsense."""
    brightest = max(float(volumes[i].max()) for i in range(len(volumes)))
    if brightest < DARK:
        raise MribenchError(
            f"The volumes of {volumes.name} must use the range [0,1], but the largest value of all is "
            f"{brightest:.3g}. Give the range that all volumes share with --rescale LOW HIGH; if folders "
            "differ in it, bring them to one first."
        )


def open_entrant(
    bench: Bench, name: str, folder: Path, rescale: Rescale | None, progress: Progress
) -> VolumeSet:
    """A folder of NIfTI on the bench's grid; raises MribenchError when its grid or its range differs."""
    bench.run(name)  # a name that leaves the runs folder must be refused before anything is read
    volumes = open_folder(
        folder,
        name=name,
        rescale=rescale,
        expect_grid=bench.protocol.cohort.voxels,
        progress=lambda _, done, total: progress(f"read {name}", done, total),
    )
    _check_brightness(volumes)
    return volumes
