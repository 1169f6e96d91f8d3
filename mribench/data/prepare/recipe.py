"""Recipes: every choice that turns a stripped scan, or a raw one, into a volume, besides the grid."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mribench.errors import UsageError
from mribench.files import digest_json

BACKENDS = {"deepbet": "deepbet", "dipy": "dipy", "SimpleITK": "simpleitk"}  # module -> distribution
_Positive = Annotated[float, Field(gt=0)]
_Proportion = Annotated[float, Field(ge=0, le=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Recipe(_Settings):
    kind: ClassVar[str]  # names the scans in messages

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all settings."""
        return digest_json(self.model_dump(mode="json"))

    def recorded(self) -> dict[str, Any]:
        """What volumes.json says of the recipe."""
        return self.model_dump(mode="json")

    def voxels(self) -> dict[str, Any]:
        """What can move a voxel: all settings but the thresholds of quality, and the versions of the libraries."""
        return {key: value for key, value in self.recorded().items() if key != "quality"}


class StrippedRecipe(_Recipe):
    """Scans that are stripped and in MNI152: one interpolation, then intensities to [0,1]."""

    kind = "scans that were stripped and registered before (without --raw)"
    registered: ClassVar[bool] = True  # the scans must be in MNI152
    quality: ClassVar[None] = None

    name: Literal["prepare-1"] = "prepare-1"
    scan_of_subject: Literal["first session, first name"] = "first session, first name"
    interpolation: Literal["linear"] = "linear"
    # Sigma against aliasing, in source voxels: presmoothing * (step of the grid in source voxels - 1).
    presmoothing: Annotated[float, Field(ge=0)] = 0.6
    # Brain = above this proportion of the 99.9th percentile of the positive voxels.
    foreground: Annotated[float, Field(ge=0, lt=1)] = 0.01
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.5  # of the brain's voxels; becomes 1
    brain_cm3: tuple[float, float] = (800.0, 2500.0)  # outside: not stripped, or not a brain
    max_outside_fov: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the brain; more: not registered

    def voxels(self) -> dict[str, Any]:
        return {**super().voxels(), "versions": _versions("numpy", "scipy")}


class Masking(_Settings):
    """Where the brain is: the network deepbet (Fisch 2024) on the raw head, masks that were given, or the scan."""

    by: Literal["deepbet", "given mask", "values above 0"] = "deepbet"
    threshold: _Proportion = 0.5


class Denoising(_Settings):
    """Non-local means for Rician noise (Coupé 2008; dipy), its SD measured in the brain (Coupé 2010, Donoho)."""

    by: Literal["dipy nlmeans, Rician"] = "dipy nlmeans, Rician"
    noise: Literal["median of |Haar HHH| / 0.6745"] = "median of |Haar HHH| / 0.6745"
    patch_radius: int = 1  # voxels
    block_radius: int = 1


class BiasCorrection(_Settings):
    """N4 (Tustison 2010; SimpleITK) inside the mask, on voxels shrunk to about `shrink_mm`."""

    by: Literal["SimpleITK N4"] = "SimpleITK N4"
    shrink_mm: _Positive = 4.0
    iterations: tuple[int, ...] = (50, 50, 30, 20)


class Registration(_Settings):
    """Affine to the stripped MNI152: Mattes mutual information, moments start, seeded sampling (SimpleITK).

    Measured (benchmarks/raw.py): heads turned by up to 35 degrees end within 0.01 mm of the upright one, at 60 they
    are lost. With samples of the whole template instead of its brain's surroundings, poses of Colin27 ended 0.9 to
    1.6 mm apart; without the coarsest level 20 degrees were too many.
    """

    by: Literal["SimpleITK, 12 degrees of freedom"] = "SimpleITK, 12 degrees of freedom"
    template: Literal["MNI152 2009a symmetric, nilearn"] = "MNI152 2009a symmetric, nilearn"
    bins: int = 32
    seed: int = 1
    shrink: tuple[int, ...] = (8, 4, 2)
    smoothing_mm: tuple[float, ...] = (8.0, 4.0, 2.0)
    sampled: tuple[_Proportion, ...] = (0.5, 0.1, 0.1)  # proportion of the template's voxels per level
    around_brain_mm: int = 8  # only template voxels this near to its brain are sampled
    iterations: int = 200  # at most, per level
    first_step_mm: _Positive = 4.0
    last_step_mm: _Positive = 1e-3
    relaxation: _Proportion = 0.8  # of the step, when the gradient turns round


class Quality(_Settings):
    """What a scan must reach to be used. These are the settings that `--set` can change."""

    min_dice: _Proportion = 0.9
    min_correlation: Annotated[float, Field(ge=-1, le=1)] = 0.6
    brain_cm3: tuple[float, float] = (900.0, 2100.0)  # of the mask, before registration
    determinant: tuple[float, float] = (0.7, 2.5)  # of the affine to MNI152
    max_border_cm2: _Positive = 15.0  # brain cut by one face of the scan
    max_saturated: _Proportion = 0.02  # of the masked voxels as read, at the scan's largest value

    @field_validator("brain_cm3", "determinant")
    @classmethod
    def _in_order(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not limits[0] <= limits[1]:
            raise ValueError(f"[lowest, highest] must be in this order, not [{limits[0]:g}, {limits[1]:g}]")
        return limits


class RawRecipe(_Recipe):
    """The stages in order, with all their settings. `registration` None: the scans are in MNI152 already."""

    kind = "raw scans (prepare --raw)"

    name: Literal["raw-1"] = "raw-1"
    order: Literal["mask, denoise, N4, mask, affine, one interpolation, intensity"] = (
        "mask, denoise, N4, mask, affine, one interpolation, intensity"
    )
    masking: Masking = Masking()
    denoising: Denoising = Denoising()
    bias: BiasCorrection = BiasCorrection()
    registration: Registration | None = Registration()
    volume: StrippedRecipe = StrippedRecipe()
    quality: Quality = Quality()

    @property
    def registered(self) -> bool:
        """Whether the scans must be in MNI152."""
        return self.registration is None

    def recorded(self) -> dict[str, Any]:
        return {**super().recorded(), "versions": backend_versions()}


def raw_recipe(*, given_masks: bool, stripped: bool, registered: bool, quality: dict[str, Any]) -> RawRecipe:
    """The recipe that the command line's words mean.

    Raises UsageError for words that contradict or are unknown, and when a library that it needs is missing.
    """
    if given_masks and stripped:
        raise UsageError(
            "--mask goes with scans that have their skull; leave out --already-stripped or --mask."
        )
    by = "given mask" if given_masks else "values above 0" if stripped else "deepbet"
    registration = None if registered else Registration()
    try:
        recipe = RawRecipe.model_validate(
            {"masking": {"by": by}, "registration": registration, "quality": quality}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise UsageError(
            f"--set takes the thresholds {', '.join(Quality.model_fields)}, but {where}: {first['msg']}."
        ) from error
    needed = [name for name in BACKENDS if name != "deepbet" or by == "deepbet"]
    if missing := [name for name in needed if find_spec(name) is None]:
        raise UsageError(
            f"Raw scans need {', '.join(missing)}, not installed here. Run: pip install 'mribench[prepare]'"
        )
    return recipe


def backend_versions() -> dict[str, str]:
    """Versions of the libraries that are installed and can move a voxel."""
    names = [name for module, name in BACKENDS.items() if find_spec(module)]
    return _versions(*names, "torch", "numpy", "scipy", "nilearn")


def _versions(*names: str) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}
