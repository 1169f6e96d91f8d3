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

from mribench.data.anatomy import Lattice
from mribench.data.volume_set import VIEWS, VolumeSet
from mribench.errors import MribenchError
from mribench.files import digest_file, digest_json
from mribench.metrics.arrays import alignment
from mribench.metrics.arrays.distances import side_by_side, squared_distances
from mribench.metrics.arrays.nearest import nearest_neighbours
from mribench.metrics.arrays.pairs import Kernel, checked, pair_matrix
from mribench.metrics.arrays.similarity import definition_for
from mribench.metrics.arrays.store import Store
from mribench.metrics.features import anatomy, medicalnet, seams
from mribench.metrics.features import slices as feature_module
from mribench.metrics.features.extraction import brain_regions, slice_features, volume_features
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
        """Features of the slices of a set at the P positions of a view, `[N,P,F]` float64."""
        volumes = self._set(set_name)
        definition = self.feature_definition(*VIEWS)
        key = digest_json(["features", volumes.digest, definition])
        planes = [(name, index) for name in VIEWS for index in self._within(name)]

        def cut(number: int) -> list[np.ndarray]:
            volume = self._volume(volumes, number)
            return [feature_module.grey_slice(volume, name, index) for name, index in planes]

        def compute(parts: Path | None) -> np.ndarray:
            network, report = self._slice_network, self._counted(f"features {volumes.name}", len(volumes))
            return slice_features(
                cut, len(volumes), network, self.extractor, self.context.device, parts, report
            )

        array = self.store.get(f"features-{key[:24]}", compute, len(volumes))  # [N,planes,F] float32
        chosen: np.ndarray = array[:, [name == view for name, _ in planes]].astype(np.float64)
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

    def region_volumes(self, set_name: str) -> np.ndarray:
        """Volumes in ml of `REGIONS` in every brain of a set, `[N,R]` float64; NotApplicable outside MNI152."""
        volumes, lattice = self._set(set_name), self._lattice
        key = digest_json(["regions", volumes.digest, self.region_definition()])

        def compute(parts: Path | None) -> np.ndarray:
            report = self._counted(f"regions {volumes.name}", len(volumes))
            return brain_regions(lambda i: self._volume(volumes, i), lattice, len(volumes), parts, report)

        return self.store.get(f"regions-{key[:24]}", compute, len(volumes))

    def seams(self, set_name: str) -> np.ndarray:
        """Seam profiles of the volumes of a set, `[N,P]` float64."""
        volumes = self._set(set_name)
        key = digest_json(["seams", volumes.digest, self.seam_definition()])

        def compute(_: Path | None) -> np.ndarray:
            return np.stack([seams.seam_profile(self._volume(volumes, i)) for i in range(len(volumes))])

        return self.store.get(f"seams-{key[:24]}", compute, len(volumes))

    def joins(self, set_name: str) -> np.ndarray:
        """Join profiles of the volumes of a set, `[N,P]` float64; `seams.places` names the positions."""
        volumes = self._set(set_name)
        key = digest_json(["joins", volumes.digest, self._extent(), seams.join_definition()])

        def compute(_: Path | None) -> np.ndarray:
            return np.stack([seams.join_profile(self._volume(volumes, i)) for i in range(len(volumes))])

        return self.store.get(f"joins-{key[:24]}", compute, len(volumes))

    def honest_joins(self, set_name: str) -> np.ndarray:
        """How blur and a pull to the mean change the mean join profile of a set, `[2,P]` float64."""
        volumes = self._set(set_name)
        options = [seams.join_definition(), seams.BLUR, seams.PULL]
        key = digest_json(["honest joins", volumes.digest, self._extent(), *options])

        def compute(_: Path | None) -> np.ndarray:
            return seams.honest_changes(lambda i: self._volume(volumes, i), len(volumes))

        return self.store.get(f"honest-joins-{key[:24]}", compute, 2)

    def distances(self, view: str) -> np.ndarray:
        """Squared distances of reference then samples `[M+N,M+N]` float64, by the features of all positions of a view.

        In memory only.
        """
        sets = ("reference", "samples")
        key = digest_json(["distances", *(self._set(name).digest for name in sets), view])

        def compute() -> np.ndarray:
            return squared_distances(
                np.concatenate([side_by_side(self.features(name, view)) for name in sets])
            )

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

    def positions(self, view: str) -> tuple[int, ...]:
        """Indices of the slices of a view that have features, in the whole volume also when the samples are a slab."""
        first = self.slab[0] if self.slab and view == "axial" else 0
        return tuple(first + index for index in self._within(view))

    def coarse(self, set_name: str) -> np.ndarray:
        """The volumes of a set on a grid of at most 32 voxels a side, `[N,d,h,w]` float32."""
        volumes = self._set(set_name)
        key = digest_json(["coarse", volumes.digest, alignment.COARSE_SIDE])
        report = self._counted(f"coarse {volumes.name}", len(volumes))

        def compute(_: Path | None) -> np.ndarray:
            small = []
            for i in range(len(volumes)):
                small.append(alignment.coarse(torch.from_numpy(self._volume(volumes, i))).numpy())
                report(i + 1)
            return np.stack(small)

        return self.store.get(f"coarse-{key[:24]}", compute, len(volumes))

    @property
    def framing(self) -> str:
        """The set whose mean the volumes are aligned to."""
        return "train" if "train" in self.sets else "reference"

    @property
    def frame_digest(self) -> str:
        """Identity of the frame."""
        return digest_json(["frame", self._set(self.framing).digest, alignment.DEFINITION])

    @cached_property
    def frame(self) -> alignment.Frame:
        """The mean of the training volumes, else of the reference, that all volumes are aligned to."""
        mean = self.coarse(self.framing).mean(axis=0, dtype=np.float64)
        return alignment.Frame(torch.from_numpy(mean.astype(np.float32)))

    def poses(self, set_name: str, mirrored: bool = False) -> np.ndarray:
        """The affine maps from the frame to the volumes of a set, `[N,3,4]` float32, in voxels of the coarse grid.

        `mirrored`: of the volumes with left and right exchanged.
        """
        volumes = self._set(set_name)
        key = digest_json(["poses", volumes.digest, mirrored, self.frame_digest])
        report = self._counted(f"align {'mirrored ' if mirrored else ''}{volumes.name}", len(volumes))

        def compute(_: Path | None) -> np.ndarray:
            parts = []
            for batch in self._coarse_batches(set_name, mirrored):
                parts.append(self.frame.poses(batch).numpy())
                report(sum(map(len, parts)))
            return np.concatenate(parts)

        return self.store.get(f"poses-{key[:24]}", compute, len(volumes))

    def _coarse_batches(self, set_name: str, mirrored: bool) -> list[torch.Tensor]:
        small = self.coarse(set_name)
        small = np.ascontiguousarray(small[..., ::-1]) if mirrored else small
        return list(torch.from_numpy(small).split(alignment.BATCH))

    def forms(self, set_name: str, mirrored: bool = False) -> np.ndarray:
        """The voxels of a set in the brain of the frame, as they lie and aligned, `[N,2,V]` float32.

        `mirrored`: of the volumes with left and right exchanged.
        """
        volumes = self._set(set_name)
        key = digest_json(["forms", volumes.digest, mirrored, self.frame_digest])

        def compute(_: Path | None) -> np.ndarray:
            batches = self._coarse_batches(set_name, mirrored)
            poses = torch.from_numpy(self.poses(set_name, mirrored)).split(alignment.BATCH)
            return np.concatenate(
                [self.frame.forms(*each).numpy() for each in zip(batches, poses, strict=True)]
            )

        return self.store.get(f"forms-{key[:24]}", compute, len(volumes))

    def feature_definition(self, *views: str) -> dict[str, Any]:
        """What can move the features of `views`: the slices, the extractor and its weights."""
        slices = "-".join(".".join(map(str, self.positions(view))) for view in views)
        return {"slice": slices, **self.extractor.definition()}

    def volume_definition(self) -> dict[str, Any]:
        """What can move the features of whole volumes: the slab, the extractor and its weights."""
        return {"volume": self._extent(), **medicalnet.definition(self._volume_weights)}

    def seam_definition(self) -> dict[str, Any]:
        """What can move a seam profile: the slab, and the definition of a seam."""
        return {"volume": self._extent(), **seams.definition()}

    def _extent(self) -> str:
        return f"{self.slab[0]}-{self.slab[1]}" if self.slab else "whole"

    def region_definition(self) -> dict[str, Any]:
        """What can move the volume of a region: the segmentation and where the voxels lie."""
        sides = zip(self._lattice.spacing_mm, self._lattice.origin_mm, strict=True)
        grid = "-".join(f"{spacing:.4f}@{origin:.3f}" for spacing, origin in sides)
        return {**anatomy.definition(), "grid": grid}

    @property
    def voxel_mm(self) -> float:
        """The longest side of a voxel; NotApplicable outside MNI152."""
        return max(self._lattice.spacing_mm)

    @property
    def _lattice(self) -> Lattice:
        """Of all sets, by the affine of the reference: samples often carry none of their own."""
        return anatomy.lattice_of(self.shape, self.sets["reference"].affine)

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

    def _within(self, view: str) -> tuple[int, ...]:
        return feature_module.slices_within(view, self.shape, self.slab, self.full_depth)

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
