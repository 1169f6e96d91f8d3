"""A bench as a bundle: what every run is and scored, without volumes, without names of real volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mribench.bench.bundles import (
    REFERENCE,
    VIEWS,
    Bundle,
    BundledCohort,
    BundledEntrant,
    BundledSet,
    BundleRecord,
    LeftOut,
    picture_name,
    read_bundle,
)
from mribench.bench.folder import Bench, open_bench, versions
from mribench.data.cohort import ROLES, Cohort, open_cohort
from mribench.data.grid import Grid
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError, UsageError, finish
from mribench.files import first_error
from mribench.metrics.score import Missing
from mribench.reports.discretion import NameRemover, shows_people, without_names
from mribench.reports.gates import real_samples
from mribench.reports.page.figures import central_levels
from mribench.reports.records import Entrant, read_entrants

_PIXELS = 176  # along the longest side of the field of view


def open_sources(paths: Sequence[Path]) -> list[Bundle]:
    """The bundles in files and those of benches in folders, each under a label of its own.

    Raises MribenchError that names every one that is refused.
    """
    bundles, failures, labels = [], [], set[str]()
    for path in paths:
        try:
            bundle = bundle_of(open_bench(path), pictures=False) if path.is_dir() else read_bundle(path)
        except MribenchError as error:
            failures.append(str(error))
            continue
        again = (f"{bundle.label}, {number}" for number in count(2))
        label = next(label for label in chain([bundle.label], again) if label not in labels)
        labels.add(label)
        bundles.append(replace(bundle, label=label))
    finish(failures)
    return bundles


def bundle_of(bench: Bench, *, real_pictures: bool = False, pictures: bool = True) -> Bundle:
    """The bundle of a bench. Raises UsageError when nothing is scored, MribenchError when the cohort cannot be read.

    Without `real_pictures` there is no picture of a real volume, or of an entrant that may show one (`shows_people`).
    Names of real volumes are left out in any case.
    """
    cohort = open_cohort(bench.cohort_folder)
    entrants, clean = read_entrants(bench, cohort), NameRemover(cohort)
    held_back = real_samples(entrants, cohort)
    scored = [_entrant(without_names(e, clean), held_back.get(e.name, "")) for e in entrants if _is_whole(e)]
    if not scored:
        raise UsageError(
            f"{bench.folder} has no scores to export. Run: mribench report --bench {bench.folder}"
        )
    record = BundleRecord(
        protocol=bench.protocol,
        protocol_digest=bench.protocol.digest,
        versions=versions(),
        packages=dict(bench.packages),
        cohort=_cohort(cohort),
        entrants=tuple(scored),
        left_out=tuple(_left_out(e, clean) for e in entrants if not _is_whole(e)),
        real_pictures=real_pictures,
    )
    shown = {
        e.name: bench.run(e.name).samples()
        for e in entrants
        if _is_whole(e) and (real_pictures or not shows_people(e, held_back.get(e.name, "")))
    }
    if real_pictures:
        shown[REFERENCE] = cohort.set("reference")
    drawn = _pictures(shown, cohort.grid) if pictures else {}
    return Bundle(bench.folder.resolve().name, record, drawn)


def _is_whole(entrant: Entrant) -> bool:
    return bool(entrant.scores and entrant.run and entrant.samples)


def _left_out(entrant: Entrant, clean: NameRemover) -> LeftOut:
    return LeftOut(name=entrant.name, reason=clean(" ".join(entrant.problems)) or "It has no scores.")


def _entrant(entrant: Entrant, held_back: str) -> BundledEntrant:
    assert entrant.run and entrant.samples
    samples = entrant.samples
    if entrant.kind == "control" or held_back:  # digests of real volumes would tell who is in the cohort
        samples = samples.model_copy(update={"files": ()})
    try:
        return BundledEntrant(
            name=entrant.name,
            run=entrant.run,
            weights=entrant.weights,
            samples=samples,
            scores=tuple(entrant.scores.values()),
            missing=tuple(Missing(metric=name, reason=reason) for name, reason in entrant.missing.items()),
            gates=entrant.gates,
            regions=entrant.regions,
            held_back=held_back,
            doubts=entrant.doubts,
        )
    except ValidationError as error:
        raise MribenchError(
            f"{entrant.name} must have whole scores to be exported, but {first_error(error)}. "
            f"Run: mribench evaluate {entrant.name} --overwrite"
        ) from error


def _cohort(cohort: Cohort) -> BundledCohort:
    sets = {role: cohort.set(role) for role in ROLES}
    return BundledCohort(
        source=cohort.source,
        digest=cohort.digest,
        recipe_digest=cohort.record.recipe_digest,
        grid=cohort.grid,
        sets={role: BundledSet(count=len(of), digest=of.digest) for role, of in sets.items() if len(of)},
    )


def _pictures(sets: Mapping[str, VolumeSet], grid: Grid) -> dict[str, np.ndarray]:
    """The central slices of the first volume of each set; one that cannot be read is an error here."""
    pictures: dict[str, np.ndarray] = {}
    for name, volumes in sets.items():
        try:
            levels = central_levels(volumes[0], grid, volumes.slab, _pixel_mm(grid))
        except ValueError as error:
            raise MribenchError(f"The first sample of {name} must be drawn, but: {error}.") from error
        pictures |= {picture_name(name, view): levels[view] for view in VIEWS}
    return pictures


def _pixel_mm(grid: Grid) -> float:
    return grid.longest_mm / _PIXELS


def entrants_of(bundle: Bundle) -> list[Entrant]:
    """The entrants of a bundle, as a report takes them."""
    return [
        Entrant(
            name=entrant.name,
            title=entrant.run.title,
            kind=entrant.run.kind,
            scores={score.metric: score for score in entrant.scores},
            missing={absent.metric: absent.reason for absent in entrant.missing},
            doubts=entrant.doubts,
            slab=entrant.samples.slab,
            run=entrant.run,
            weights=entrant.weights,
            samples=entrant.samples,
            regions=entrant.regions,
            gates=entrant.gates,
        )
        for entrant in bundle.record.entrants
    ]
