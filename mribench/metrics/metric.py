"""What a metric is: its facts, declared once, and the methods that compute it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mribench.data.volume_set import Slab, VolumeSet
from mribench.metrics.score import Better, Display
from mribench.metrics.statistics.jackknife import wilson

if TYPE_CHECKING:  # declaring and listing metrics must not import torch
    from mribench.metrics.arrays.pairs import Kernel

Gathered = TypeVar("Gathered")
Keep = Mapping[str, NDArray[np.intp]]  # set name -> indices of the volumes that stay
# A slab's score is compared with those of whole volumes, or shown with an asterisk, or there is none.
SlabRule = Literal["compared", "not compared", "not applicable"]


class ArraySource(Protocol):
    """The expensive arrays, each computed once; implemented by `mribench.metrics.arrays.cache.Arrays`."""

    sets: Mapping[str, VolumeSet]
    slab: Slab | None
    shape: tuple[int, int, int]  # of one volume as compared, [D,H,W]
    full_depth: int  # axial slices of a whole volume, also when the samples are a slab

    @property
    def similarity(self) -> str: ...
    def features(self, set_name: str, view: str) -> np.ndarray: ...
    def positions(self, view: str) -> tuple[int, ...]: ...
    def distances(self, view: str) -> np.ndarray: ...
    def pairs(self, a: str, b: str, kernel: Kernel | None = None) -> np.ndarray: ...
    def nearest(
        self, queries: str, set_name: str, k: int, mirrored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def feature_definition(self, *views: str) -> dict[str, Any]: ...
    def volume_features(self, set_name: str) -> np.ndarray: ...
    def volume_definition(self) -> dict[str, Any]: ...
    def region_volumes(self, set_name: str) -> np.ndarray: ...
    def region_definition(self) -> dict[str, Any]: ...
    def seams(self, set_name: str) -> np.ndarray: ...
    def seam_definition(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric(ABC, Generic[Gathered]):
    """A named definition: `gather` collects arrays once, `value` is the number on a subset of volumes.

    `value` and `target` must be cheap: the jackknife calls them once for every volume (or group of volumes)
    left out of the sets named in `resampled` and `target_resampled`. A subclass states a default by an
    annotated field; TypeError otherwise, because a dataclass ignores a plain attribute.
    """

    name: str
    title: str
    measures: str  # one or two sentences for the report
    blind_to: str  # what it does not measure, likewise
    better: Better
    family: str  # the ranked metrics of one family are averaged in the headline
    unit: str = ""
    ranked: bool = False  # False = shown beside the ranking, never part of it
    opt_in: bool = False  # computed only where it is asked for by name
    # Set name -> fewest volumes.
    needs: Mapping[str, int] = field(default_factory=lambda: {"samples": 3, "reference": 3})
    # Sets whose volumes carry the uncertainty of the value.
    resampled: tuple[str, ...] = ("samples", "reference")
    target_resampled: tuple[str, ...] = ()  # the same for a target that is estimated from data
    detects: tuple[str, ...] = ()  # controls that it must separate from real_heldout
    in_slab: SlabRule = "not compared"  # what becomes of the score when the samples are a slab
    proportion_of: str | None = None  # the set whose volumes it counts
    display: Display = field(default_factory=Display)

    def __init_subclass__(cls) -> None:
        own = vars(cls).get("__annotations__", {})
        ignored = [f.name for f in fields(Metric) if f.name in vars(cls) and f.name not in own]
        if ignored:
            raise TypeError(f"{cls.__name__} must annotate its defaults: {', '.join(ignored)}.")

    @abstractmethod
    def definition(self, arrays: ArraySource) -> dict[str, Any]:
        """Every setting that can move the number; flat, JSON-able. Its digest is the score's version."""

    @abstractmethod
    def gather(self, arrays: ArraySource) -> Gathered:
        """The arrays that `value` needs; raises MribenchError when they cannot be had."""

    @abstractmethod
    def value(self, gathered: Gathered, keep: Keep) -> float:
        """The number on the volumes in `keep`."""

    def target(self, gathered: Gathered, keep: Keep) -> float | None:
        """The value that a perfect generator has, for `better="match"`; else None."""
        return None

    def exchangeable(self, gathered: Gathered) -> tuple[np.ndarray, int] | None:
        """For a permutation test: kernel values of reference then samples `[M+N,M+N]`, computed in the same way for
        both, and M. None: no test.
        """
        return None

    def least_interval(self, value: float, n: Mapping[str, int]) -> tuple[float, float]:
        """The narrowest 95 % interval of a proportion over sets of `n` volumes, for `proportion_of`: Wilson's.

        The jackknife's has no width where all volumes count alike.
        """
        assert self.proportion_of
        return wilson(value, n[self.proportion_of])
