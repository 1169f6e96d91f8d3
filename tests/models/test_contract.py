"""One contract for all generators."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from mribench.models import MODELS, get_model
from mribench.models.cdpm import CDPM
from mribench.models.gan_gp import GANGP
from mribench.models.generator import Generator, GeneratorConfig
from mribench.runtime import Noise
from mribench.selftest import contract


class DrawsNoise(Generator):
    """Trains a layer that no sample depends on: every sample is uniform noise."""

    title, summary, source = "Noise", "uniform noise", "none"
    Config, needs = GeneratorConfig, ("net",)
    PRESETS: ClassVar = {"tiny": {"size": 32, "batch_size": 2, "budget": 4}}
    SMALLEST: ClassVar = {"size": 16}

    def __init__(self, config):
        super().__init__(config)
        self.net = nn.Linear(1, 2)
        self.optimizers = {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}

    def training_step(self, next_batch):
        loss = self.net(next_batch().mean().reshape(1, 1)).square().sum()
        self.descend(loss, "net")
        return {"loss": loss.detach()}

    def sample(self, noise):
        return 2 * noise.uniform(1, *[self.config.size] * 3) - 1


def breaches(name):
    return [result for result in contract.run(name, **get_model(name).SMALLEST) if result[1]]


@pytest.mark.parametrize("name", MODELS)
def test_generator_keeps_the_contract(name):
    results = list(contract.run(name, **get_model(name).SMALLEST))
    assert len(results) == len(contract.GENERATOR_CHECKS)
    assert [problem for problem in results if problem[1]] == []


def test_a_generator_that_ignores_its_seed_breaks_the_contract(monkeypatch):
    sample = GANGP.sample
    monkeypatch.setattr(GANGP, "sample", lambda self, noise: sample(self, Noise([0] * len(noise))))
    ((title, _),) = breaches("gan_gp")
    assert title.startswith("samples are")


def test_a_generator_of_noise_breaks_the_contract_and_hears_why(monkeypatch):
    monkeypatch.setitem(MODELS, "noise_model", f"{__name__}:DrawsNoise")
    ((title, problem),) = breaches("noise_model")
    assert title.startswith("a short training") and "nearer to the training volumes than noise" in title
    assert "must be below 0.9 times that of uniform noise" in problem


def test_a_generator_that_training_does_not_improve_breaks_the_contract(monkeypatch):
    monkeypatch.setitem(MODELS, "noise_model", f"{__name__}:DrawsNoise")
    grey = lambda self, noise: 0.1 * noise.uniform(1, *[16] * 3) - 0.5  # noqa: E731
    monkeypatch.setattr(DrawsNoise, "sample", grey)
    ((title, problem),) = breaches("noise_model")
    assert title.startswith("a short training") and "before the training" in problem


def test_a_class_without_a_summary_breaks_the_contract(monkeypatch):
    monkeypatch.setattr(CDPM, "summary", "")
    with pytest.raises(AssertionError, match="CDPM must define summary"):
        contract.GENERATOR_CHECKS[0]("cdpm", {})


def test_energy_distance_is_that_of_two_points_and_zero_between_equal_laws():
    a, b = torch.zeros(4, 1, 2, 2, 2), torch.ones(3, 1, 2, 2, 2)
    assert contract.energy_distance(a, b) == pytest.approx(2.0)  # 2 |0 - 1| per root voxel, no spread within
    draws = torch.randn(400, 1, 2, 2, 2)
    assert abs(contract.energy_distance(draws[:200], draws[200:])) < 0.02


def test_cards_name_title_summary_and_source():
    assert CDPM.card() == f"cDPM: {CDPM.summary} (Peng et al. 2023)."
