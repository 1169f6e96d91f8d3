"""The dear arrays that metrics share: features, pair matrices, nearest lists; each once, kept by digest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError
from mribench.files import digest_json, write_array
from mribench.metrics import features as feature_module
from mribench.metrics.features import VIEWS, Extractor
from mribench.metrics.ms_ssim import definition_for
from mribench.metrics.nearest import nearest_neighbours
from mribench.metrics.pairs import DEFAULT_MEMORY, Kernel, checked, pair_matrix

log = logging.getLogger(__name__)


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
        memory: int = DEFAULT_MEMORY,
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
        self.cache, self.progress, self.device, self.memory = cache, progress, device, memory
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
            options: dict[str, Any] = {"device": self.device, "progress": report, "memory": self.memory}
            return pair_matrix(rows, others, kernel, parts=parts, **options)

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
            options: dict[str, Any] = {"device": self.device, "progress": report, "memory": self.memory}
            found = nearest_neighbours(rows, columns, k, kernel, **options)
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
                array = self._computed(name, compute, rows, self.cache) if self.cache else compute(None)
            self._memory[name] = array
        return self._memory[name]

    def _computed(
        self, name: str, compute: Callable[[Path | None], np.ndarray], rows: int, cache: Path
    ) -> np.ndarray:
        """Of two evaluations that need it at the same moment, one computes and the other waits for the file."""
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path := cache / f"{name}.lock")  # the system frees it when its process dies
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s is being computed by another process; waiting for it", name)
            lock.acquire()
        try:
            array = self._read(name, rows)
            if array is None:
                parts = cache / f"{name}.parts"
                array = compute(parts)
                write_array(cache / f"{name}.npy", array)
                shutil.rmtree(parts, ignore_errors=True)
            path.unlink(missing_ok=True)  # whoever still waits for it finds the array
            return array
        finally:
            lock.release()

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
