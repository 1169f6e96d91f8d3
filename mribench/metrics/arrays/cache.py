"""The dear arrays that metrics share: features, pair matrices, nearest lists; each once, kept by digest."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError
from mribench.files import digest_file, digest_json, read_array, write_array
from mribench.metrics.arrays.nearest import nearest_neighbours
from mribench.metrics.arrays.pairs import DEFAULT_MEMORY, Kernel, checked, pair_matrix
from mribench.metrics.features import medicalnet
from mribench.metrics.features import slices as feature_module
from mribench.metrics.features.extraction import slice_features, volume_features
from mribench.metrics.features.slices import VIEWS, Extractor
from mribench.metrics.features.weights import Weights
from mribench.metrics.mmd import squared_distances
from mribench.metrics.ms_ssim import definition_for

log = logging.getLogger(__name__)


class Arrays:
    """The dear arrays of one entrant and its reference sets, each computed once and kept in `cache`.

    `sets` holds "samples" and "reference" and, where there are any, "train" and "holdout". When the samples
    are a slab, the others are cropped to it. Raises MribenchError when shapes differ or a needed set is absent.
    """

    def __init__(
        self,
        sets: Mapping[str, VolumeSet],
        cache: Path | None,
        extractor: str = "effnet-lite0",
        weights: Weights | None = None,
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
        self.weights = weights or Weights()
        self._memory: dict[str, np.ndarray] = {}
        self._check_shapes()

    def _check_shapes(self) -> None:
        for name, one in self.sets.items():
            if one.shape != self.shape:
                raise MribenchError(
                    f"All volumes must share one grid [D,H,W], but samples are {list(self.shape)} "
                    f"and {name} is {list(one.shape)}. Prepare or resample both the same way."
                )

    def instead(self, samples: VolumeSet) -> Arrays:
        """The same with other samples, cropped alike and named in progress; cache, memory, network are shared."""
        other, report = copy.copy(self), self.progress
        if report:
            other.progress = lambda what, done, total: report(f"{samples.name}: {what}", done, total)
        other.sets = {**self.sets, "samples": samples.crop(self.slab)}
        other._check_shapes()
        return other

    def kept(self, name: str, compute: Callable[[], np.ndarray], rows: int) -> np.ndarray:
        """A small array under a name that says all it depends on: from memory or cache, else computed."""
        return self._once(name, lambda _: compute(), rows)

    def features(self, set_name: str, view: str) -> np.ndarray:
        """Features of the central slices of a set, `[N,F]` float64; view "axial", "coronal" or "sagittal"."""
        volumes = self._set(set_name)
        definition = self.feature_definition(*VIEWS)
        key = digest_json(["features", volumes.digest, definition])

        def compute(parts: Path | None) -> np.ndarray:
            return self._extract(volumes, parts)

        array = self._once(f"features-{key[:24]}", compute, len(volumes))
        chosen: np.ndarray = array[:, list(VIEWS).index(view)].astype(np.float64)
        return chosen

    def volume_features(self, set_name: str) -> np.ndarray:
        """Features of the whole volumes of a set, `[N,F]` float64; MribenchError without weights for 3D."""
        volumes = self._set(set_name)
        key = digest_json(["volume_features", volumes.digest, self.volume_definition()])

        def compute(parts: Path | None) -> np.ndarray:
            network = self._volume_network
            report = self._counted(f"3D features {volumes.name}", len(volumes))

            def read(index: int) -> torch.Tensor:
                return medicalnet.network_input(self._volume(volumes, index))

            return volume_features(read, len(volumes), network, self.device, parts, report)

        return self._once(f"volumes-{key[:24]}", compute, len(volumes)).astype(np.float64)

    def distances(self, view: str) -> np.ndarray:
        """Squared distances of the features of reference then samples `[M+N,M+N]` float64; in memory only."""
        first, second = self._set("reference"), self._set("samples")
        key = digest_json(["distances", first.digest, second.digest, view])
        if key not in self._memory:
            rows = [self.features(name, view) for name in ("reference", "samples")]
            self._memory[key] = squared_distances(np.concatenate(rows))
        return self._memory[key]

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

        key = digest_json(["pairs", rows.digest, columns.digest, kernel.name])
        return self._once(f"pairs-{key[:24]}", compute, len(rows))

    def nearest(
        self, queries: str, set_name: str, k: int, mirrored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices and MS-SSIM `[N,k]` of the `k` volumes of a set most similar to each query, best first.

        Equal volumes in order. `mirrored`: to each query with left and right exchanged.
        """
        rows, columns, kernel = self._set(queries), self._set(set_name), definition_for(min(self.shape))
        if k > len(columns):
            raise MribenchError(f"{k} nearest volumes were asked for, but {set_name} holds {len(columns)}.")
        if mirrored:
            rows = rows.mirrored()

        def compute(_: Path | None) -> np.ndarray:
            report = self._reporter(f"nearest {'mirrored ' if mirrored else ''}{queries} x {set_name}")
            options: dict[str, Any] = {"device": self.device, "progress": report, "memory": self.memory}
            found = nearest_neighbours(rows, columns, k, kernel, **options)
            return np.stack([found.indices, found.scores], axis=1)

        key = digest_json(["nearest", rows.digest, columns.digest, kernel.name, k])
        both = self._once(f"nearest-{key[:24]}", compute, len(rows))
        return both[:, 0].astype(np.intp), both[:, 1]

    def feature_definition(self, *views: str) -> dict[str, Any]:
        """What can move the features of `views`: the slices, the extractor and its weights."""
        return {"slice": self._slices(views), **self.extractor.definition()}

    def volume_definition(self) -> dict[str, Any]:
        """What can move the features of whole volumes: the slab, the extractor and its weights."""
        slab = f"{self.slab[0]}-{self.slab[1]}" if self.slab else "whole"
        return {"volume": slab, **medicalnet.definition(self._volume_weights)}

    @cached_property
    def _volume_weights(self) -> str:
        """SHA-256 of the file of weights for 3D."""
        path = self.weights.volumes
        if path is None or not path.is_file():
            raise MribenchError(
                f"{medicalnet.NAME} needs its weights{f', but {path} is not a file' if path else ''}. "
                "Nothing is downloaded: give the file with --weights-3d PATH."
            )
        return digest_file(path)

    @cached_property
    def _volume_network(self) -> nn.Module:
        assert self.weights.volumes
        return medicalnet.load_network(self.weights.volumes, self.device)

    @cached_property
    def _slice_network(self) -> nn.Module:
        return feature_module.load_network(self.extractor, self.weights.slices, self.device)

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

    def _extract(self, volumes: VolumeSet, parts: Path | None) -> np.ndarray:
        """`[N,3,F]` float32: every volume is read once and cut in all views."""

        def cut(index: int) -> list[np.ndarray]:
            volume = self._volume(volumes, index)
            return [feature_module.grey_slice(volume, view, self._slice(view)) for view in VIEWS]

        network, report = self._slice_network, self._counted(f"features {volumes.name}", len(volumes))
        return slice_features(cut, len(volumes), network, self.extractor, self.device, parts, report)

    def _volume(self, volumes: VolumeSet, index: int) -> np.ndarray:
        return checked(volumes[index], volumes.shape, f"Volume {volumes.names[index]} of {volumes.name}")

    def _counted(self, what: str, total: int) -> Callable[[int], None] | None:
        report = self._reporter(what)
        return (lambda done: report(done, total)) if report else None

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

    def _read(self, name: str, rows: int) -> np.ndarray | None:
        return read_array(self.cache / f"{name}.npy", rows) if self.cache else None
