"""The quality-control page of a cohort of raw scans: one file, no script, three views of every scan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

import numpy as np
from markupsafe import escape
from scipy.ndimage import affine_transform, binary_erosion

from mribench.data.cohort import Cohort, read_voxels
from mribench.data.grid import Grid, dequantise, index_map
from mribench.data.prepare.quality import template
from mribench.data.records import RawRecord
from mribench.errors import MribenchError
from mribench.files import write_sums, write_text
from mribench.reports.page import templating
from mribench.reports.page.figures import Picture, central_pictures

PAGE = "quality.html"
_PIXELS = 104  # along the longest side: a page of 1,262 scans stays near 50 MB

# (what, of the record, format)
_MEASURES = (
    ("brain Dice to MNI152", "dice", "{:.3f}"),
    ("correlation with MNI152", "template_correlation", "{:.2f}"),
    ("brain, cm³", "brain_cm3", "{:.0f}"),
    ("determinant of the affine", "determinant", "{:.2f}"),
    ("brain on a face of the scan, cm²", "border_cm2", "{:.1f}"),
    ("clipped", "clipped_fraction", "{:.2%}"),
    ("saturated in the scan", "saturated_fraction", "{:.2%}"),
    ("outside the field of view", "outside_fov_fraction", "{:.1%}"),
    ("noise SD", "noise_sd", "{:.3g}"),
    ("bias, 99th over 1st percentile", "bias_range", "{:.2f}"),
)


class _Verdict(Enum):
    """In the order of the page."""

    out = "left out"
    look = "used, but to be looked at"
    used = "used"


@dataclass(frozen=True)
class _Scan:
    """One scan on the page; `picture_problem` says why it has no pictures."""

    name: str
    subject: str
    verdict: _Verdict
    reasons: tuple[str, ...]
    measures: tuple[tuple[str, str], ...] = ()
    stages: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    picture_problem: str = ""
    dice: float = 0.0


def quality_page(cohort: Cohort, *, new: bool) -> Path:
    """The page's path beside volumes.json; it is written if it is missing or `new`."""
    path = cohort.folder / PAGE
    if new or not path.exists():
        write_text(path, _render(cohort))
        write_sums(cohort.folder, [PAGE])
    return path


def _render(cohort: Cohort) -> str:
    """Scans left out first, then those to be looked at, then the rest; by Dice within, the lowest first."""
    verdicts = list(_Verdict)
    scans = sorted(_scans(cohort), key=lambda scan: (verdicts.index(scan.verdict), scan.dice))
    recipe = {key: value for key, value in cohort.record.recipe.items() if key != "versions"}
    return templating.page(
        "quality.html.j2",
        title="Quality of the prepared scans",
        style=templating.style_sheet("quality.css.j2", cohort.grid),
        scans=scans,
        counts={verdict.value: sum(scan.verdict == verdict for scan in scans) for verdict in verdicts},
        recipe=escape(json.dumps(recipe, indent=1)),
        digest=cohort.record.recipe_digest,
        versions=cohort.record.recipe.get("versions", {}),
    )


def _scans(cohort: Cohort) -> list[_Scan]:
    scans = [
        _scan(cohort, volume.record, roles=volume.roles)
        for volume in cohort.record.volumes
        if isinstance(volume.record, RawRecord)
    ]
    for refused in cohort.record.problems:
        reasons = (refused.reason,)
        if isinstance(refused.record, RawRecord):
            scans.append(_scan(cohort, refused.record, reasons))
        else:
            absent = "no volume was made"
            scans.append(_Scan(refused.name, "", _Verdict.out, reasons, picture_problem=absent))
    return scans


def _scan(
    cohort: Cohort, record: RawRecord, reasons: tuple[str, ...] = (), roles: tuple[str, ...] = ()
) -> _Scan:
    pictures: tuple[Picture, ...] = ()
    problem = ""
    try:
        voxels = read_voxels(cohort.folder, record.id)
        pictures = _pictures(dequantise(voxels), cohort.grid, record.subject)
    except MribenchError as error:
        problem = f"the volume cannot be read: {error}".replace(str(cohort.folder), cohort.folder.name)
    return _Scan(
        name=record.name,
        subject=record.subject,
        verdict=_Verdict.out if reasons else _Verdict.look if record.problems else _Verdict.used,
        reasons=reasons or record.problems,
        measures=tuple((what, form.format(getattr(record, key))) for what, key, form in _MEASURES),
        stages=record.stages,
        roles=roles,
        pictures=pictures,
        picture_problem=problem,
        dice=record.dice,
    )


def _pictures(volume: np.ndarray, grid: Grid, subject: str) -> tuple[Picture, ...]:
    """Three central slices, the template's outline dotted over them."""
    drawn = np.where(_template_outline(grid), np.float32(1), volume)
    pixel_mm = grid.longest_mm / _PIXELS
    return central_pictures(drawn, grid, None, pixel_mm, subject)


@lru_cache(maxsize=1)
def _template_outline(grid: Grid) -> np.ndarray:
    """Every other voxel `[D,H,W]` of the surface of the MNI152 brain on this grid."""
    mni = template()
    matrix, offset = index_map(mni.affine, grid.affine)
    brain = affine_transform((mni.data > 0).astype(np.float32), matrix, offset, grid.shape, order=1) > 0.5
    dotted = np.indices(grid.shape).sum(axis=0) % 2 == 0
    return np.asarray(brain & ~binary_erosion(brain, border_value=1) & dotted)
