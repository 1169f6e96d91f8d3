"""The recipe of an adoption: every choice that turns a stored volume into a sample, besides the grid. Loads nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mribench.data.prepare.recipe import Registration
from mribench.errors import MribenchError, UsageError
from mribench.files import first_error

ToGrid = Literal["resample", "pad", "register"]
Form = Literal["nifti", "array"]
_SIDES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}  # letter -> axis of the world
_COUNTS = {"spacing": 3, "fov": 3, "matrix": 16}
_ONE_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")
_Matrix = tuple[tuple[float, float, float, float], ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Recipe(_Part):
    """How stored volumes become samples: axes, affine, channel, intensities, grid.

    `axes` names the axes of the stored array in their order, by the side that each runs to (R L A P S I), N for
    volumes, C for channels, _ for an axis of length 1; "" leaves them to the file. `affine` with its `numbers`: that
    of the file ("header"), or an array centred on the bench's field of view with that voxel size or that field of view
    (mm: left-right, front-back, up-down), or one that spans it ("bench"), or a 4 x 4 matrix of the stored indices.
    `rescale` maps two intensities to 0 and 1; "p99.5" is that percentile of each volume.
    """

    name: Literal["adopt-1"] = "adopt-1"
    preset: str = ""
    axes: str = ""
    affine: Literal["header", "bench", "spacing", "fov", "matrix"] = "header"
    numbers: tuple[float, ...] = ()
    channel: Annotated[int, Field(ge=0)] | None = None
    rescale: tuple[float | str, float | str] | None = None
    to_grid: ToGrid = "resample"
    interpolation: Literal["linear"] = "linear"
    presmoothing: Annotated[float, Field(ge=0)] = 0.6  # SD against aliasing, per (step - 1) source voxels
    registration: Registration | None = None

    @field_validator("axes")
    @classmethod
    def _check_axes(cls, axes: str) -> str:
        letters = axes.upper()
        sides = [_SIDES[letter] for letter in letters if letter in _SIDES]
        others = [letter for letter in letters if letter not in _SIDES]
        known = all(letter in "NC_" for letter in others) and others.count("N") < 2 and others.count("C") < 2
        if letters and not (known and sorted(sides) == [0, 1, 2]):
            raise ValueError(
                "it must name each of left-right (R or L), front-back (A or P) and up-down (S or I) once, by the side "
                f"that the axis runs to, for example RAS or LPS; N, C and _ may stand for other axes. Not {axes!r}"
            )
        return letters

    @field_validator("rescale")
    @classmethod
    def _check_rescale(cls, bounds: tuple[float | str, float | str] | None) -> Any:
        return None if bounds is None else tuple(_bound(bound) for bound in bounds)

    @model_validator(mode="after")
    def _fit_together(self) -> Recipe:
        if self.rescale is not None:
            low, high = (_order(bound) for bound in self.rescale)
            if low[0] == high[0] and not low[1] < high[1]:
                raise ValueError(f"rescale must be LOW < HIGH, not {self.rescale[0]} {self.rescale[1]}")
        if len(self.numbers) != _COUNTS.get(self.affine, 0):
            raise ValueError(
                f"an affine of the kind {self.affine} takes {_COUNTS.get(self.affine, 0)} numbers"
            )
        if self.affine in ("spacing", "fov") and min(self.numbers) <= 0:
            raise ValueError("voxel sizes and fields of view must be above 0 mm")
        if (self.registration is not None) != (self.to_grid == "register"):
            object.__setattr__(self, "registration", Registration() if self.to_grid == "register" else None)
        return self

    @property
    def sides(self) -> str:
        """The three letters of the axes in space, in the order of the stored array; "" where the file decides."""
        return "".join(letter for letter in self.axes if letter in _SIDES)

    def __str__(self) -> str:
        """One line, for example "axes LPS, voxels of 2 x 2 x 2 mm, intensities -1 to 1, resampled"."""
        size = " x ".join(f"{number:g}" for number in self.numbers)
        affine = {
            "header": "voxel sizes of the header" if self.axes else "affine of the header",
            "bench": "spans the bench's field of view",
            "spacing": f"voxels of {size} mm",
            "fov": f"a field of view of {size} mm",
            "matrix": "a given affine",
        }
        parts = [
            f"preset {self.preset}" if self.preset else "",
            f"axes {self.axes}" if self.axes else "",
            affine[self.affine],
            f"channel {self.channel}" if self.channel is not None else "",
            f"intensities {_text(self.rescale[0])} to {_text(self.rescale[1])}" if self.rescale else "",
            {"resample": "resampled", "pad": "cropped and padded", "register": "registered"}[self.to_grid],
        ]
        return ", ".join(part for part in parts if part)


class Passage(_Part):
    """How one volume came in: what its inverse needs. Affines map (W, H, D) indices in RAS+ order to world mm.

    `affine` is the file's or the assumed one, `placement` leads to the bench's world; `low` and `high` became 0 and 1,
    and `step` lies between two stored intensities (0: floating point). Proportions: `clipped` of the voxels lay well
    beyond `low` or `high`, `outside` of the brightness lay beyond the bench's field of view.
    """

    source: str
    shape: tuple[int, int, int]  # [D,H,W]
    affine: _Matrix
    placement: _Matrix
    low: float
    high: float
    step: Annotated[float, Field(ge=0)]
    clipped: float
    outside: float


class LeftOut(_Part):
    """A stored file that is not used, and why."""

    name: str
    reason: str


class Preset(_Part):
    """What one published code stores, and the settings of the recipe for its NIfTI files or arrays."""

    code: str
    source: str
    stores: str
    brains: str  # whether they are stripped, and in which space
    nifti: dict[str, Any] | None = None
    array: dict[str, Any] | None = None


def presets() -> dict[str, Preset]:
    """The presets by name."""
    text = (resources.files("mribench.data.foreign") / "presets.toml").read_text(encoding="utf-8")
    return {name: Preset.model_validate(fields) for name, fields in tomllib.loads(text).items()}


def make_recipe(preset: str | None, form: Form, settings: dict[str, Any]) -> Recipe:
    """The recipe of a preset, if any, for files of that form, with `settings` in the place of its own.

    Raises UsageError for settings that are wrong or contradict each other, and for a form that the code never stores.
    """
    fields: dict[str, Any] = {}
    if preset is not None:
        fields = _of_form(preset, form)
    if "affine" in settings:
        fields.pop("numbers", None)
    if settings.get("affine") == "matrix" and len(fields.get("axes", "")) == 3:
        fields.pop("axes")  # the matrix says it
    try:
        return Recipe.model_validate({**fields, **settings})
    except ValidationError as error:
        raise UsageError(f"The recipe must fit together, but {first_error(error)}.") from error


def _of_form(name: str, form: Form) -> dict[str, Any]:
    preset = presets()[name]
    fields = preset.nifti if form == "nifti" else preset.array
    if fields is None:
        stored = ".nii and .nii.gz" if form == "array" else ".npy and .npz"
        raise UsageError(
            f"The preset {name} is for {stored} files, as {preset.code} stores them. Give the axes, affine and "
            "intensities of yours with --orientation, --assume-affine and --rescale."
        )
    return {**fields, "preset": name}


def parse_affine(text: str) -> dict[str, Any]:
    """The settings that --assume-affine means: bench, a voxel size, fov:SIZE (both mm), 12 or 16 numbers, or a file.

    Raises UsageError for anything else.
    """
    if text == "bench":
        return {"affine": "bench", "numbers": ()}
    if Path(text).is_file():
        return {"affine": "matrix", "numbers": _affine_of_file(Path(text))}
    kind, _, rest = text.rpartition(":")
    parts = [part.strip() for part in rest.split(",")]
    if kind in ("", "fov") and all(re.fullmatch(_ONE_NUMBER, part) for part in parts):
        numbers = tuple(map(float, parts))
        if not kind and len(numbers) in (12, 16):
            return {"affine": "matrix", "numbers": (*numbers, 0.0, 0.0, 0.0, 1.0)[:16]}
        if len(numbers) in (1, 3):
            sizes = numbers * 3 if len(numbers) == 1 else numbers
            return {"affine": kind or "spacing", "numbers": sizes}
    raise UsageError(
        "--assume-affine takes bench, a voxel size in mm (2 or 0.8,1,1: left-right, front-back, up-down), a field of "
        f"view (fov:256), 12 or 16 numbers of a matrix, or a NIfTI file with the right affine, not {text!r}."
    )


def _affine_of_file(path: Path) -> tuple[float, ...]:
    from mribench.data.nifti import read_nifti_affine

    try:
        return tuple(float(number) for number in read_nifti_affine(path).ravel())
    except MribenchError as error:
        raise UsageError(f"--assume-affine: {error}") from error


def parse_rescale(bounds: Sequence[str]) -> tuple[float | str, float | str]:
    """The two values of --rescale; raises UsageError for what is neither a number nor a percentile such as p99.5."""
    try:
        low, high = (_bound(bound) for bound in bounds)
    except ValueError as error:
        raise UsageError(f"--rescale LOW HIGH: {error}.") from error
    return low, high


def _bound(bound: float | str) -> float | str:
    if isinstance(bound, str) and (found := _PERCENTILE.fullmatch(bound)):
        if float(found[1]) <= 100:
            return bound
    elif isinstance(bound, int | float) or re.fullmatch(_ONE_NUMBER, bound):
        return float(bound)
    raise ValueError(f"{bound!r} must be a number or a percentile from p0 to p100, such as p99.5")


def _order(bound: float | str) -> tuple[bool, float]:
    return (True, float(bound[1:])) if isinstance(bound, str) else (False, bound)


def _text(bound: float | str) -> str:
    return bound if isinstance(bound, str) else f"{bound:g}"
