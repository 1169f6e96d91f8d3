"""From arrays to scores: each metric with its interval, its real baseline and its p value."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mribench.errors import MribenchError, NotApplicable, TooLittleMemory
from mribench.files import digest_json
from mribench.metrics import METRIC_REGISTRY, default_metrics, get_metric
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.metric import Metric
from mribench.metrics.score import Missing, Score
from mribench.metrics.statistics.intervals import (
    interval,
    interval_name,
    jackknife,
    least_variance,
    second_order,
)
from mribench.metrics.statistics.jackknife import jackknife_part
from mribench.metrics.statistics.permutation import permutation_p
from mribench.metrics.statistics.real_baseline import RealBaselines, has_real_baseline

log = logging.getLogger(__name__)

OVERLAP = "are volumes of the reference, voxel for voxel"  # ends the note about samples that are no samples


def score_all(arrays: Arrays, metrics: Sequence[str] | None = None) -> tuple[list[Score], list[Missing]]:
    """Score the samples by `metrics`; default: all but opt-in ones.

    A metric that cannot be computed becomes a `Missing` with its reason; the others are computed all the same.
    Raises UsageError for an unknown metric and for too little memory (see `pair_matrix`).
    """
    chosen = [get_metric(name) for name in (metrics or default_metrics())]
    real_baselines = RealBaselines(arrays)
    scores: list[Score] = []
    missing: list[Missing] = []
    for metric in chosen:
        try:
            scores.append(_with_real_baseline(score(metric, arrays), metric, real_baselines))
        except TooLittleMemory:
            raise
        except MribenchError as error:
            by_design = isinstance(error, NotApplicable)
            missing.append(_missing(metric, str(error), by_design))
        except Exception as error:  # a fault must not lose the other metrics; the trace goes to the log
            log.exception("%s failed", metric.name)
            missing.append(_missing(metric, f"failed: {type(error).__name__}: {error}"))
    return scores, missing


def _missing(metric: Metric[Any], reason: str, by_design: bool = False) -> Missing:
    package = METRIC_REGISTRY.package(metric.name)
    return Missing(metric=metric.name, reason=reason, by_design=by_design, package=package)


def _with_real_baseline(found: Score, metric: Metric[Any], real_baselines: RealBaselines) -> Score:
    """The score and its real baseline; a real baseline that cannot be had becomes a note, and the score stays."""
    if not has_real_baseline(metric):
        return found
    try:
        return found.model_copy(update={"real_baseline": real_baselines.of(metric)})
    except MribenchError as error:
        return found.model_copy(update={"notes": (*found.notes, str(error))})
    except Exception as error:
        log.exception("the real baseline of %s failed", metric.name)
        note = f"no real baseline: {type(error).__name__}: {error}"
        return found.model_copy(update={"notes": (*found.notes, note)})


def score(metric: Metric[Any], arrays: Arrays) -> Score:
    """One metric's score with its jackknife interval; raises MribenchError when it cannot be computed."""
    start = time.perf_counter()
    n = _counts(metric, arrays)
    prepared = metric.gather(arrays)
    everything = {name: np.arange(count) for name, count in n.items()}
    value = metric.value(prepared, everything)
    if not math.isfinite(value):
        raise MribenchError(f"{metric.name} came out as {value}, which is no score. Check the volumes.")
    replicates = jackknife(metric, prepared, everything)
    parts = [jackknife_part(value, replicates[side], n[side]) for side in metric.resampled]
    low, high = interval(metric, value, parts, n)
    definition = metric.definition(arrays)
    comparable = arrays.slab is None or metric.in_slab == "compared"
    return Score(
        metric=metric.name,
        title=metric.title,
        unit=metric.unit,
        family=metric.family,
        ranked=metric.ranked and comparable,
        value=value,
        low=low,
        high=high,
        interval=interval_name(metric, n),
        better=metric.better,
        target=metric.target(prepared, everything),
        n=n,
        version=digest_json([metric.name, definition])[:12],
        signature=_signature(metric.name, definition, n),
        package=METRIC_REGISTRY.package(metric.name),
        digests={name: arrays.sets[name].digest for name in n},
        seconds=round(time.perf_counter() - start, 3),
        notes=_notes(arrays, comparable),
        replicates=replicates,
        target_sides=metric.target_resampled,
        least_variance=least_variance(metric, value, n),
        second_order=second_order(metric, prepared, everything, replicates),
        p_value=_p_value(metric, prepared),
        display=metric.display,
    )


def _p_value(metric: Metric[Any], prepared: Any) -> float | None:
    kernel = metric.exchangeable(prepared)
    return None if kernel is None else permutation_p(*kernel)


def _counts(metric: Metric[Any], arrays: Arrays) -> dict[str, int]:
    """Set name -> number of volumes; MribenchError naming the set that is absent or too small."""
    for name, fewest in metric.needs.items():
        if name not in arrays.sets:
            raise NotApplicable(f"{metric.title} needs the set {name!r}, which was not given.")
        if len(arrays.sets[name]) < fewest:
            raise NotApplicable(
                f"{metric.title} needs at least {fewest} volumes in {name!r}, "
                f"but there are {len(arrays.sets[name])}."
            )
    return {name: len(arrays.sets[name]) for name in metric.needs}


def _signature(name: str, definition: Mapping[str, Any], n: Mapping[str, int]) -> str:
    settings = {"metric": name, **definition, "n": "+".join(f"{count} {side}" for side, count in n.items())}
    return "|".join(f"{key}:{value}" for key, value in settings.items())


def _notes(arrays: Arrays, comparable: bool) -> tuple[str, ...]:
    notes = []
    if arrays.slab:
        start, stop = arrays.slab
        where = f"axial slices {start} to {stop - 1} of {arrays.full_depth}"
        notes.append(f"{where}{'' if comparable else '; real volumes cropped alike; not ranked'}")
    digests = arrays.sets["samples"].digests
    copies = len(digests) - len(set(digests))
    if copies:
        notes.append(f"{copies} of {len(digests)} samples are exact duplicates of others")
    reference = arrays.sets["reference"].digests if "reference" in arrays.sets else ()
    if same := sum(digest in set(reference) for digest in digests):
        notes.append(f"{same} of {len(digests)} samples {OVERLAP}")
    return tuple(notes)
