"""What is written down of a cohort: the file volumes.json and its parts."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from mribench.data.grid import Grid
from mribench.files import Record


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScanRecord(_Part):
    """What is written down of one prepared scan; fractions are of the brain, `negative_fraction` of all voxels."""

    id: str
    subject: str
    session: str
    source: str
    name: str
    sha256: str  # of the source file
    digest: str  # of the prepared voxels
    spacing_mm: tuple[float, float, float]
    oblique: bool
    intensity_of_one: float
    brain_cm3: float
    template_correlation: float
    outside_fov_fraction: float
    negative_fraction: float
    clipped_fraction: float
    problems: tuple[str, ...]  # what a person should look at, though the scan is used


class RawRecord(ScanRecord):
    """What is written down of one raw scan. `brain_cm3` is that of its mask, before registration.

    `affine` `[4,4]` maps the scan's world mm to MNI152's, `determinant` is its own. `border_cm2`: area of brain
    on that face of the scan where most is; `border` names the face.
    """

    stages: tuple[str, ...]
    mask_sha256: str  # of the given mask; "" without
    saturated_fraction: float  # of the masked voxels as read, at the scan's largest value
    noise_sd: float  # in the scan's own units, before denoising
    bias_range: float  # 99th over 1st percentile of the removed field in the brain
    affine: tuple[tuple[float, ...], ...]
    determinant: float
    dice: float
    border_cm2: float
    border: str


VolumeRecord = RawRecord | ScanRecord | dict[str, float]  # the last: the traits of a simulated subject


class VolumeEntry(_Part):
    """One volume of the cohort, its roles, the digest of its voxels and where it comes from."""

    name: str
    roles: tuple[str, ...]
    digest: str
    record: VolumeRecord

    @property
    def numbers(self) -> dict[str, float]:
        """The fractional numbers in its record by name."""
        values = self.record if isinstance(self.record, dict) else self.record.model_dump()
        return {key: value for key, value in values.items() if isinstance(value, float)}


class RefusedScan(_Part):
    """A scan that is not used, and why; with its record when a volume was made of it. No text holds a path."""

    name: str
    reason: str
    record: RawRecord | ScanRecord | None = None


class CohortRecord(Record):
    """volumes.json: which volumes make up the cohort, in their order, and what they were made of."""

    SCHEMA: ClassVar[str] = "mribench/cohort/1"
    REMEDY: ClassVar[str] = (
        "Restore the file, or remove it and run the same mribench prepare (or init, of simulated volumes) again: no "
        "finished volume is made anew."
    )

    source: Literal["simulated", "prepared"]
    recipe: dict[str, Any]  # plain JSON, because an earlier version's recipe must still be shown and compared
    recipe_digest: str
    protocol_digest: str
    grid: Grid
    volumes: tuple[VolumeEntry, ...]
    problems: tuple[RefusedScan, ...] = ()
    inputs: str = ""  # identifies the files that a prepared cohort was made from
    digest: str
