"""One entrant of a bench -> scores.json and nearest.json; all entrants together -> the joint t-SNE."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mribench import __version__
from mribench.bench.folder import Bench, Run
from mribench.data.cohort import Cohort
from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError
from mribench.evaluation import evaluate
from mribench.files import digest_file, digest_json, read_json, write_json, write_text
from mribench.metrics import get_metric
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.arrays.distances import join_views
from mribench.metrics.features.slices import get_extractor
from mribench.metrics.features.weights import Weights
from mribench.metrics.memorisation import COPY_RATIO, copies
from mribench.metrics.score import Missing, Score
from mribench.metrics.statistics.tsne import joint_embedding

log = logging.getLogger(__name__)

NO_HOLDOUT = "protocol {name} keeps no held-out volumes, so there is nothing to compare copies with"


def comparison_sets(cohort: Cohort, samples: VolumeSet) -> dict[str, VolumeSet]:
    """The sets every metric works on: samples, reference, train and, where there is one, holdout."""
    sets = {"samples": samples, "reference": cohort.set("reference"), "train": cohort.set("train")}
    holdout = cohort.set("holdout")
    return {**sets, "holdout": holdout} if len(holdout) else sets


def made_from(bench: Bench, cohort: Cohort, run: Run, extractor: str, weights: Weights | None) -> str:
    """Digest of everything that decides an entrant's scores."""
    return digest_json(
        {
            "protocol": bench.protocol.digest,
            "cohort": cohort.digest,
            "samples": run.samples().digest,
            "extractor": get_extractor(extractor).definition(),
            "weights": _digests(weights),
            "mribench": __version__,  # a new version may define a metric anew
        }
    )


def _digests(weights: Weights | None) -> list[str | None]:
    return [digest_file(path) if path else None for path in weights or ()]


def is_scored(run: Run, wanted: str) -> bool:
    """Whether scores.json and nearest.json were made from exactly this, and nothing failed that could succeed."""
    if not (run.scores.exists() and run.nearest.exists()):
        return False
    try:
        record = read_json(run.scores, "made_from", "missing")
        return record["made_from"] == wanted and all(m.get("by_design") for m in record["missing"])
    except (MribenchError, AttributeError, TypeError) as error:
        log.warning("%s cannot be used (%s); scoring %s again", run.scores, error, run.name)
        return False


def score_run(
    bench: Bench,
    cohort: Cohort,
    run: Run,
    *,
    extractor: str,
    weights: Weights | None,
    device: str,
    memory: int,
    progress: Progress,
) -> tuple[list[Score], list[Missing]]:
    """Score one entrant and write scores.json and nearest.json (written first, so that scores.json means done)."""
    stamp = made_from(bench, cohort, run, extractor, weights)
    sets = comparison_sets(cohort, run.samples())
    metrics = bench.protocol.evaluation.metrics
    missing = []
    if "holdout" not in sets:
        reason = NO_HOLDOUT.format(name=bench.protocol.name)
        of_holdout = [name for name in metrics if "holdout" in get_metric(name).needs]
        missing = [Missing(metric=name, reason=reason, by_design=True) for name in of_holdout]
        metrics = tuple(name for name in metrics if name not in of_holdout)
    arrays = Arrays(sets, bench.arrays, extractor, weights, progress, device, memory)
    scores, failed = evaluate(
        sets,
        bench.arrays,
        metrics=metrics,
        extractor=extractor,
        weights=weights,
        progress=progress,
        device=device,
        memory=memory,
    )
    missing.extend(failed)
    write_json(run.nearest, {"made_from": stamp, **_nearest_pairs(arrays)})
    write_json(run.scores, _scores_record(run, bench, stamp, sets, scores, missing))
    return scores, missing


def _scores_record(
    run: Run,
    bench: Bench,
    stamp: str,
    sets: dict[str, VolumeSet],
    scores: Sequence[Score],
    missing: Sequence[Missing],
) -> dict[str, Any]:
    return {
        "entrant": run.name,
        "made_from": stamp,
        "protocol_digest": bench.protocol.digest,
        "samples_digest": sets["samples"].digest,
        "reference_digest": sets["reference"].digest,
        "scores": [score.model_dump(mode="json") for score in scores],
        "missing": [{**m.model_dump(mode="json"), "title": get_metric(m.metric).title} for m in missing],
        "seconds": round(sum(score.seconds for score in scores), 3),
    }


def _nearest_pairs(arrays: Arrays) -> dict[str, Any]:
    """Every sample's most similar training volume in the better orientation, the most similar pair first."""
    found = copies(arrays)
    samples, train = arrays.sets["samples"], arrays.sets["train"]
    pairs = [
        {
            "sample": samples.names[i],
            "sample_index": i,
            "neighbour": train.names[found.neighbour[i]],
            "neighbour_index": int(found.neighbour[i]),
            "mirrored": bool(found.mirrored[i]),
            "similarity": float(found.similarity[i]),
            "second": float(found.second[i]),
            "ratio": float(found.ratio[i]),
            "copy": bool(found.copied[i]),
        }
        for i in range(len(samples))
    ]
    return {
        "definition": arrays.similarity,
        "copy_threshold": COPY_RATIO,
        "pairs": sorted(pairs, key=lambda pair: -pair["similarity"]),
    }


def embed(
    bench: Bench,
    cohort: Cohort,
    runs: Sequence[Run],
    *,
    extractor: str,
    weights: Weights | None,
    device: str,
    progress: Progress,
) -> None:
    """One joint t-SNE of the training volumes and every entrant's first samples -> embedding/tsne.csv.

    Features are those of the headline MMD. Entrants that make only a slab have other features and stay out.
    """
    count = bench.protocol.evaluation.tsne_samples
    whole = [run for run in runs if run.samples().slab is None]
    stamp = digest_json(
        {
            "cohort": cohort.digest,
            "entrants": {run.name: run.samples().digest for run in whole},
            "extractor": extractor,
            "weights": _digests(weights)[:1],
            "count": count,
        }
    )
    record = bench.embedding.with_suffix(".json")
    if record.exists() and bench.embedding.exists() and read_json(record)["made_from"] == stamp:
        return
    features = {}
    for run in whole:
        sets = comparison_sets(cohort, run.samples())
        arrays = Arrays(sets, bench.arrays, extractor, weights, progress, device)
        features[run.name] = join_views(arrays.features, "samples")[:count]
        features[""] = join_views(arrays.features, "train")
    rows = _embedding_rows(cohort, whole, joint_embedding(features, seed=bench.protocol.seed))
    write_text(bench.embedding, pd.DataFrame(rows).to_csv(index=False))
    write_json(record, {"made_from": stamp})


def _embedding_rows(
    cohort: Cohort, runs: Sequence[Run], points: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    rows = [
        {"kind": "train", "entrant": "", "name": name, "x": float(x), "y": float(y), "nearest": ""}
        for name, (x, y) in zip(cohort.set("train").names, points[""], strict=True)
    ]
    for run in runs:
        nearest = {pair["sample"]: pair["neighbour"] for pair in read_json(run.nearest)["pairs"]}
        for name, (x, y) in zip(run.samples().names, points[run.name], strict=False):
            rows.append(
                {
                    "kind": "sample",
                    "entrant": run.name,
                    "name": name,
                    "x": float(x),
                    "y": float(y),
                    "nearest": nearest.get(name, ""),
                }
            )
    return rows
