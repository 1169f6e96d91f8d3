"""selftest.json: what the self-test writes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from mribench.files import Record
from mribench.runtime import DeviceRecord


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CohortFacts(_Part):
    digest: str
    source: str
    shape: tuple[int, int, int]


class Fault(_Part):
    name: str
    title: str
    unit: str  # of a dose
    doses: tuple[float, ...]


class DoseScore(_Part):
    """One metric at one dose: value and difference of the rank key to dose 0, each with its 95 % interval."""

    degradation: str
    dose: float
    metric: str
    value: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None


class Verdict(_Part):
    degradation: str
    metric: str
    notices_from: float | None  # the smallest dose; None = never
    monotone: bool


class ControlResult(_Part):
    """Whether a metric separates a control that it declares to detect from dose 0; possibly neither seen nor missed."""

    control: str
    metric: str
    difference: float
    low: float
    high: float
    seen: bool
    missed: bool


class PlantedKind(_Part):
    kind: str
    must_be_found: bool
    planted: int
    found: int
    largest_ratio: float


class FreshVolumes(_Part):
    volumes: int
    taken_for_copies: int
    smallest_ratio: float


class PlantedResult(_Part):
    kinds: tuple[PlantedKind, ...]
    fresh: FreshVolumes


class SelfTest(Record):
    """selftest.json: faults in growing doses, controls and planted copies, each with what was noticed."""

    SCHEMA: ClassVar[str] = "mribench/selftest/1"
    REMEDY: ClassVar[str] = "Run: mribench selftest --bench, with this folder"

    command: str
    protocol: str
    cohort: CohortFacts
    n: dict[str, int]  # set name -> volumes
    extractor: str
    versions: dict[str, str]
    device: DeviceRecord
    degradations: tuple[Fault, ...]
    metrics: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    controls: tuple[ControlResult, ...]
    planted: PlantedResult
    first_component: dict[str, float]  # trait of the cohort -> its correlation with what `dropped_mode` cuts
    failures: tuple[str, ...]
    seconds: float
    cells: tuple[DoseScore, ...]
    problems: tuple[str, ...]
