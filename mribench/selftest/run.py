"""What does each metric notice, and from which dose on? Real volumes with known faults, scored like an entrant.

The held-out volumes are split in two: every other one is degraded (the probes), the rest stays held out. All sets of
samples meet the same reference, training and held-out volumes, and the blocks of each are kept by digest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mribench.bench.controls import CONTROLS, available, make_volumes
from mribench.bench.folder import Bench, create_bench, open_bench, versions
from mribench.bench.protocol import CohortSpec, EvaluationSpec, Protocol
from mribench.data.cohort import Cohort
from mribench.data.grid import Grid, dequantise, quantise
from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import UsageError
from mribench.evaluation import evaluate
from mribench.files import digest_volume
from mribench.metrics import default_metrics, get_metric
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features.weights import Weights
from mribench.metrics.memorisation import copies
from mribench.metrics.score import Score
from mribench.runtime import choose_device, describe
from mribench.selftest import planted, verdicts
from mribench.selftest.degradations import DEGRADATIONS, Degradation, Material, first_component, twice_as_many

SEED = 2023
PROBES, TRAIN, REFERENCE = 32, 48, 32  # volumes at 32^3, when there is no bench yet
QUICK_SHARE = 2  # of them, one in this many
SMALLEST_HOLDOUT = 8
COPIES_PER_KIND = 4

Scores = dict[str, Score]


def start_bench(folder: Path, quick: bool) -> Bench:
    """The bench in `folder`, or a new one there for a simulated cohort at 32^3, half as large if `quick`."""
    if (folder / "bench.json").exists():
        return open_bench(folder)
    probes, train, reference = (n // QUICK_SHARE if quick else n for n in (PROBES, TRAIN, REFERENCE))
    cohort = CohortSpec(source="simulated", size=32, train=train, reference=reference, holdout=2 * probes)
    evaluation = EvaluationSpec(samples=probes, tsne_samples=probes)
    name = "selftest-quick" if quick else "selftest"
    return create_bench(
        folder, Protocol(name=name, version=1, seed=SEED, cohort=cohort, evaluation=evaluation)
    )


def material_of(cohort: Cohort, most: int) -> Material:
    """At most `most` probes and the volumes beside them; raises UsageError when too few are held out."""
    holdout = cohort.set("holdout")
    if len(holdout) < SMALLEST_HOLDOUT:
        raise UsageError(
            f"The self-test needs at least {SMALLEST_HOLDOUT} held-out volumes, but this cohort has "
            f"{len(holdout)}. Choose another --bench; a new folder gets a simulated cohort."
        )
    everyone = range(len(holdout))
    probes = holdout.subset(everyone[::2][: min(most, len(holdout) // 2)], "samples")
    return Material(probes, holdout.subset(everyone[1::2]), cohort.set("train"))


@dataclass
class Scorer:
    """Scores sets of samples against the same real volumes, by default by every metric that is not opt-in."""

    real: Mapping[str, VolumeSet]
    grid: Grid
    cache: Path
    extractor: str
    weights: Weights
    device: str
    failures: dict[str, str] = field(default_factory=dict)  # metric -> why it could not be computed
    metrics: tuple[str, ...] | None = None

    def score(self, samples: VolumeSet) -> Scores:
        """Metric -> score; what fails is left out and noted in `failures`."""
        scores, missing = evaluate(
            {"samples": samples, **self.real},
            self.cache,
            metrics=self.metrics,
            extractor=self.extractor,
            weights=self.weights,
            device=self.device,
        )
        self.failures |= {one.metric: one.reason for one in missing if not one.by_design}
        return {score.metric: score for score in scores}

    def score_array(self, volumes: np.ndarray) -> Scores:
        """The same of `[N,D,H,W]` in [0,1]."""
        return self.score(self.samples(volumes))

    def samples(self, volumes: np.ndarray) -> VolumeSet:
        """Volumes as the samples of an entrant, rounded as on disk, so that equal voxels have equal digests."""
        voxels = quantise(volumes)
        return VolumeSet(
            name="samples",
            names=tuple(f"{i:06d}" for i in range(len(voxels))),
            digests=tuple(digest_volume(one, self.grid.affine) for one in voxels),
            shape=self.grid.shape,
            load=lambda i: dequantise(voxels[i]),
        )

    def planted(self, material: Material, per_kind: int, seed: int) -> dict[str, Any]:
        """Which of the copies planted among the probes are found."""
        garden = planted.plant(material.probes, material.train, per_kind, seed)
        sets = {"samples": self.samples(garden.volumes), **self.real}
        arrays = Arrays(sets, self.cache, self.extractor, self.weights, device=self.device)
        return planted.outcome(garden, copies(arrays))


def doses_of(fault: Degradation, quick: bool) -> tuple[float, ...]:
    """The doses that are tried, smallest first; `quick`: every other one, the largest included."""
    return fault.doses[::-2][::-1] if quick else fault.doses


def run(
    bench: Bench,
    cohort: Cohort,
    *,
    most: int = PROBES,
    quick: bool = False,
    weights: Path | None = None,
    device: str = "auto",
    progress: Progress,
) -> dict[str, Any]:
    """Every fault in every dose, the declared controls and planted copies; the record that is selftest.json.

    Raises UsageError when too few volumes are held out, or for an unknown extractor.
    """
    begun, seed, where = time.perf_counter(), bench.protocol.seed, choose_device(device)
    material = material_of(cohort, most)
    real = {"reference": cohort.set("reference"), "train": material.train, "holdout": material.spare}
    extractor = bench.protocol.evaluation.extractor
    scorer = Scorer(real, cohort.grid, bench.arrays, extractor, Weights(weights), str(where))
    ladders, controls = _score_everything(scorer, material, cohort, quick, seed, progress)
    cells = [cell for name, scored in ladders.items() for cell in verdicts.cells(name, scored)]
    record: dict[str, Any] = {
        "command": f"mribench selftest{' --quick' if quick else ''}",
        "protocol": bench.protocol.name,
        "cohort": {"digest": cohort.digest, "source": cohort.source, "shape": list(cohort.grid.shape)},
        "n": {"samples": len(material.probes), **{name: len(one) for name, one in real.items()}},
        "extractor": extractor,
        "versions": versions(),
        "device": describe(where, "fp32"),
        "degradations": [
            {"name": one.name, "title": one.title, "unit": one.unit, "doses": doses_of(one, quick)}
            for one in DEGRADATIONS.values()
        ],
        "metrics": list(default_metrics()),
        "verdicts": [one for name, scored in ladders.items() for one in verdicts.verdicts(name, scored)],
        "controls": controls,
        "planted": scorer.planted(material, COPIES_PER_KIND // 2 if quick else COPIES_PER_KIND, seed),
        "first_component": _traits_of_first_component(cohort, material),
        "failures": [f"{metric}: {reason}" for metric, reason in scorer.failures.items()],
        "seconds": round(time.perf_counter() - begun, 1),
        "cells": cells,
    }
    return record | {"problems": verdicts.problems(record)}


def _score_everything(
    scorer: Scorer, material: Material, cohort: Cohort, quick: bool, seed: int, progress: Progress
) -> tuple[dict[str, list[tuple[float, Scores]]], list[dict[str, Any]]]:
    """Fault -> (dose, scores), dose 0 first; and what became of every declared control."""
    detects = {name: get_metric(name).detects for name in default_metrics()}
    declared = [one for one in CONTROLS.values() if any(one.name in seen for seen in detects.values())]
    total = 1 + len(declared) + sum(len(doses_of(one, quick)) for one in DEGRADATIONS.values())
    done = 1
    base = scorer.score(material.probes)
    progress("sets of samples", done, total)
    ladders: dict[str, list[tuple[float, Scores]]] = {}
    for name, fault in DEGRADATIONS.items():
        ladders[name] = [(0.0, base)]
        for dose in doses_of(fault, quick):
            ladders[name].append((dose, scorer.score_array(fault.apply(material, dose, seed))))
            done += 1
            progress("sets of samples", done, total)
    controls = []
    for control in declared:
        count = available(cohort, control, len(material.probes))
        scores = scorer.score_array(make_volumes(cohort, control, seed)(range(count)))
        metrics = [name for name in default_metrics() if control.name in detects[name]]
        controls += verdicts.seen(control.name, metrics, base, scores)
        done += 1
        progress("sets of samples", done, total)
    return ladders, controls


def _traits_of_first_component(cohort: Cohort, material: Material) -> dict[str, float]:
    """Correlation of the first principal component, which `dropped_mode` cuts, with what the cohort records."""
    subjects = twice_as_many(material)
    scores = first_component(np.concatenate([one.stack() for one in subjects]))
    names = [name for one in subjects for name in one.names]
    records = {volume["name"]: volume["record"] for volume in cohort.record["volumes"]}
    traits = [key for key, value in records[names[0]].items() if isinstance(value, float)]
    columns = {trait: np.array([records[name][trait] for name in names]) for trait in traits}
    return {
        trait: float(np.corrcoef(scores, column)[0, 1])
        for trait, column in columns.items()
        if column.std() > 0
    }
