"""The candidates of benchmarks/learning.py: changes to `tiny`."""

from __future__ import annotations

from typing import Any

DECAY: dict[str, Any] = {"warmup": 40, "decay_from": 0.5}

RUNG_1 = {  # volumes seen in about a minute of one thread
    "gan_gp": 2400,
    "alpha_wgan": 1500,
    "vae_gan": 1600,
}
CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "gan_gp": {
        "as-it-is": {"critic_steps": 5},
        "decay": {**DECAY, "critic_steps": 5},
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
}
