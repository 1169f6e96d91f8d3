"""One contract for all generators."""

from __future__ import annotations

import pytest

from mribench.models import MODELS
from mribench.selftest import contract

GAN = {"size": 16, "channels": [8, 16], "latent": 12}
SMALLER = {
    "vae_gan": {**GAN, "hidden": 16},
    "gan_gp": GAN,
    "alpha_wgan": {**GAN, "code_width": 16},
    "cce_gan": GAN,
    "cdpm": {"size": 16, "base": 16, "multipliers": [1, 2], "tau_max": 6, "stage_slices": 3, "ddim_steps": 2},
    "dpm3d": {"size": 16, "multipliers": [1, 2], "ema_start": 2, "ddim_steps": 2},
    "ha_gan": {"width": 4, "latent": 12, "train_encoders": True},
}


@pytest.mark.parametrize("name", MODELS)
def test_generator_keeps_the_contract(name):
    results = list(contract.run(name, **SMALLER[name]))
    assert len(results) == len(contract.GENERATOR_CHECKS)
    assert [problem for problem in results if problem[1]] == []


def test_a_generator_that_ignores_its_seed_breaks_the_contract(monkeypatch):
    from mribench.models.cdpm import CDPM
    from mribench.runtime import Noise

    sample = CDPM.sample
    monkeypatch.setattr(CDPM, "sample", lambda self, noise: sample(self, Noise([0] * len(noise))))
    problems = [title for title, problem in contract.run("cdpm", **SMALLER["cdpm"]) if problem]
    assert len(problems) == 1 and problems[0].startswith("samples are")
