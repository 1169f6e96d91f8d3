"""What does each metric notice, and from which dose on? Real volumes with known faults, scored like an entrant.

The held-out volumes are split in two: every other one is degraded (the probes), the rest stays held out. All sets of
samples are compared with the same reference, training and held-out volumes, whose arrays are stored by digest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mribench.bench.controls import CONTROLS, available, make_volumes
from mribench.bench.folder import Bench, create_bench, open_bench, versions
from mribench.bench.protocol import EvaluationSpec, Protocol
from mribench.data.cohort import Cohort, CohortSpec
from mribench.data.grid import Grid, dequantise, quantise
from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import UsageError
from mribench.files import digest_volume
from mribench.metrics import default_metrics, get_metric
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.memorisation import copies
from mribench.metrics.score import Score
from mribench.metrics.scoring import score_all
from mribench.runtime import Context, no_progress
from mribench.selftest import planted, verdicts
from mribench.selftest.degradations import DEGRADATIONS, Degradation, Material, first_component, twice_as_many
from mribench.selftest.record import CohortFacts, ControlResult, Fault, PlantedResult, SelfTest

SEED = 2023
PROBES, TRAIN, REFERENCE = 32, 48, 32  # volumes at 32^3, when there is no bench yet
_QUICK_DIVISOR = 2
_SMALLEST_HOLDOUT = 8
_COPIES_PER_KIND = 4

Scores = dict[str, Score]


def start_bench(folder: Path, quick: bool) -> Bench:
    """The bench in `folder`, or a new one there for a simulated cohort at 32^3, half as large if `quick`."""
    if (folder / "bench.json").exists():
        return open_bench(folder)
    probes, train, reference = (n // _QUICK_DIVISOR if quick else n for n in (PROBES, TRAIN, REFERENCE))
    cohort = CohortSpec(source="simulated", size=32, train=train, reference=reference, holdout=2 * probes)
    evaluation = EvaluationSpec(samples=probes, tsne_samples=probes)
    name = "selftest-quick" if quick else "selftest"
    return create_bench(
        folder, Protocol(name=name, version=1, seed=SEED, cohort=cohort, evaluation=evaluation)
    )


def material_of(cohort: Cohort, most: int) -> Material:
    """At most `most` probes and the volumes beside them; raises UsageError when too few are held out."""
    holdout = cohort.set("holdout")
    if len(holdout) < _SMALLEST_HOLDOUT:
        raise UsageError(
            f"The self-test needs at least {_SMALLEST_HOLDOUT} held-out volumes, but this cohort has "
            f"{len(holdout)}. Choose another --bench; a new folder gets a simulated cohort."
        )
    everyone = range(len(holdout))
    probes = holdout.subset(everyone[::2][: min(most, len(holdout) // 2)], "samples")
    return Material(probes, holdout.subset(everyone[1::2]), cohort.set("train"))


@dataclass
class Scorer:
    """Scores sets of samples against the same real volumes by `metrics`; default: every one that is not opt-in."""

    real: Mapping[str, VolumeSet]
    grid: Grid
    cache: Path
    extractor: str
    context: Context
    metrics: tuple[str, ...] | None = None
    failures: dict[str, str] = field(default_factory=dict)  # metric -> why it could not be computed

    def score(self, samples: VolumeSet) -> Scores:
        """Metric -> score; what fails is left out and noted in `failures`."""
        scores, missing = score_all(self.arrays(samples), self.metrics)
        self.failures |= {one.metric: one.reason for one in missing if not one.by_design}
        return {score.metric: score for score in scores}

    def arrays(self, samples: VolumeSet) -> Arrays:
        """The arrays of these samples and the real volumes."""
        return Arrays({"samples": samples, **self.real}, self.cache, self.extractor, self.context)

    def score_array(self, volumes: np.ndarray) -> Scores:
        """The same of `[N,D,H,W]` in [0,1]."""
        return self.score(self.samples(volumes))

    def samples(self, volumes: np.ndarray) -> VolumeSet:
        """Volumes as the samples of an entrant, rounded as on disk, so that equal voxels have equal digests."""
        voxels = quantise(volumes)
        return VolumeSet(
            name="samples",
            names=tuple(f"{i:06d}" for i in range(len(voxels))),
            digests=tuple(digest_volume(volume, self.grid.affine) for volume in voxels),
            shape=self.grid.shape,
            load=lambda i: dequantise(voxels[i]),
        )

    def planted(self, material: Material, per_kind: int, seed: int) -> PlantedResult:
        """Which of the copies planted among the probes are found."""
        garden = planted.plant(material.probes, material.train, per_kind, seed)
        return planted.outcome(garden, copies(self.arrays(self.samples(garden.volumes))))


def _doses_of(fault: Degradation, quick: bool) -> tuple[float, ...]:
    """The doses that are tried, smallest first; `quick`: every other one, the largest included."""
    return fault.doses[::-2][::-1] if quick else fault.doses


def run(
    bench: Bench,
    cohort: Cohort,
    context: Context,
    *,
    most: int = PROBES,
    quick: bool = False,
) -> SelfTest:
    """Every fault in every dose, the declared controls and planted copies; the record that is selftest.json.

    Raises UsageError when too few volumes are held out, or for an unknown extractor.
    """
    begun, seed = time.perf_counter(), bench.protocol.seed
    material = material_of(cohort, most)
    real = {"reference": cohort.set("reference"), "train": material.train, "holdout": material.spare}
    extractor = bench.protocol.evaluation.extractor
    scorer = Scorer(real, cohort.grid, bench.arrays, extractor, replace(context, progress=no_progress))
    ladders, controls = _score_everything(scorer, material, cohort, quick, seed, context.progress)
    planting = scorer.planted(material, _COPIES_PER_KIND // 2 if quick else _COPIES_PER_KIND, seed)
    failures = [f"{metric}: {reason}" for metric, reason in scorer.failures.items()]
    return SelfTest(
        command=f"mribench selftest{' --quick' if quick else ''}",
        protocol=bench.protocol.name,
        cohort=CohortFacts(digest=cohort.digest, source=cohort.source, shape=cohort.grid.shape),
        n={"samples": len(material.probes), **{name: len(volumes) for name, volumes in real.items()}},
        extractor=extractor,
        versions=versions(),
        device=context.described("fp32"),
        degradations=tuple(
            Fault(name=name, title=fault.title, unit=fault.unit, doses=_doses_of(fault, quick))
            for name, fault in DEGRADATIONS.items()
        ),
        metrics=default_metrics(),
        verdicts=tuple(v for name, ladder in ladders.items() for v in verdicts.verdicts(name, ladder)),
        controls=tuple(controls),
        planted=planting,
        first_component=_traits_of_first_component(cohort, material),
        failures=tuple(failures),
        seconds=round(time.perf_counter() - begun, 1),
        cells=tuple(cell for name, ladder in ladders.items() for cell in verdicts.cells(name, ladder)),
        problems=tuple(verdicts.problems(controls, failures, planting)),
    )


def _score_everything(
    scorer: Scorer, material: Material, cohort: Cohort, quick: bool, seed: int, progress: Progress
) -> tuple[dict[str, list[tuple[float, Scores]]], list[ControlResult]]:
    """Fault -> (dose, scores), dose 0 first; and what became of every declared control."""
    detects = {name: get_metric(name).detects for name in default_metrics()}
    declared = [CONTROLS[name] for name in CONTROLS if any(name in names for names in detects.values())]
    total = 1 + len(declared) + sum(len(_doses_of(fault, quick)) for fault in DEGRADATIONS.values())
    done = itertools.count(1)

    def scored(volumes: VolumeSet | np.ndarray) -> Scores:
        scores = scorer.score(volumes) if isinstance(volumes, VolumeSet) else scorer.score_array(volumes)
        progress("sets of samples", next(done), total)
        return scores

    base = scored(material.probes)
    ladders: dict[str, list[tuple[float, Scores]]] = {}
    for name, fault in DEGRADATIONS.items():
        doses = _doses_of(fault, quick)
        ladders[name] = [
            (0.0, base),
            *((dose, scored(fault.apply(material, dose, seed))) for dose in doses),
        ]
    controls = []
    for control in declared:
        count = available(cohort, control, len(material.probes))
        scores = scored(make_volumes(cohort, control, seed)(range(count)))
        metrics = [name for name, names in detects.items() if control.name in names]
        controls += verdicts.control_results(control.name, metrics, base, scores)
    return ladders, controls


def _traits_of_first_component(cohort: Cohort, material: Material) -> dict[str, float]:
    """Correlation of the first principal component, which `dropped_mode` cuts, with what the cohort records."""
    subjects = twice_as_many(material)
    scores = first_component(np.concatenate([volumes.stack() for volumes in subjects]))
    names = [name for volumes in subjects for name in volumes.names]
    numbers = {volume.name: volume.numbers for volume in cohort.record.volumes}
    columns = {trait: np.array([numbers[name][trait] for name in names]) for trait in numbers[names[0]]}
    return {
        trait: float(np.corrcoef(scores, column)[0, 1])
        for trait, column in columns.items()
        if column.std() > 0
    }
