"""Stripped and registered scans -> volumes on the common grid, and subjects -> roles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import affine_transform, gaussian_filter

from mribench.data.formats import digest_scan, read_scan
from mribench.data.grid import Grid, paper_grid, quantise
from mribench.data.nifti import NiftiVolume
from mribench.data.prepare.scans import Scan, discover, without_paths
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_json, digest_volume
from mribench.runtime import derive

__all__ = [
    "Recipe",
    "Refusal",
    "Scan",
    "ScanRecord",
    "discover",
    "prepare",
    "prepare_scan",
    "reference_subset",
    "resample",
    "split_subjects",
]

log = logging.getLogger(__name__)

_FEWEST_INTENSITIES = 16  # a mask or label map has fewer
# Measured: Colin27 0.89, simulated brains 0.70 to 0.82; Colin27 moved by 15 mm 0.48, upside down 0.51.
_LOW_CORRELATION = 0.6
_MANY_NEGATIVE = 0.01
_MANY_CLIPPED = 0.02


class Recipe(BaseModel):
    """Every choice that turns a scan into a volume, besides the grid; its digest belongs to the cohort."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["prepare-1"] = "prepare-1"
    scan_of_subject: Literal["first session, first name"] = "first session, first name"
    interpolation: Literal["linear"] = "linear"
    # Sigma against aliasing, in source voxels: presmoothing * (step of the grid in source voxels - 1).
    presmoothing: Annotated[float, Field(ge=0)] = 0.6
    # Brain = above this share of the 99.9th percentile of the positive voxels.
    foreground: Annotated[float, Field(ge=0, lt=1)] = 0.01
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.5  # of the brain's voxels; becomes 1
    brain_cm3: tuple[float, float] = (800.0, 2500.0)  # outside: not stripped, or not a brain
    max_outside_fov: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of the brain; more: not registered

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all settings."""
        return digest_json(self.model_dump(mode="json"))


class ScanRecord(BaseModel):
    """What is written down of one prepared scan; fractions are of the brain, `negative_fraction` of all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A scan that is kept out, and why; neither text holds an absolute path."""

    name: str
    reason: str
    id: str
    chosen: bool  # False for a scan that only would have been a subject's second


def prepare(
    scans: Sequence[Scan],
    grid: Grid,
    recipe: Recipe,
    store: Callable[[ScanRecord, np.ndarray], None],
    *,
    done: Iterable[ScanRecord] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Refusal]:
    """Prepare each scan, hand record and volume `[D,H,W]` in [0,1] to `store`; return what was kept out.

    One bad file never costs the others. Scans in `done` (an earlier call's records) whose file and labels
    are still the same are passed over. Of two scans with the same voxels the second is refused: it is one
    person twice.
    """
    records = {record.id: record for record in done}
    refusals = []
    for number, scan in enumerate(scans, 1):
        try:
            prepared = _prepare_unless_done(scan, grid, recipe, records)
        except MribenchError as error:
            reason = without_paths(str(error), scan)
            refusals.append(Refusal(scan.name, reason, scan.id, chosen=not scan.skipped))
            log.warning("Left out: %s", refusals[-1].reason)
        else:
            if prepared is not None:
                store(*prepared)
                records[scan.id] = prepared[0]
        if progress is not None:
            progress(scan.name, number, len(scans))
    return refusals


def _prepare_unless_done(
    scan: Scan, grid: Grid, recipe: Recipe, records: Mapping[str, ScanRecord]
) -> tuple[ScanRecord, np.ndarray] | None:
    if scan.skipped:
        raise MribenchError(f"{scan.name} is {scan.skipped}.")
    earlier = records.get(scan.id)
    if earlier is not None and _same(earlier, scan):
        return None
    record, volume = prepare_scan(scan, grid, recipe)
    twin = next((r for r in records.values() if r.digest == record.digest and r.id != record.id), None)
    if twin is not None:
        raise MribenchError(
            f"{scan.name} must be another person than {twin.name}, but both give the same voxels. "
            "Leave one out, or give them one subject in a manifest."
        )
    return record, volume


def _same(record: ScanRecord, scan: Scan) -> bool:
    labels = ("subject", "session", "source", "name")
    return all(getattr(record, k) == getattr(scan, k) for k in labels) and record.sha256 == digest_scan(
        scan.path
    )


def prepare_scan(scan: Scan, grid: Grid, recipe: Recipe) -> tuple[ScanRecord, np.ndarray]:
    """Read, check and resample one scan; returns its record and the volume `[D,H,W]` float32 in [0,1].

    Raises MribenchError with the reason when the scan cannot be used.
    """
    source = read_scan(scan.path)
    try:
        volume, measures = resample(source, grid, recipe)
    except MribenchError as error:
        raise MribenchError(f"{scan.name}: {error}") from error
    record = ScanRecord(
        id=scan.id,
        subject=scan.subject,
        session=scan.session,
        source=scan.source,
        name=scan.name,
        sha256=digest_scan(scan.path),
        digest=digest_volume(quantise(volume), grid.affine),
        **measures,
    )
    return record, volume


def resample(source: NiftiVolume, grid: Grid, recipe: Recipe) -> tuple[np.ndarray, dict[str, Any]]:
    """One interpolation of `source` onto `grid` through world mm, then percentile normalisation to [0,1].

    Outside the source is 0. Returns `[D,H,W]` float32 and the measures that ScanRecord holds. Raises
    MribenchError for a mask, for what is not stripped, and for what is not registered.
    """
    brain, outside = _checked_brain(source, grid, recipe)
    scale = float(np.percentile(source.data[brain], recipe.percentile))
    volume = _interpolate(source, grid, recipe.presmoothing) / np.float32(scale)
    inside = volume > 0
    measures = {
        "spacing_mm": source.spacing_mm,
        "oblique": source.oblique,
        "intensity_of_one": scale,
        "brain_cm3": _cm3(brain, source),
        "template_correlation": _template_correlation(source),
        "outside_fov_fraction": outside,
        "negative_fraction": float((source.data < 0).mean()),
        "clipped_fraction": float((volume > 1).sum() / max(inside.sum(), 1)),
    }
    measures["problems"] = remarks(source, measures)
    return np.clip(volume, 0, 1).astype(np.float32, copy=False), measures


def _checked_brain(source: NiftiVolume, grid: Grid, recipe: Recipe) -> tuple[np.ndarray, float]:
    """The brain's voxels as a boolean `[D,H,W]`, and the share of them outside the grid."""
    positive = source.data[source.data > 0]
    if positive.size == 0:
        raise MribenchError("a brain must have values above 0, but there are none. Make the background 0.")
    # Upstream spline interpolation leaves tiny positive ringing all over the background.
    brain = source.data > recipe.foreground * np.percentile(positive, 99.9)
    if len(np.unique(source.data[brain][:: max(1, int(brain.sum()) // 10_000)])) < _FEWEST_INTENSITIES:
        raise MribenchError("a T1 must have many intensities, but this looks like a mask or label map.")
    low, high = recipe.brain_cm3
    if not low <= (cm3 := _cm3(brain, source)) <= high:
        raise MribenchError(
            f"a stripped brain must have {low:g} to {high:g} cm3 above a background of 0, but this has "
            f"{cm3:.0f}. Strip the skull first and set the background to 0."
        )
    outside = _outside_fraction(source, brain, grid)
    if outside > recipe.max_outside_fov:
        raise MribenchError(
            f"at most {recipe.max_outside_fov:.0%} of the brain may lie outside the field of view, but "
            f"{outside:.0%} does. Register the scan to MNI152 first."
        )
    return brain, outside


def _cm3(mask: np.ndarray, source: NiftiVolume) -> float:
    return float(mask.sum() * abs(np.linalg.det(source.affine[:3, :3])) / 1000)


def _outside_fraction(source: NiftiVolume, mask: np.ndarray, grid: Grid) -> float:
    to_grid = np.linalg.inv(grid.affine) @ source.affine
    indices = np.argwhere(mask)[:, ::-1] @ to_grid[:3, :3].T + to_grid[:3, 3]
    inside = ((indices >= -0.5) & (indices <= grid.size - 0.5)).all(axis=1)
    return float(1 - inside.mean())


def _interpolate(source: NiftiVolume, grid: Grid, presmoothing: float) -> np.ndarray:
    to_source = np.linalg.inv(source.affine) @ grid.affine
    matrix, offset = to_source[:3, :3][::-1, ::-1], to_source[:3, 3][::-1]  # (x, y, z) -> [D,H,W]
    steps = np.linalg.norm(matrix, axis=1)
    data = np.maximum(source.data, 0)
    if presmoothing > 0 and (steps > 1).any():
        data = gaussian_filter(data, presmoothing * np.maximum(steps - 1, 0), mode="constant")
    # grid-constant, because plain constant drops a border plane when a coordinate rounds to -1e-16.
    return affine_transform(data, matrix, offset, grid.shape, order=1, mode="grid-constant")


def _template_correlation(source: NiftiVolume) -> float:
    """Pearson correlation with the MNI152 T1 inside its brain, on 32^3 voxels: a check of registration."""
    template, brain = _template()
    values = _coarse(source)[brain]
    return float(np.corrcoef(values, template[brain])[0, 1]) if values.std() > 0 else 0.0


@lru_cache(maxsize=1)
def _template() -> tuple[np.ndarray, np.ndarray]:
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=2)
    data = np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32).T)
    template = _coarse(NiftiVolume(data, image.affine, (2.0, 2.0, 2.0), oblique=False))
    return template, template > 0.05 * template.max()


def _coarse(source: NiftiVolume) -> np.ndarray:
    return _interpolate(source, paper_grid(32), Recipe().presmoothing)


def remarks(source: NiftiVolume, measures: Mapping[str, Any]) -> tuple[str, ...]:
    """What the user should look at, though the scan is used."""
    alike, negative = measures["template_correlation"], measures["negative_fraction"]
    clipped = measures["clipped_fraction"]
    found = {
        f"correlates with the MNI152 T1 by only {alike:.2f}": alike < _LOW_CORRELATION,
        f"{negative:.1%} of the voxels were negative and became 0": negative > _MANY_NEGATIVE,
        f"{clipped:.1%} of the brain was clipped to 1": clipped > _MANY_CLIPPED,
    }
    return tuple(text for text, holds in {source.remark: bool(source.remark), **found}.items() if holds)


def split_subjects(
    subjects: Sequence[tuple[str, str]], counts: Mapping[str, int | None], seed: int
) -> dict[str, str]:
    """Give each role `counts[role]` of the (subject, source) pairs; None, for one role, means all the rest.

    Every role gets each source's share to within about one subject. The result depends on the pairs and the
    seed, not on their order; subjects that no role needs are absent. Raises UsageError for too few subjects.
    """
    _check_counts([subject for subject, _ in subjects], counts)
    ordered = _interleaved(subjects, seed)
    spare = len(ordered) - sum(count or 0 for count in counts.values())
    sizes = [spare if count is None else count for count in counts.values()]
    roles = [role for role, size in zip(counts, sizes, strict=True) for _ in range(size)]
    return dict(zip(ordered, roles, strict=False))


def reference_subset(subjects: Sequence[tuple[str, str]], count: int, seed: int) -> list[str]:
    """`count` of the (subject, source) pairs, seeded and stratified: a reference drawn from train.

    Raises UsageError when there are fewer.
    """
    return sorted(split_subjects(subjects, {"reference": count}, derive(seed, "reference of train")))


def _check_counts(names: Sequence[str], counts: Mapping[str, int | None]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"Every subject must be given once, but {', '.join(repeated[:10])} repeat.")
    needed = sum(count or 0 for count in counts.values()) + sum(count is None for count in counts.values())
    if len(names) < needed:
        wanted = ", ".join(f"{role} {'all' if n is None else n}" for role, n in counts.items())
        raise UsageError(
            f"The roles need {needed} subjects ({wanted}), but {len(names)} are usable. "
            "Add subjects or choose a protocol with smaller counts."
        )


def _interleaved(subjects: Sequence[tuple[str, str]], seed: int) -> list[str]:
    """Subjects in an order in which every stretch holds each source nearly in proportion."""
    places: list[tuple[float, str]] = []
    for source in sorted({source for _, source in subjects}):
        random = np.random.default_rng(derive(seed, "split", source))
        names = random.permutation(sorted(name for name, of in subjects if of == source))
        start = random.random()
        places += [((k + start) / len(names), str(name)) for k, name in enumerate(names)]
    return [name for _, name in sorted(places)]
