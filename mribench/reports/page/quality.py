"""The quality-control page of a cohort of raw scans: one file, no script, three views of every scan."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from scipy.ndimage import affine_transform, binary_erosion

from mribench import __version__
from mribench.data.cohort import Cohort, read_voxels
from mribench.data.grid import Grid, dequantise, index_map
from mribench.data.prepare.quality import template
from mribench.data.records import RawRecord
from mribench.errors import MribenchError
from mribench.files import write_text
from mribench.reports.page.figures import Picture, central_pictures

PAGE = "quality.html"
PIXELS = 104  # along the longest side: a page of 1,262 scans stays near 50 MB

# (what, of the record, format)
MEASURES = (
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


@dataclass(frozen=True)
class Checked:
    """One scan on the page. `verdict`: "kept out", "look" or "used"; `picture_problem` if it has no pictures."""

    name: str
    subject: str
    verdict: str
    reasons: tuple[str, ...]
    measures: tuple[tuple[str, str], ...] = ()
    stages: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    picture_problem: str = ""
    dice: float = 0.0


def quality_page(cohort: Cohort, *, anew: bool) -> Path:
    """The page's path beside volumes.json; it is written if it is missing or `anew`."""
    path = cohort.folder / PAGE
    if anew or not path.exists():
        write_text(path, render(cohort))
    return path


def render(cohort: Cohort) -> str:
    """The page as text: kept out first, then what should be looked at, then by Dice, the lowest first."""
    scans = sorted(_checked(cohort), key=lambda s: (("kept out", "look", "used").index(s.verdict), s.dice))
    recipe = {key: value for key, value in cohort.record.recipe.items() if key != "versions"}
    x, y, _ = cohort.grid.spacing_mm
    environment = Environment(
        loader=PackageLoader("mribench.reports.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("quality.css.j2").render(widths=f"{x:g}fr {x:g}fr {y:g}fr")
    return environment.get_template("quality.html.j2").render(
        style=Markup(style),
        style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        version=__version__,
        scans=scans,
        counts={
            verdict: sum(s.verdict == verdict for s in scans) for verdict in ("kept out", "look", "used")
        },
        recipe=json.dumps(recipe, indent=1),
        digest=cohort.record.recipe_digest,
        quality=recipe.get("quality", {}),
        versions=cohort.record.recipe.get("versions", {}),
    )


def _checked(cohort: Cohort) -> list[Checked]:
    scans = [
        _scan(cohort, volume.record, (), volume.roles)
        for volume in cohort.record.volumes
        if isinstance(volume.record, RawRecord)
    ]
    for refused in cohort.record.problems:
        if isinstance(refused.record, RawRecord):
            scans.append(_scan(cohort, refused.record, (refused.reason,), ()))
        else:
            missing = "no volume was made"
            scans.append(Checked(refused.name, "", "kept out", (refused.reason,), picture_problem=missing))
    return scans


def _scan(cohort: Cohort, record: RawRecord, reasons: tuple[str, ...], roles: tuple[str, ...]) -> Checked:
    pictures: tuple[Picture, ...] = ()
    problem = ""
    try:
        voxels = read_voxels(cohort.folder, record.id)
        pictures = _pictures(dequantise(voxels), cohort.grid, record.subject)
    except MribenchError as error:
        problem = f"the volume cannot be read: {error}".replace(str(cohort.folder), cohort.folder.name)
    return Checked(
        name=record.name,
        subject=record.subject,
        verdict="kept out" if reasons else "look" if record.problems else "used",
        reasons=reasons or record.problems,
        measures=tuple((what, form.format(getattr(record, key))) for what, key, form in MEASURES),
        stages=record.stages,
        roles=roles,
        pictures=pictures,
        picture_problem=problem,
        dice=record.dice,
    )


def _pictures(volume: np.ndarray, grid: Grid, subject: str) -> tuple[Picture, ...]:
    """Three central slices, the template's outline dotted over them."""
    drawn = np.where(template_outline(grid), np.float32(1), volume)
    pixel_mm = max(grid.spacing_mm) * grid.size / PIXELS
    return central_pictures(drawn, grid, None, pixel_mm, subject)


@lru_cache(maxsize=1)
def template_outline(grid: Grid) -> np.ndarray:
    """Every other voxel `[D,H,W]` of the surface of the MNI152 brain on this grid."""
    mni = template()
    matrix, offset = index_map(mni.affine, grid.affine)
    brain = affine_transform((mni.data > 0).astype(np.float32), matrix, offset, grid.shape, order=1) > 0.5
    dotted = np.indices(grid.shape).sum(axis=0) % 2 == 0
    return np.asarray(brain & ~binary_erosion(brain, border_value=1) & dotted)
