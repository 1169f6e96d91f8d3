"""The picture sections of the page: which volumes are shown, and the reason where one cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mribench.bench.folder import Bench
from mribench.bench.records import NearestPair
from mribench.data.cohort import Cohort
from mribench.data.grid import Grid
from mribench.data.volume_set import Slab, VolumeSet
from mribench.errors import MribenchError
from mribench.metrics.gates.result import Suspect
from mribench.metrics.memorisation import DUPLICATE
from mribench.reports.page.figures import Picture, central_pictures, embedding_panel, training_curves
from mribench.reports.page.profiles import measure, profile_plot
from mribench.reports.records import Entrant, read_embedding, said

_SAMPLES_SHOWN = 5  # the paper's figure shows five
_PAIRS_SHOWN = 3
_FINE_PIXELS, _COARSE_PIXELS = 176, 128  # along the longest side of the field of view
_UNREADABLE = (MribenchError, ValueError)


@dataclass(frozen=True)
class Strip:
    """Three views of one volume, or the reason why there are none."""

    title: str
    pictures: tuple[Picture, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class PairOfVolumes:
    """A sample beside its most similar training volume. `ratio` = (1 - s1) / (1 - s2), small for a copy."""

    strips: tuple[Strip, Strip, Strip]  # sample, neighbour, absolute difference
    similarity: float
    second: float
    ratio: float
    copy: bool


@dataclass(frozen=True)
class SuspectPictures:
    """A sample that a gate objects to, and, where there is one, the volume that it resembles and their difference."""

    strips: tuple[Strip, ...]
    sentence: str
    number: int  # of the sample


@dataclass(frozen=True)
class Group:
    """What one entrant shows in a section."""

    entrant: Entrant
    strips: tuple[Strip, ...] = ()
    pairs: tuple[PairOfVolumes, ...] = ()
    suspects: tuple[SuspectPictures, ...] = ()
    picture: Picture | None = None
    problem: str = ""


class Gallery:
    """Reads volumes of one bench and makes pictures; whatever cannot be read becomes a sentence."""

    def __init__(self, bench: Bench, cohort: Cohort | None) -> None:
        self._bench, self._cohort = bench, cohort
        self.grid: Grid = cohort.grid if cohort else bench.protocol.cohort.voxels

    def reference(self) -> Strip | None:
        """The first reference volume; None without a cohort."""
        if self._cohort is None:
            return None
        return self._strip(self._cohort.set("reference"), 0, "Reference", _FINE_PIXELS)

    def first(self, entrant: Entrant) -> Strip:
        """An entrant's first sample: not selected, hence not the best."""
        if entrant.samples is None:
            return Strip(entrant.label, problem=" ".join(entrant.problems))
        return self._strip(self._samples(entrant), 0, entrant.label, _FINE_PIXELS, entrant.name)

    def five(self, entrants: Sequence[Entrant]) -> list[Group]:
        """The first five samples of each entrant that has any."""
        groups = []
        for entrant in _sampled(entrants):
            volumes = self._samples(entrant)
            strips = [
                self._strip(volumes, i, f"Sample {i + 1}", _COARSE_PIXELS, entrant.name)
                for i in range(min(_SAMPLES_SHOWN, len(volumes)))
            ]
            groups.append(Group(entrant, strips=tuple(strips)))
        return groups

    def neighbours(self, entrants: Sequence[Entrant]) -> list[Group]:
        """The suspects of failed gates, and the pairs of sample and training volume that are most alike."""
        return [
            replace(self._tried(entrant, self._nearest), suspects=self._suspects(entrant))
            for entrant in _sampled(entrants)
        ]

    def _suspects(self, entrant: Entrant) -> tuple[SuspectPictures, ...]:
        suspects = [(gate, s) for gate in entrant.gates if gate.passed is False for s in gate.suspects]
        shown = suspects[: _PAIRS_SHOWN if entrant.kind != "control" else 1]
        return tuple(self._suspect(entrant, gate.title, suspect) for gate, suspect in shown)

    def _suspect(self, entrant: Entrant, gate: str, suspect: Suspect) -> SuspectPictures:
        """Pictures of a pair whose numbers still belong to the named volumes."""
        how = f", {suspect.how}" if suspect.how else ""
        match = (
            f"resembles {suspect.match} of {suspect.source}" if suspect.match else f"against {suspect.source}"
        )
        p = "" if suspect.p_value is None else f", p = {suspect.p_value:.2g}"
        sentence = f"{gate}: {suspect.sample} {match}{how}{p}"
        try:
            samples = self._samples(entrant)
            volumes = [(_named(samples, suspect.sample_index, suspect.sample), suspect.sample)]
            if suspect.match_index is not None:
                others = samples if suspect.source == "samples" else self._real(suspect.source, entrant)
                other = _named(others, suspect.match_index, suspect.match)
                volumes += [(other, suspect.match), (abs(volumes[0][0] - other), "Absolute difference")]
            strips = [
                self._drawn(v, samples.slab, title, _COARSE_PIXELS, entrant.name) for v, title in volumes
            ]
        except _UNREADABLE as error:
            strips = [Strip(suspect.sample, problem=self._said(error))]
        return SuspectPictures(tuple(strips), sentence, suspect.sample_index)

    def _real(self, role: str, entrant: Entrant) -> VolumeSet:
        if self._cohort is None:
            raise MribenchError(f"Without the cohort there are no {role} volumes.")
        return self._cohort.set(role).crop(entrant.slab)

    def embedding(self, entrants: Sequence[Entrant]) -> tuple[list[Group], str]:
        """One t-SNE panel per entrant of the joint fit, or the reason why there are none."""
        try:
            points = read_embedding(self._bench.embedding)
        except MribenchError as error:
            return [], self._said(error)
        names = {point.entrant for point in points if point.kind == "sample"}
        shown = [entrant for entrant in entrants if entrant.name in names]
        return [Group(e, picture=embedding_panel(points, e.name, e.label)) for e in shown], ""

    def profiles(self, entrants: Sequence[Entrant]) -> tuple[list[Group], str]:
        """Slice profiles of every entrant with samples, or the reason why there is no reference."""
        if self._cohort is None:
            return [], "Without the cohort there is no reference."
        try:
            reference = measure(self._cohort.set("reference"))
        except _UNREADABLE as error:
            return [], self._said(error)

        def group(entrant: Entrant) -> Group:
            own = measure(self._samples(entrant))
            return Group(entrant, picture=profile_plot(own, reference, entrant.label))

        return [self._tried(entrant, group) for entrant in _sampled(entrants)], ""

    def curves(self, entrants: Sequence[Entrant]) -> list[Group]:
        """Training curves of the models."""
        return [
            Group(entrant, picture=training_curves(entrant.training, entrant.label))
            if entrant.training
            else Group(entrant, problem="training.jsonl holds no record.")
            for entrant in entrants
            if entrant.kind == "model" and not (entrant.run and entrant.run.weights_of)
        ]

    def _samples(self, entrant: Entrant) -> VolumeSet:
        return self._bench.run(entrant.name).samples()

    def _said(self, error: Exception) -> str:
        return said(error, self._bench.folder)

    def _tried(self, entrant: Entrant, make: Callable[[Entrant], Group]) -> Group:
        try:
            return make(entrant)
        except _UNREADABLE as error:
            return Group(entrant, problem=self._said(error))

    def _strip(self, volumes: VolumeSet, index: int, title: str, pixels: int, entrant: str = "") -> Strip:
        try:
            return self._drawn(volumes[index], volumes.slab, title, pixels, entrant)
        except _UNREADABLE as error:
            return Strip(title, problem=self._said(error))

    def _drawn(self, volume: np.ndarray, slab: Slab | None, title: str, pixels: int, entrant: str) -> Strip:
        pixel_mm = self.grid.longest_mm / pixels
        return Strip(title, central_pictures(volume, self.grid, slab, pixel_mm, f"{entrant} {title}".strip()))

    def _nearest(self, entrant: Entrant) -> Group:
        nearest = entrant.nearest
        if nearest is None or self._cohort is None:
            remedy = f"nearest.json or the cohort cannot be read. Run: mribench evaluate {entrant.name}"
            return Group(entrant, problem=remedy)
        samples, train = self._samples(entrant), self._cohort.set("train").crop(entrant.slab)
        shown = nearest.pairs[: _PAIRS_SHOWN if entrant.kind != "control" else 1]
        pairs = [self._pair(samples, train, pair, nearest.copy_threshold, entrant.name) for pair in shown]
        return Group(entrant, pairs=tuple(pairs))

    def _pair(
        self, samples: VolumeSet, train: VolumeSet, pair: NearestPair, copy_threshold: float, entrant: str
    ) -> PairOfVolumes:
        i, k = pair.sample_index, pair.neighbour_index
        if samples.names[i : i + 1] != (pair.sample,) or train.names[k : k + 1] != (pair.neighbour,):
            raise MribenchError(
                f"nearest.json pairs {pair.sample} with {pair.neighbour}, but those numbers now belong to "
                f"other volumes. Run: mribench evaluate {entrant}"
            )
        sample, neighbour, title = samples[i], train[k], f"Nearest of train: {pair.neighbour}"
        if pair.mirrored:
            neighbour, title = neighbour[..., ::-1], f"{title}, mirrored left to right"

        def drawn(volume: np.ndarray, title: str) -> Strip:
            return self._drawn(volume, samples.slab, title, _COARSE_PIXELS, entrant)

        ratio = (1 - pair.similarity) / (1 - pair.second) if pair.second < 1 else 1.0
        return PairOfVolumes(
            strips=(
                drawn(sample, f"Sample {i + 1}"),
                drawn(neighbour, title),
                drawn(abs(sample - neighbour), "Absolute difference"),
            ),
            similarity=pair.similarity,
            second=pair.second,
            ratio=ratio,
            copy=ratio < copy_threshold or 1 - pair.similarity < DUPLICATE,
        )


def _named(volumes: VolumeSet, index: int, name: str) -> np.ndarray:
    """The volume of that number; raises MribenchError when another one has that number now."""
    if volumes.names[index : index + 1] != (name,):
        raise MribenchError(
            f"Number {index} of {volumes.name} is no longer {name}. Evaluate the entrant again."
        )
    return volumes[index]


def _sampled(entrants: Sequence[Entrant]) -> list[Entrant]:
    return [entrant for entrant in entrants if entrant.samples is not None]
