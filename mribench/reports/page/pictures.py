"""The picture sections of the page: which volumes are shown, and what is said where one cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.data.grid import Grid
from mribench.data.volume_set import Slab, VolumeSet
from mribench.errors import MribenchError
from mribench.metrics.memorisation import DUPLICATE
from mribench.reports.page.figures import Picture, central_pictures, embedding_panel, training_curves
from mribench.reports.page.profiles import measure, profile_plot
from mribench.reports.records import Entrant, Pair, read_embedding, said

SAMPLES_SHOWN = 5  # the paper's figure shows five
PAIRS_SHOWN = 3
FINE_PIXELS, COARSE_PIXELS = 176, 128  # along the longest side of the field of view


@dataclass(frozen=True)
class Strip:
    """Three views of one volume, or the reason why there are none."""

    title: str
    pictures: tuple[Picture, ...] = ()
    problem: str = ""
    entrant: str = ""
    control: bool = False


@dataclass(frozen=True)
class PairOfVolumes:
    """A sample beside its most similar training volume. `ratio` = (1 - s1) / (1 - s2), small for a copy."""

    strips: tuple[Strip, Strip, Strip]  # sample, neighbour, absolute difference
    similarity: float
    second: float
    ratio: float
    copy: bool


@dataclass(frozen=True)
class Group:
    """What one entrant shows in a section."""

    entrant: Entrant
    strips: tuple[Strip, ...] = ()
    pairs: tuple[PairOfVolumes, ...] = ()
    picture: Picture | None = None
    problem: str = ""


class Gallery:
    """Reads volumes of one bench and makes pictures; whatever cannot be read becomes a sentence."""

    def __init__(self, bench: Bench, cohort: Cohort | None) -> None:
        self.bench, self.cohort = bench, cohort
        self.grid: Grid = cohort.grid if cohort else bench.protocol.cohort.voxels
        self._longest_mm = max(self.grid.spacing_mm) * self.grid.size

    def sheet(self, entrants: Sequence[Entrant]) -> list[Strip]:
        """The first reference volume, then every entrant's first sample: not chosen, hence not the best."""
        strips = []
        if self.cohort is not None:
            reference = self.cohort.set("reference")
            strips.append(self._strip(reference, 0, "Reference", FINE_PIXELS))
        return strips + [self._first(entrant) for entrant in entrants]

    def _first(self, entrant: Entrant) -> Strip:
        control = entrant.kind == "control"
        if entrant.samples is None:
            return Strip(entrant.label, (), " ".join(entrant.problems), entrant.name, control)
        volumes = self.bench.run(entrant.name).samples()
        return replace(self._strip(volumes, 0, entrant.label, FINE_PIXELS, entrant.name), control=control)

    def five(self, entrants: Sequence[Entrant]) -> list[Group]:
        """The first five samples of each entrant that has any."""
        groups = []
        for entrant in entrants:
            if entrant.samples is not None:
                volumes = self.bench.run(entrant.name).samples()
                strips = [
                    self._strip(
                        volumes, i, f"Sample {i + 1}", COARSE_PIXELS if i else FINE_PIXELS, entrant.name
                    )
                    for i in range(min(SAMPLES_SHOWN, len(volumes)))
                ]
                groups.append(Group(entrant, strips=tuple(strips)))
        return groups

    def _strip(self, volumes: VolumeSet, index: int, title: str, pixels: int, entrant: str = "") -> Strip:
        try:
            return self._drawn(volumes[index], volumes.slab, title, pixels, entrant)
        except (MribenchError, ValueError) as error:
            return Strip(title, problem=said(error, self.bench.folder), entrant=entrant)

    def _drawn(
        self, volume: np.ndarray, slab: Slab | None, title: str, pixels: int, entrant: str = ""
    ) -> Strip:
        alt = f"{entrant} {title}".strip()
        pixel_mm = self._longest_mm / pixels
        return Strip(title, central_pictures(volume, self.grid, slab, pixel_mm, alt), entrant=entrant)

    def neighbours(self, entrants: Sequence[Entrant]) -> list[Group]:
        """The pairs of sample and training volume that are most alike, per entrant."""
        return [self._nearest(entrant) for entrant in entrants if entrant.samples is not None]

    def _nearest(self, entrant: Entrant) -> Group:
        if entrant.nearest is None or self.cohort is None:
            remedy = f"nearest.json or the cohort cannot be read. Run: mribench evaluate {entrant.name}"
            return Group(entrant, problem=remedy)
        count = PAIRS_SHOWN if entrant.kind != "control" else 1
        samples, train = self.bench.run(entrant.name).samples(), self.cohort.set("train").crop(entrant.slab)
        try:
            pairs = [self._pair(samples, train, pair, entrant) for pair in entrant.nearest.pairs[:count]]
            return Group(entrant, pairs=tuple(pairs))
        except (MribenchError, ValueError) as error:
            return Group(entrant, problem=said(error, self.bench.folder))

    def _pair(self, samples: VolumeSet, train: VolumeSet, pair: Pair, entrant: Entrant) -> PairOfVolumes:
        i, k = pair.sample_index, pair.neighbour_index
        if samples.names[i : i + 1] != (pair.sample,) or train.names[k : k + 1] != (pair.neighbour,):
            raise MribenchError(
                f"nearest.json pairs {pair.sample} with {pair.neighbour}, but those numbers now belong to "
                f"other volumes. Run: mribench evaluate {entrant.name}"
            )
        sample, neighbour = samples[i], train[k]
        title = f"Nearest of train: {pair.neighbour}"
        if pair.mirrored:
            neighbour, title = neighbour[..., ::-1], f"{title}, mirrored left to right"

        def drawn(volume: np.ndarray, title: str) -> Strip:
            return self._drawn(volume, samples.slab, title, COARSE_PIXELS, entrant.name)

        ratio = (1 - pair.similarity) / (1 - pair.second) if pair.second < 1 else 1.0
        threshold = entrant.nearest.copy_threshold if entrant.nearest else 0.0
        return PairOfVolumes(
            strips=(
                drawn(sample, f"Sample {i + 1}"),
                drawn(neighbour, title),
                drawn(abs(sample - neighbour), "Absolute difference"),
            ),
            similarity=pair.similarity,
            second=pair.second,
            ratio=ratio,
            copy=ratio < threshold or 1 - pair.similarity < DUPLICATE,
        )

    def embedding(self, entrants: Sequence[Entrant]) -> tuple[list[Group], str]:
        """One t-SNE panel per entrant of the joint fit, or the reason why there are none."""
        try:
            points = read_embedding(self.bench.embedding)
        except MribenchError as error:
            return [], said(error, self.bench.folder)
        there = {point.entrant for point in points if point.kind == "sample"}
        shown = [entrant for entrant in entrants if entrant.name in there]
        return [Group(e, picture=embedding_panel(points, e.name, e.label)) for e in shown], ""

    def profiles(self, entrants: Sequence[Entrant]) -> tuple[list[Group], str]:
        """Slice profiles of every entrant with samples, or the reason why there is nothing to hold them against."""
        if self.cohort is None:
            return [], "Without the cohort there is no reference."
        try:
            reference = measure(self.cohort.set("reference"))
        except (MribenchError, ValueError) as error:
            return [], said(error, self.bench.folder)
        groups = []
        for entrant in entrants:
            if entrant.samples is not None:
                try:
                    own = measure(self.bench.run(entrant.name).samples())
                    groups.append(Group(entrant, picture=profile_plot(own, reference, entrant.label)))
                except (MribenchError, ValueError) as error:
                    groups.append(Group(entrant, problem=said(error, self.bench.folder)))
        return groups, ""

    def curves(self, entrants: Sequence[Entrant]) -> list[Group]:
        """Training curves of the models."""
        return [
            Group(entrant, picture=training_curves(entrant.training, entrant.label))
            if entrant.training
            else Group(entrant, problem="training.jsonl holds no record.")
            for entrant in entrants
            if entrant.kind == "model"
        ]
