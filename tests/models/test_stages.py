"""A model of two stages: which step is made, at which rate, and what a checkpoint and a raised budget keep."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from mribench.models import MODELS
from mribench.models.stages import TwoStageConfig, TwoStageGenerator
from mribench.selftest import contract


class Pair(TwoStageGenerator):
    """The mean of volumes, then a deviation around it."""

    title, summary, source = "Pair", "a mean, then a deviation", "none"
    Config, needs = TwoStageConfig, ("mean", "spread")
    PRESETS: ClassVar = {"tiny": {"size": 32, "batch_size": 2, "budget": 40, "first_share": 0.25}}
    SMALLEST: ClassVar = {"size": 8}

    def __init__(self, config):
        super().__init__(config)
        self.mean, self.spread = nn.Linear(1, 512), nn.Linear(1, 512)
        self.optimizers = {
            name: torch.optim.SGD(self.get_submodule(name).parameters(), lr=20.0) for name in self.needs
        }

    def _of(self, network, count):
        return network(torch.ones(count, 1)).reshape(count, 1, 8, 8, 8)

    def first_step(self, next_batch):
        x = next_batch()
        loss = (self._of(self.mean, len(x)) - x).square().mean()
        self.descend(loss, "mean")
        return {"mean": loss.detach()}

    def second_step(self, next_batch):
        x = next_batch()
        error = (self._of(self.mean, len(x)).detach() - x).abs()
        loss = (self._of(self.spread, len(x)) - error).square().mean()
        self.descend(loss, "spread")
        return {"spread": loss.detach()}

    @torch.no_grad()
    def sample(self, noise):
        count = len(noise)
        deviation = self._of(self.spread, count) * noise.normal(1, 8, 8, 8)
        return (self._of(self.mean, count) + 0.1 * deviation).clamp(-1, 1)


def pair(**settings):
    return Pair(Pair.build_config("tiny", size=8, **settings))


def rates(model):
    return {o.param_groups[0]["lr"] for o in model.optimizers.values()}


def test_the_contract_trains_every_stage(monkeypatch):
    monkeypatch.setitem(MODELS, "pair", f"{__name__}:Pair")
    assert [result for result in contract.run("pair", **Pair.SMALLEST) if result[1]] == []


def test_a_stage_that_is_never_trained_breaks_the_contract(monkeypatch):
    monkeypatch.setitem(MODELS, "pair", f"{__name__}:Pair")
    monkeypatch.setattr(Pair, "second_step", Pair.first_step)
    titles = [title for title, problem in contract.run("pair", **Pair.SMALLEST) if problem]
    assert any(title.startswith("every parameter") for title in titles)


def test_the_second_stage_begins_at_its_share_of_the_budget():
    model = pair()
    stages = []
    for step in range(8):
        model.begin_step(step, 2 * step)
        stages.append(model.stage)
    assert stages == [0] * 5 + [1] * 3  # a quarter of 40 volumes, two a step


def test_warm_up_and_decay_happen_in_each_stage():
    model = pair(warmup=1, decay_from=0.5, decay_to=0.5)
    shares = []
    for step in range(20):
        model.begin_step(step, 2 * step)
        shares.append(rates(model).pop() / 20)
    assert shares[:5] == pytest.approx([0.5, 1, 1, 0.9, 0.7])
    assert shares[5:7] == pytest.approx([0.5, 1.0])
    assert shares[-1] == pytest.approx(
        1 - 0.5 * (28 / 30 - 0.5) / 0.5
    )  # 28 of this stage's 30 volumes were seen


def test_a_checkpoint_keeps_the_stage_also_where_the_budget_is_raised():
    model, again = pair(), pair(budget=400)  # whose first stage would last to 100 volumes
    model.begin_step(5, 10)
    again.load_state_dict(model.state_dict())
    again.begin_step(6, 12)
    assert again.stage == 1 and again.stage_share == pytest.approx(2 / 390)
