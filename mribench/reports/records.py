"""What the report reads of a run: any file may be missing, torn or altered, which is then said."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeVar

from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench, Run
from mribench.bench.records import (
    EmbeddingRecord,
    Kind,
    NearestRecord,
    RunRecord,
    SamplesRecord,
    ScoresRecord,
    TrainingStep,
    WeightsRecord,
)
from mribench.data.cohort import Cohort, open_cohort
from mribench.data.volume_set import Slab, VolumeSet
from mribench.errors import MribenchError
from mribench.files import Record, digest_file, read_json_lines
from mribench.metrics.gates.result import GateResult
from mribench.metrics.regions import RegionRow
from mribench.metrics.score import Score

_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True)
class Point:
    """One volume in the joint t-SNE; `nearest` names a sample's most similar training volume."""

    kind: str
    entrant: str
    name: str
    x: float
    y: float
    nearest: str


@dataclass(frozen=True)
class Entrant:
    """Anything with (or that should have) samples and scores.

    `missing` maps a metric to the reason why it has no score, `problems` say what could not be read, and
    `doubts` say why none of the scores can be compared with the others'.
    """

    name: str
    title: str = ""
    kind: Kind | Literal["unknown"] = "folder"
    scores: Mapping[str, Score] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    slab: Slab | None = None
    run: RunRecord | None = None
    weights: WeightsRecord | None = None
    samples: SamplesRecord | None = None
    nearest: NearestRecord | None = None
    training: tuple[TrainingStep, ...] = ()
    regions: tuple[RegionRow, ...] = ()
    gates: tuple[GateResult, ...] = ()

    @property
    def label(self) -> str:
        """The paper's name, or the run's where there is none."""
        return self.title or self.name

    @property
    def what(self) -> str:
        """One sentence about a control."""
        if self.run and self.run.what:
            return self.run.what
        return CONTROLS[self.name].what if self.name in CONTROLS else ""

    @property
    def door_of(self) -> str:
        """The adopted entrant whose recipe this control tries on real volumes; "" for any other."""
        return self.run.door_of if self.run else ""

    @property
    def parameters(self) -> int | None:
        return sum(self.run.parameters.values()) if self.run and self.run.parameters else None

    @property
    def seen(self) -> int | None:
        """Volumes seen in training."""
        return self.weights.seen if self.weights else self.training[-1].seen if self.training else None

    @property
    def training_seconds(self) -> float | None:
        return self.weights.seconds if self.weights else self.training[-1].seconds if self.training else None

    @property
    def seconds_per_volume(self) -> float | None:
        """Mean time of making one sample."""
        files = self.samples.files if self.samples and self.kind == "model" else []
        times = [file.seconds for file in files if file.seconds is not None]
        return fmean(times) if times else None

    @property
    def devices(self) -> str:
        """Where it was trained and, if elsewhere, sampled."""
        if self.kind != "model":
            return ""
        made = self.weights or self.run
        trained = str(made.device) if made and made.device else ""
        sampled = str(self.samples.device) if self.samples and self.samples.device else ""
        return trained if sampled in ("", trained) else f"{trained or '?'}, sampled on {sampled}"


class Reader:
    """Reads one run's files, collecting a sentence for each that cannot be read."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.problems: list[str] = []

    def note(self, error: Exception | str) -> None:
        """Remember a problem, without the absolute path of the bench."""
        self.problems.append(said(error, self.bench.folder))

    def optional(self, kind: type[_R], path: Path) -> _R | None:
        """The record in that file; None when the file is absent or (a problem) unreadable."""
        return self.required(kind, path, "") if path.exists() else None

    def required(self, kind: type[_R], path: Path, remedy: str) -> _R | None:
        """As `optional`, but absence is a problem too."""
        if not path.exists():
            self.note(f"There is no {path.name}. {remedy}")
            return None
        try:
            return kind.read(path)
        except MribenchError as error:
            self.note(error)
        return None


def said(error: Exception | str, folder: Path) -> str:
    """An error's text with paths relative to the bench: a page that travels must not name somebody's disk."""
    return str(error).replace(f"{folder}/", "").replace(f"{folder.resolve()}/", "")


def read_cohort(bench: Bench) -> tuple[Cohort | None, str]:
    """The bench's cohort, or None and the reason why it cannot be used."""
    try:
        return open_cohort(bench.cohort_folder), ""
    except MribenchError as error:
        return None, said(error, bench.folder)


def read_entrants(bench: Bench, cohort: Cohort | None) -> list[Entrant]:
    """Every run of the bench, readable or not."""
    return [read_entrant(bench, run, cohort) for run in bench.runs()]


def read_entrant(bench: Bench, run: Run, cohort: Cohort | None) -> Entrant:
    """One run; never raises for what is on disk."""
    reader = Reader(bench)
    record = reader.required(RunRecord, run.record, "What made these samples is unknown.")
    samples = reader.required(SamplesRecord, run.samples_record, f"Run: mribench generate {run.name}")
    if samples and not samples.files:
        reader.note(f"It has no samples yet. Run: mribench generate {run.name}")
        samples = None
    remedy = f"Run: mribench evaluate {run.name}"
    scored = reader.required(ScoresRecord, run.scores, remedy) if samples else None
    control = CONTROLS.get(run.name)
    scores = {score.metric: score for score in scored.scores} if scored else {}
    missing = {absent.metric: absent.reason for absent in scored.missing} if scored else {}
    kind = record.kind if record else "control" if control else "unknown"
    training = tuple(read_training(run.progress, reader)) if run.progress.exists() else ()
    return Entrant(
        name=run.name,
        title=record.title if record else control.title if control else "",
        kind=kind,
        scores=scores,
        missing=missing,
        slab=samples.slab if samples else None,
        run=record,
        weights=reader.optional(WeightsRecord, _home(run, record).weights_record),
        samples=samples,
        nearest=reader.optional(NearestRecord, run.nearest),
        training=training,
        regions=scored.regions if scored else (),
        gates=scored.gates if scored else (),
        problems=tuple(reader.problems),
        doubts=tuple(_doubts(bench, run, cohort, record, scored, scores)) if scored and scores else (),
    )


def _home(run: Run, record: RunRecord | None) -> Run:
    return run.weights_run if record else run


def _doubts(
    bench: Bench,
    run: Run,
    cohort: Cohort | None,
    record: RunRecord | None,
    scored: ScoresRecord,
    scores: Mapping[str, Score],
) -> list[str]:
    """Why these scores are not of this bench's protocol, cohort and samples."""
    doubts = []
    if record is None:
        doubts.append("run.json cannot be read, so it is unknown what made these samples")
    elif cohort and record.kind != "folder" and record.cohort_digest not in (None, cohort.digest):
        doubts.append("made from another cohort than this bench's")
    if scored.protocol_digest not in (None, bench.protocol.digest):
        doubts.append("scored under another protocol")
    samples = run.samples()
    if record and record.kind == "model" and _of_earlier_weights(run, record):
        doubts.append("made by earlier weights than the run's present ones, or its training goes on")
    if scored.samples_digest not in (None, *_sample_digests(samples, scores)):
        doubts.append("the samples have changed since they were scored")
    if cohort and scored.reference_digest not in (None, *_reference_digests(cohort, samples.slab)):
        doubts.append("scored against other reference volumes than this bench's")
    return doubts


def _of_earlier_weights(run: Run, record: RunRecord) -> bool:
    """Whether these samples are not of the weights that are there now; weights that were removed prove nothing.

    Only a raised budget and weights of another run can leave such samples: a training anew removes its own.
    """
    if not (record.raised or record.weights_of):
        return False
    if not run.weights_run.weights_record.exists():
        return bool(record.raised)
    made = run.read_samples()
    try:
        return made.made_from != run.samples_stamp(made.sampler)
    except MribenchError:  # weights.json cannot be read, which is a problem of its own
        return False


def _reference_digests(cohort: Cohort, slab: Slab | None) -> set[str]:
    """A slab entrant's reference is the whole volumes or, cropped, the same slab of them."""
    reference = cohort.set("reference")
    return {reference.digest, reference.crop(slab).digest}


def _sample_digests(samples: VolumeSet, scores: Mapping[str, Score]) -> set[str]:
    """Digest of all samples, and of the first n where only those were scored."""
    counts = {score.n.get("samples", 0) for score in scores.values()} | {len(samples)}
    return {samples.subset(range(n)).digest for n in counts if 0 < n <= len(samples)}


def read_training(path: Path, reader: Reader) -> list[TrainingStep]:
    """The records by step; of a step recorded twice (resumed runs) the last wins; torn lines are left out."""
    records: dict[int, TrainingStep] = {}
    try:
        lines, torn = read_json_lines(path)
    except MribenchError as error:
        reader.note(error)
        return []
    for line in lines:
        try:
            record = TrainingStep.model_validate_json(line)
            records[record.step] = record
        except ValueError:  # ValidationError is one
            torn += 1
    if torn > 1:
        count = len(lines) + torn
        reader.note(f"{path}: {torn} of {count} lines are no training records and were left out.")
    return [records[step] for step in sorted(records)]


def read_embedding(path: Path) -> list[Point]:
    """The joint t-SNE; raises MribenchError when it is absent or not what it should be."""
    record = path.with_suffix(".json")
    try:
        if record.exists() and EmbeddingRecord.read(record).table_digest not in ("", digest_file(path)):
            raise ValueError(f"it is not the table that {record.name} records")
        with open(path, encoding="utf-8", newline="") as file:
            points = [
                Point(
                    row["kind"],
                    row["entrant"] or "",
                    row["name"],
                    float(row["x"]),
                    float(row["y"]),
                    row["nearest"] or "",
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise MribenchError(
            f"{path} must be a readable t-SNE table, but: {error!r}. Run: mribench report"
        ) from error
    return [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
