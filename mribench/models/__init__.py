"""The generators by name. Nothing is imported until a model is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mribench.plugins import Registry

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

MODEL_REGISTRY: Registry[type[Generator]] = Registry(
    "generator", MODELS, "mribench.models.generator:Generator"
)
get_model = MODEL_REGISTRY.get
