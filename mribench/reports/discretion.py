"""What a report or a bundle says when it must show no real volume and name none.

The cohort and the bench that `without_people` gives have no real names, and reading a real volume from them raises
MribenchError: a section that is not prepared for this shows that sentence, and no picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench, Run
from mribench.data.cohort import Cohort
from mribench.data.records import CohortRecord, RefusedScan, ScanRecord, VolumeEntry
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError
from mribench.metrics.gates.result import GateResult, Suspect
from mribench.metrics.score import Score
from mribench.reports.gates import real_samples
from mribench.reports.records import Entrant

WITHHELD = "Real volumes are not shown here, and neither is an entrant that is made of them or fails a gate for copies."
_NAME, _PATH = "(a real volume)", "(a path)"
_COPY_GATES = ("copies", "identical")
_SHORTEST = 5  # letters of a name that is looked for inside words; a shorter one is a word of its own


class NameRemover:
    """Takes the names of a cohort's volumes, subjects and files, and absolute paths, out of sentences."""

    def __init__(self, cohort: Cohort) -> None:
        names = {name for name in _names(cohort) if name.strip()}
        self._spaced = sorted((n for n in names if re.search(r"\s", n)), key=len, reverse=True)
        self._long = [n for n in names if len(n) >= _SHORTEST]
        self._short = {n for n in names if len(n) < _SHORTEST}
        self._known: dict[str, str] = {}  # a word -> what stands for it

    def __call__(self, text: str) -> str:
        for name in self._spaced:
            text = text.replace(name, _NAME)
        return re.sub(r"[^\s'\"]+", self._word, text)

    def _word(self, match: re.Match[str]) -> str:
        word = match[0]
        if word not in self._known:
            self._known[word] = self._replaced(word)
        return self._known[word]

    def _replaced(self, word: str) -> str:
        bare = word.strip(".,;:()[]<>")
        if bare in self._short or any(name in word for name in self._long):
            return _NAME
        return _PATH if re.match(r"/[^/]+/", bare) else word


def _names(cohort: Cohort) -> Iterable[str]:
    volumes, refused = cohort.record.volumes, cohort.record.problems
    yield from (volume.name for volume in volumes)
    yield from (scan.name for scan in refused)
    for scan in (*(volume.record for volume in volumes), *(scan.record for scan in refused)):
        if isinstance(scan, ScanRecord):
            yield from (scan.id, scan.subject, scan.name)


def without_names(entrant: Entrant, clean: NameRemover) -> Entrant:
    """An entrant whose sentences, gates and nearest volumes name no real volume; samples keep their numbers."""
    nearest = entrant.nearest
    if nearest is not None:
        pairs = tuple(pair.model_copy(update={"neighbour": _NAME}) for pair in nearest.pairs)
        nearest = nearest.model_copy(update={"pairs": pairs})
    return replace(
        entrant,
        scores={metric: _score(score, clean) for metric, score in entrant.scores.items()},
        missing={metric: clean(reason) for metric, reason in entrant.missing.items()},
        gates=tuple(_gate(gate, clean) for gate in entrant.gates),
        problems=tuple(map(clean, entrant.problems)),
        doubts=tuple(map(clean, entrant.doubts)),
        nearest=nearest,
    )


def _score(score: Score, clean: NameRemover) -> Score:
    changed: dict[str, object] = {"notes": tuple(map(clean, score.notes))}
    if score.real_baseline is not None:
        how = clean(score.real_baseline.how)
        changed["real_baseline"] = score.real_baseline.model_copy(update={"how": how})
    return score.model_copy(update=changed)


def _gate(gate: GateResult, clean: NameRemover) -> GateResult:
    suspects = tuple(_suspect(suspect) for suspect in gate.suspects)
    return gate.model_copy(update={"reason": clean(gate.reason), "suspects": suspects})


def _suspect(suspect: Suspect) -> Suspect:
    if suspect.source == "samples" or suspect.match_index is None:
        return suspect
    return suspect.model_copy(update={"match": "", "match_index": None})


def shows_people(entrant: Entrant, held_back: str) -> bool:
    """Whether its samples are, or may be, pictures of real volumes: then they are not shown.

    A control that is made of them; samples that are real voxel for voxel (`held_back`) or fail a gate for copies; and
    an entrant whose gates were never judged. A gate that lacks people to compare with has still looked for equal and
    nearly equal voxels.
    """
    if entrant.kind == "control" or entrant.name in CONTROLS:
        return entrant.name not in CONTROLS or CONTROLS[entrant.name].made_of_people
    failed = any(gate.passed is False for gate in entrant.gates if gate.gate in _COPY_GATES)
    return failed or not entrant.gates or bool(held_back)


def without_people(
    bench: Bench, cohort: Cohort, entrants: Sequence[Entrant]
) -> tuple[Bench, Cohort, list[Entrant]]:
    """The same bench, cohort and entrants without names and pictures of real volumes."""
    clean, real = NameRemover(cohort), real_samples(entrants, cohort)
    hidden = frozenset(e.name for e in entrants if shows_people(e, real.get(e.name, "")))
    quiet = _QuietBench(bench.folder, bench.protocol, bench.packages, hidden)
    return quiet, _QuietCohort(cohort.folder, _nameless(cohort)), [without_names(e, clean) for e in entrants]


def _nameless(cohort: Cohort) -> CohortRecord:
    record = cohort.record
    volumes = tuple(v.model_copy(update={"name": _NAME, "record": {}}) for v in record.volumes)
    count = len(record.problems)
    told = RefusedScan(name=f"{count} scans", reason="Their names and reasons are not shown here.")
    return record.model_copy(update={"volumes": volumes, "problems": (told,) if count else ()})


class _QuietCohort(Cohort):
    """A cohort whose volumes cannot be read."""

    def _verified_voxels(self, volume: VolumeEntry) -> np.ndarray:
        raise MribenchError(WITHHELD)


@dataclass(frozen=True)
class _QuietRun(Run):
    """A run whose samples cannot be read."""

    def samples(self) -> VolumeSet:
        return replace(super().samples(), load=_withhold)


def _withhold(number: int) -> np.ndarray:
    raise MribenchError(WITHHELD)


@dataclass(frozen=True)
class _QuietBench(Bench):
    """A bench some of whose runs are quiet."""

    hidden: frozenset[str] = frozenset()

    def run(self, name: str) -> Run:
        run = super().run(name)
        return _QuietRun(run.folder) if name in self.hidden else run
