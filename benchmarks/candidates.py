"""The candidates of benchmarks/learning.py: changes to `tiny`."""

from __future__ import annotations

from typing import Any

DECAY: dict[str, Any] = {"warmup": 40, "decay_from": 0.5}

FLOW: dict[str, Any] = {
    **DECAY,
    "prediction": "flow",
    "levels": "log_normal",
    "sampler": "dpmpp",
    "calls": 12,
    "windows": 0.5,
    "beta2": 0.99,
    "clip_norm": 1.0,
    "ema": 0.995,
}

RUNG_1 = {  # volumes seen in about a minute of one thread
    "gan_gp": 2400,
    "alpha_wgan": 1500,
    "vae_gan": 1600,
    "ha_gan": 1400,
    "cce_gan": 1400,
    "dpm3d": 600,
}
CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "gan_gp": {
        "as-it-is": {},
        "decay": DECAY,
        "decay-2-critic": {**DECAY, "critic_steps": 2},
    },
    "alpha_wgan": {
        "as-it-is": {},
        "decay": DECAY,
        "decay-l1-30": {**DECAY, "l1_weight": 30},
    },
    "vae_gan": {
        "as-it-is": {},
        "decay": DECAY,
        "decay-mse-30": {**DECAY, "encoder_mse_weight": 30},
    },
    "ha_gan": {
        "as-it-is": {},
        "decay": DECAY,
        "decay-half-rate": {**DECAY, "learning_rate": 4e-4, "discriminator_learning_rate": 1.6e-3},
    },
    "cce_gan": {
        "as-it-is": {},
        "decay": DECAY,
        "decay-half-rate": {**DECAY, "learning_rate": 5e-4},
    },
}
LATER: dict[int, dict[str, dict[str, dict[str, Any]]]] = {
    2: {"cdpm": {"flow-mixing": {**FLOW, "budget": 2000, "mixing_sizes": (32, 16)}}},
}
