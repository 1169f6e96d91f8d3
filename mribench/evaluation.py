"""From sets of volumes to scores: dear arrays once each, kept by digest, then every metric from them."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError, NotApplicable
from mribench.files import digest_json, write_array
from mribench.metrics import DEFAULT_METRICS, get_metric
from mribench.metrics import features as feature_module
from mribench.metrics.features import VIEWS, Extractor
from mribench.metrics.metric import (
    Z95,
    Keep,
    Metric,
    Missing,
    Score,
    interval_name,
    leave_out,
    squared_error,
)
from mribench.metrics.ms_ssim import definition_for
from mribench.metrics.nearest import nearest_neighbours
from mribench.metrics.pairs import Kernel, checked, pair_matrix

log = logging.getLogger(__name__)

COMPARED_ALIKE_IN_A_SLAB = ("fid_a",)  # a slice that the slab holds is the same slice


class Blocks:
    """The dear arrays of one entrant and its reference sets, each computed once and kept in `cache`.

    `sets` holds "samples" and "reference" and, where there are any, "train" and "holdout". When the samples
    are a slab, the others are cropped to it. Raises MribenchError when shapes differ or a needed set is absent.
    """

    def __init__(
        self,
        sets: Mapping[str, VolumeSet],
        cache: Path | None,
        extractor: str = "effnet-lite0",
        weights: Path | None = None,
        progress: Progress | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        for name in ("samples", "reference"):
            if name not in sets or len(sets[name]) == 0:
                raise MribenchError(f"An evaluation needs volumes in the set {name!r}, but it is empty.")
        self.slab = sets["samples"].slab
        self.full_depth = sets["reference"].shape[0]
        self.sets: Mapping[str, VolumeSet] = {
            name: one if name == "samples" else one.crop(self.slab) for name, one in sets.items()
        }
        self.shape = self.sets["samples"].shape
        self.cache, self.progress, self.device = cache, progress, device
        self.extractor: Extractor = feature_module.get_extractor(extractor)
        self.weights = weights
        self._network: nn.Module | None = None
        self._memory: dict[str, np.ndarray] = {}
        self._check_shapes()

    def _check_shapes(self) -> None:
        for name, one in self.sets.items():
            if one.shape != self.shape:
                raise MribenchError(
                    f"All volumes must share one grid [D,H,W], but samples are {list(self.shape)} "
                    f"and {name} is {list(one.shape)}. Prepare or resample both the same way."
                )

    def features(self, set_name: str, view: str) -> np.ndarray:
        """Features of the central slices of a set, `[N,F]` float64; view "axial", "coronal" or "sagittal"."""
        volumes = self._set(set_name)
        definition = self.feature_definition(*VIEWS)
        key = digest_json(["features", volumes.digest, definition])
        array = self._once(f"features-{key[:24]}", lambda _: self._extract(volumes), len(volumes))
        chosen: np.ndarray = array[:, list(VIEWS).index(view)].astype(np.float64)
        return chosen

    def pairs(self, a: str, b: str, definition: Kernel | None = None) -> np.ndarray:
        """`definition` (default: MS-SSIM by the size rule) of all volumes of `a` with all of `b`, `[N,M]`."""
        kernel = definition or definition_for(min(self.shape))
        rows, columns = self._set(a), self._set(b)

        def compute(parts: Path | None) -> np.ndarray:
            label = f"{kernel.name.partition('/')[0]} {a} x {b}"
            others = None if rows.digest == columns.digest else columns
            report = self._reporter(label)
            return pair_matrix(rows, others, kernel, device=self.device, parts=parts, progress=report)

        return self._once(self._pairs_name(rows, columns, kernel), compute, len(rows))

    def nearest(self, queries: str, set_name: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices and MS-SSIM `[N,k]` of the `k` volumes of a set most similar to each query, best first.

        From the matrix of all pairs where there is one, else without most of its work; equal volumes in order.
        """
        rows, columns, kernel = self._set(queries), self._set(set_name), definition_for(min(self.shape))
        if k > len(columns):
            raise MribenchError(f"{k} nearest volumes were asked for, but {set_name} holds {len(columns)}.")
        if self._has(self._pairs_name(rows, columns, kernel), len(rows)):
            matrix = self.pairs(queries, set_name)
            order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
            return order, np.take_along_axis(matrix, order, axis=1)

        def compute(_: Path | None) -> np.ndarray:
            report = self._reporter(f"nearest {queries} x {set_name}")
            found = nearest_neighbours(rows, columns, k, kernel, device=self.device, progress=report)
            return np.stack([found.indices, found.scores], axis=1)

        key = digest_json(["nearest", rows.digest, columns.digest, kernel.name, k])
        both = self._once(f"nearest-{key[:24]}", compute, len(rows))
        return both[:, 0].astype(np.intp), both[:, 1]

    def _pairs_name(self, rows: VolumeSet, columns: VolumeSet, kernel: Kernel) -> str:
        return f"pairs-{digest_json(['pairs', rows.digest, columns.digest, kernel.name])[:24]}"

    def feature_definition(self, *views: str) -> dict[str, Any]:
        """What can move the features of `views`: the slices, the extractor and its weights."""
        return {"slice": self._slices(views), **self.extractor.definition()}

    def _slices(self, views: Sequence[str]) -> str:
        """Indices in the whole volume, so that a slab's axial slice reads like everyone's."""
        first = self.slab[0] if self.slab else 0
        index = [self._slice(view) + (first if view == "axial" else 0) for view in views]
        return "-".join(str(i) for i in index)

    def _slice(self, view: str) -> int:
        return feature_module.central_index(view, self.shape, self.slab, self.full_depth)

    def _set(self, name: str) -> VolumeSet:
        if name not in self.sets:
            raise MribenchError(f"The set {name!r} is needed, but only {', '.join(self.sets)} are given.")
        return self.sets[name]

    def _extract(self, volumes: VolumeSet) -> np.ndarray:
        """`[N,3,F]` float32: every volume is read once and cut in all views."""
        if self._network is None:
            self._network = feature_module.load_network(self.extractor, self.weights, self.device)
        report = self._reporter(f"features {volumes.name}")
        count = len(volumes) * len(VIEWS)
        array = feature_module.extract(
            self._planes(volumes),
            self._network,
            self.extractor,
            self.device,
            (lambda done: report(done, count)) if report else None,
        )
        return array.reshape(len(VIEWS), len(volumes), -1).transpose(1, 0, 2)

    def _planes(self, volumes: VolumeSet) -> list[np.ndarray]:
        """uint8 slices, view after view, because a batch needs slices of one shape."""
        planes: dict[str, list[np.ndarray]] = {view: [] for view in VIEWS}
        for index in range(len(volumes)):
            name = f"Volume {volumes.names[index]} of {volumes.name}"
            volume = checked(volumes[index], volumes.shape, name)
            for view in VIEWS:
                planes[view].append(feature_module.grey_slice(volume, view, self._slice(view)))
        return [plane for view in VIEWS for plane in planes[view]]

    def _reporter(self, what: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return (lambda done, total: progress(what, done, total)) if progress else None

    def _once(self, name: str, compute: Callable[[Path | None], np.ndarray], rows: int) -> np.ndarray:
        """From memory, else from the cache, else computed (with a folder for its parts) and written there."""
        if name not in self._memory:
            array = self._read(name, rows)
            if array is None:
                parts = self.cache / f"{name}.parts" if self.cache else None
                array = compute(parts)
                if self.cache:
                    write_array(self.cache / f"{name}.npy", array)
                if parts:
                    shutil.rmtree(parts, ignore_errors=True)
            self._memory[name] = array
        return self._memory[name]

    def _has(self, name: str, rows: int) -> bool:
        return name in self._memory or self._read(name, rows) is not None

    def _read(self, name: str, rows: int) -> np.ndarray | None:
        path = self.cache / f"{name}.npy" if self.cache else None
        if path is None or not path.exists():
            return None
        try:
            array: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s); computing it again", path, error)
            return None
        return array if len(array) == rows else None


def evaluate(
    sets: Mapping[str, VolumeSet],
    cache: Path | None,
    *,
    metrics: Sequence[str] | None = None,
    extractor: str = "effnet-lite0",
    weights: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> tuple[list[Score], list[Missing]]:
    """Score "samples" against the other sets (see `Blocks`) by `metrics`; default: all but opt-in ones.

    A metric that cannot be computed becomes a `Missing` with its reason and costs no other score. Raises
    UsageError for an unknown metric or extractor, MribenchError when the sets do not share one grid.
    """
    chosen = [get_metric(name) for name in (metrics or DEFAULT_METRICS)]
    blocks = Blocks(sets, cache, extractor, weights, progress, device)
    scores: list[Score] = []
    missing: list[Missing] = []
    for metric in chosen:
        try:
            scores.append(score(metric, blocks))
        except MribenchError as error:
            by_design = isinstance(error, NotApplicable)
            missing.append(Missing(metric=metric.name, reason=str(error), by_design=by_design))
        except Exception as error:  # a fault must not lose the other metrics; the trace goes to the log
            log.exception("%s failed", metric.name)
            missing.append(Missing(metric=metric.name, reason=f"failed: {type(error).__name__}: {error}"))
    return scores, missing


def score(metric: Metric, blocks: Blocks) -> Score:
    """One metric's score with its jackknife interval; raises MribenchError when it cannot be computed."""
    start = time.perf_counter()
    n = _counts(metric, blocks)
    prepared = metric.prepare(blocks)
    everything = {name: np.arange(count) for name, count in n.items()}
    value = metric.value(prepared, everything)
    if not math.isfinite(value):
        raise MribenchError(f"{metric.name} came out as {value}, which is no score. Check the volumes.")
    replicates = _replicates(metric, prepared, everything)
    half = Z95 * math.sqrt(sum(squared_error(value, replicates[side], n[side]) for side in metric.deletes))
    definition = metric.definition(blocks)
    comparable = blocks.slab is None or metric.name in COMPARED_ALIKE_IN_A_SLAB
    return Score(
        metric=metric.name,
        title=metric.title,
        unit=metric.unit,
        family=metric.family,
        ranked=metric.ranked and comparable,
        value=value,
        low=value - half,
        high=value + half,
        interval=interval_name(n, metric.deletes),
        better=metric.better,
        target=metric.target(prepared, everything),
        n=n,
        version=digest_json([metric.name, definition])[:12],
        signature=_signature(metric.name, definition, n),
        digests={name: blocks.sets[name].digest for name in n},
        seconds=round(time.perf_counter() - start, 3),
        notes=_notes(blocks, comparable),
        replicates=replicates,
        target_sides=metric.target_deletes,
    )


def _replicates(metric: Metric, prepared: Any, everything: Keep) -> dict[str, tuple[float, ...]]:
    """Set name -> the value (or, of `target_deletes`, the target) without each block of its volumes."""
    replicates: dict[str, tuple[float, ...]] = {}
    for sides, function in ((metric.deletes, metric.value), (metric.target_deletes, metric.target)):
        for side in sides:

            def without(kept: np.ndarray, side: str = side, function: Any = function) -> float:
                return float(function(prepared, {**everything, side: kept}))

            replicates[side] = leave_out(without, len(everything[side]))
    return replicates


def _counts(metric: Metric, blocks: Blocks) -> dict[str, int]:
    """Set name -> number of volumes; MribenchError naming the set that is absent or too small."""
    for name, fewest in metric.needs.items():
        if name not in blocks.sets:
            raise NotApplicable(f"{metric.title} needs the set {name!r}, which was not given.")
        if len(blocks.sets[name]) < fewest:
            raise NotApplicable(
                f"{metric.title} needs at least {fewest} volumes in {name!r}, "
                f"but there are {len(blocks.sets[name])}."
            )
    return {name: len(blocks.sets[name]) for name in metric.needs}


def _signature(name: str, definition: Mapping[str, Any], n: Mapping[str, int]) -> str:
    settings = {"metric": name, **definition, "n": "+".join(f"{count} {side}" for side, count in n.items())}
    return "|".join(f"{key}:{value}" for key, value in settings.items())


def _notes(blocks: Blocks, comparable: bool) -> tuple[str, ...]:
    notes = []
    if blocks.slab:
        start, stop = blocks.slab
        where = f"axial slices {start} to {stop - 1} of {blocks.full_depth}"
        notes.append(f"{where}{'' if comparable else '; real volumes cropped alike; not ranked'}")
    digests = blocks.sets["samples"].digests
    copies = len(digests) - len(set(digests))
    if copies:
        notes.append(f"{copies} of {len(digests)} samples are exact duplicates of others")
    return tuple(notes)
