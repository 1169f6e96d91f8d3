"""The arrays that metrics share: features, pair matrices, nearest neighbours; each computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mribench.data.volume_set import VIEWS, VolumeSet
from mribench.errors import MribenchError
from mribench.files import digest_file, digest_json
from mribench.metrics.arrays.distances import squared_distances
from mribench.metrics.arrays.nearest import nearest_neighbours
from mribench.metrics.arrays.pairs import Kernel, checked, pair_matrix
from mribench.metrics.arrays.similarity import definition_for
from mribench.metrics.arrays.store import Store
from mribench.metrics.features import medicalnet
from mribench.metrics.features import slices as feature_module
from mribench.metrics.features.extraction import slice_features, volume_features
from mribench.runtime import Context


class Arrays:
    """The expensive arrays of one entrant and the real sets, each computed once and stored in the folder `cache`.

    `sets` holds "samples" and "reference" and, where there are any, "train" and "holdout". When the samples are a slab,
    the others are cropped to it. Raises MribenchError when shapes differ or a set that is needed is absent.
    """

    def __init__(
        self,
        sets: Mapping[str, VolumeSet],
        cache: Path | None,
        extractor: str = "effnet-lite0",
        context: Context | None = None,
    ) -> None:
        for name in ("samples", "reference"):
            if name not in sets or len(sets[name]) == 0:
                raise MribenchError(f"An evaluation needs volumes in the set {name!r}, but it is empty.")
        samples = sets["samples"]
        self.slab, self.shape = samples.slab, samples.shape
        self.full_depth = sets["reference"].shape[0]
        self.sets: Mapping[str, VolumeSet] = {name: volumes.crop(self.slab) for name, volumes in sets.items()}
        self.store, self.context = Store(cache), context or Context()
        self.extractor = feature_module.get_extractor(extractor)
        self._check_shapes()

    def _check_shapes(self) -> None:
        for name, volumes in self.sets.items():
            if volumes.shape != self.shape:
                raise MribenchError(
                    f"All volumes must share one grid [D,H,W], but samples are {list(self.shape)} "
                    f"and {name} is {list(volumes.shape)}. Prepare or resample both the same way."
                )

    def with_samples(self, samples: VolumeSet) -> Arrays:
        """The same with other samples, cropped alike and named in progress; store and networks are shared."""
        other = copy.copy(self)
        other.context = self.context.named(samples.name)
        other.sets = {**self.sets, "samples": samples.crop(self.slab)}
        other._check_shapes()
        return other

    @property
    def similarity(self) -> str:
        """The name of the MS-SSIM definition that the size rule gives to these volumes."""
        return definition_for(min(self.shape)).name

    def features(self, set_name: str, view: str) -> np.ndarray:
        """Features of the central slices of a set, `[N,F]` float64; view "axial", "coronal" or "sagittal"."""
        volumes = self._set(set_name)
        definition = self.feature_definition(*VIEWS)
        key = digest_json(["features", volumes.digest, definition])
        indices = {name: self._slice(name) for name in VIEWS}

        def cut(number: int) -> list[np.ndarray]:
            volume = self._volume(volumes, number)
            return [feature_module.grey_slice(volume, name, index) for name, index in indices.items()]

        def compute(parts: Path | None) -> np.ndarray:
            network, report = self._slice_network, self._counted(f"features {volumes.name}", len(volumes))
            return slice_features(
                cut, len(volumes), network, self.extractor, self.context.device, parts, report
            )

        array = self.store.get(f"features-{key[:24]}", compute, len(volumes))  # [N,3,F] float32
        chosen: np.ndarray = array[:, list(VIEWS).index(view)].astype(np.float64)
        return chosen

    def volume_features(self, set_name: str) -> np.ndarray:
        """Features of the whole volumes of a set, `[N,F]` float64; MribenchError without weights for 3D."""
        volumes = self._set(set_name)
        key = digest_json(["volume_features", volumes.digest, self.volume_definition()])

        def read(number: int) -> torch.Tensor:
            return medicalnet.network_input(self._volume(volumes, number))

        def compute(parts: Path | None) -> np.ndarray:
            network, report = self._volume_network, self._counted(f"3D features {volumes.name}", len(volumes))
            return volume_features(read, len(volumes), network, self.context.device, parts, report)

        return self.store.get(f"volumes-{key[:24]}", compute, len(volumes)).astype(np.float64)

    def distances(self, view: str) -> np.ndarray:
        """Squared distances of the features of reference then samples `[M+N,M+N]` float64; in memory only."""
        sets = ("reference", "samples")
        key = digest_json(["distances", *(self._set(name).digest for name in sets), view])

        def compute() -> np.ndarray:
            return squared_distances(np.concatenate([self.features(name, view) for name in sets]))

        return self.store.in_memory(key, compute)

    def pairs(self, a: str, b: str, kernel: Kernel | None = None) -> np.ndarray:
        """`kernel` (default: MS-SSIM by the size rule) of all volumes of `a` with all of `b`, `[N,M]`."""
        kernel = kernel or definition_for(min(self.shape))
        rows, columns = self._set(a), self._set(b)
        key = digest_json(["pairs", rows.digest, columns.digest, kernel.name])
        options = self._options(f"{kernel.name.partition('/')[0]} {a} x {b}")

        def compute(parts: Path | None) -> np.ndarray:
            others = None if rows.digest == columns.digest else columns
            return pair_matrix(rows, others, kernel, parts=parts, **options)

        return self.store.get(f"pairs-{key[:24]}", compute, len(rows))

    def nearest(
        self, queries: str, set_name: str, k: int, mirrored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices and MS-SSIM `[N,k]` of the `k` volumes of a set most similar to each query, best first.

        Equal volumes in order. `mirrored`: to each query with left and right exchanged.
        """
        rows, columns, kernel = self._set(queries), self._set(set_name), definition_for(min(self.shape))
        if k > len(columns):
            raise MribenchError(f"{k} nearest volumes were asked for, but {set_name} holds {len(columns)}.")
        rows = rows.mirrored() if mirrored else rows
        key = digest_json(["nearest", rows.digest, columns.digest, kernel.name, k])
        options = self._options(f"nearest {'mirrored ' if mirrored else ''}{queries} x {set_name}")

        def compute(_: Path | None) -> np.ndarray:
            nearest = nearest_neighbours(rows, columns, k, kernel, **options)
            return np.stack([nearest.indices, nearest.scores], axis=1)

        both = self.store.get(f"nearest-{key[:24]}", compute, len(rows))
        return both[:, 0].astype(np.intp), both[:, 1]

    def feature_definition(self, *views: str) -> dict[str, Any]:
        """What can move the features of `views`: the slices, the extractor and its weights."""
        first = self.slab[0] if self.slab else 0  # as indices in the whole volume, for a slab too
        indices = [self._slice(view) + (first if view == "axial" else 0) for view in views]
        return {"slice": "-".join(map(str, indices)), **self.extractor.definition()}

    def volume_definition(self) -> dict[str, Any]:
        """What can move the features of whole volumes: the slab, the extractor and its weights."""
        slab = f"{self.slab[0]}-{self.slab[1]}" if self.slab else "whole"
        return {"volume": slab, **medicalnet.definition(self._volume_weights)}

    @cached_property
    def _volume_weights(self) -> str:
        """SHA-256 of the file of weights for 3D."""
        path = self.context.weights_3d
        if path is None or not path.is_file():
            raise MribenchError(
                f"{medicalnet.NAME} needs its weights{f', but {path} is not a file' if path else ''}. "
                "Nothing is downloaded: give the file with --weights-3d PATH."
            )
        return digest_file(path)

    @cached_property
    def _volume_network(self) -> nn.Module:
        assert self.context.weights_3d
        return medicalnet.load_network(self.context.weights_3d, self.context.device)

    @cached_property
    def _slice_network(self) -> nn.Module:
        return feature_module.load_network(self.extractor, self.context.weights, self.context.device)

    def _slice(self, view: str) -> int:
        return feature_module.central_index(view, self.shape, self.slab, self.full_depth)

    def _set(self, name: str) -> VolumeSet:
        if name not in self.sets:
            raise MribenchError(f"The set {name!r} is needed, but only {', '.join(self.sets)} are given.")
        return self.sets[name]

    def _volume(self, volumes: VolumeSet, index: int) -> np.ndarray:
        return checked(volumes[index], volumes.shape, f"Volume {volumes.names[index]} of {volumes.name}")

    def _options(self, what: str) -> dict[str, Any]:
        context = self.context
        return {
            "device": context.device,
            "progress": lambda done, total: context.progress(what, done, total),
            "memory": context.memory,
        }

    def _counted(self, what: str, total: int) -> Callable[[int], None]:
        progress = self.context.progress
        return lambda done: progress(what, done, total)
