"""The settings of a training: of a preset, the protocol and the caller, checked against the protocol's volumes."""

from __future__ import annotations

from typing import Any

from mribench.bench.folder import Bench
from mribench.data.grid import Box
from mribench.errors import UsageError
from mribench.models import get_model
from mribench.models.generator import GeneratorConfig


def resolve_settings(
    bench: Bench, model: str, preset: str | None, overrides: dict[str, Any]
) -> tuple[str, GeneratorConfig]:
    """The preset and all settings of a training; a protocol whose volumes are no cubes gives the model their shape.

    Raises UsageError for an unknown model or setting and for volumes of another size than the protocol's.
    """
    kind, asked = get_model(model), bench.protocol.cohort
    defaults = bench.protocol.training_for(model)
    if not asked.is_cube:
        defaults = {"shape": asked.sides, **defaults}
    chosen = preset or defaults.get("preset", "tiny")
    defaults.pop("preset", None)
    config = kind.build_config(chosen, **{**defaults, **overrides})
    if config.sides == asked.sides:
        return chosen, config
    fitting = [p for p, values in kind.PRESETS.items() if asked.is_cube and values.get("size") == asked.size]
    raise UsageError(
        f"{kind.title} must make volumes of {_said(asked)}, as protocol {bench.protocol.name} asks, but preset "
        f"{chosen} makes {_said(config)}. Presets of that size: {', '.join(fitting) or 'none'}."
    )


def _said(box: Box) -> str:
    return f"{box.size} voxels a side" if box.is_cube else f"{' x '.join(map(str, box.sides))} voxels"
