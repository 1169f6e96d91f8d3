"""The generators: name -> "module:Class". Nothing is imported until a model is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from mribench.errors import UsageError

if TYPE_CHECKING:
    from mribench.models.generator import Generator

MODELS = {  # in the order of the cDPM paper's Table 1
    "vae_gan": "mribench.models.vae_gan:VAEGAN",
    "gan_gp": "mribench.models.gan_gp:GANGP",
    "alpha_wgan": "mribench.models.alpha_wgan:AlphaWGAN",
    "cce_gan": "mribench.models.cce_gan:CCEGAN",
    "ha_gan": "mribench.models.ha_gan:HAGAN",
    "dpm3d": "mribench.models.dpm3d:DPM3D",
    "cdpm": "mribench.models.cdpm:CDPM",
}


def get_model(name: str) -> type[Generator]:
    """The generator class of that name; raises UsageError with the nearest name for an unknown one."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"Model must be one of {', '.join(sorted(MODELS))}, not {name!r}.{hint}")
    module, _, attribute = MODELS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
