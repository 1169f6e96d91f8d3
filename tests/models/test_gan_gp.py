"""3D-GAN-GP: standard and published recipe recomputed with plain autograd, the numbers of the presets."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mribench.models.gan_gp import GANGP
from mribench.runtime import seed_everything

NARROW = {"size": 16, "channels": (8, 16), "latent": 12, "batch_size": 3, "learning_rate": 1e-2}
SOFT = 1e-2  # Adam's eps here; at 1e-8 the scale of a loss would hardly show in its steps


def build(preset="small", **overrides):
    seed_everything(0)
    return GANGP(GANGP.build_config(preset, **{**NARROW, **overrides}))


def agree(mine, theirs):
    """Every parameter the same, but for what 1e-15 under the root of the norm does."""
    for (name, parameter), expected in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-6, msg=name)


def step(optimizer, loss):
    """One step of its parameters down `loss`, without touching any other gradient."""
    parameters = optimizer.param_groups[0]["params"]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


class Reference:
    """The recipes of the fact sheet, section 3."""

    def __init__(self, model, compat, weight):
        self.G, self.D = copy.deepcopy(model.G), copy.deepcopy(model.D)
        betas = (0.9, 0.999) if compat else (0.0, 0.9)
        self.adam = {
            name: torch.optim.Adam(net.parameters(), 1e-2, betas, eps=SOFT)
            for name, net in (("G", self.G), ("D", self.D))
        }
        self.compat, self.weight, self.turns = compat, weight, (1, 5) if compat else (5, 1)

    def scores(self, x):
        """All outputs of the critic, before any mean."""
        padding = {"stride": 2, "padding": 1} if self.compat else {}
        return F.conv3d(self.D.trunk(x), self.D.head.weight, self.D.head.bias, **padding)

    def penalty(self, real, fake):
        share = torch.rand(len(real), 1, 1, 1, 1)
        x = (share * real + (1 - share) * fake).detach().requires_grad_()
        slope = torch.autograd.grad(self.scores(x).sum(), x, create_graph=True)[0]
        norm = slope.norm(dim=1) if self.compat else slope.flatten(1).norm(dim=1)
        return ((norm - 1) ** 2).mean()

    def train(self, batches):
        for x in batches[: self.turns[0]]:
            made = self.G(torch.randn(len(x), 12)).detach()
            distance = self.scores(made).mean() - self.scores(x).mean()
            penalty = self.penalty(x, made)
            step(self.adam["D"], distance + self.weight * penalty)
        for _ in range(self.turns[1]):
            loss = -self.scores(self.G(torch.randn(len(x), 12))).mean()
            step(self.adam["G"], loss)
        return {"distance": distance, "penalty": penalty, "G": loss}


@pytest.mark.parametrize("settings", [{}, {"penalty_weight": 3.0}])
@pytest.mark.parametrize("preset", ["small", "compat"])
@pytest.mark.usefixtures("exact")
def test_training_follows_the_recipe(preset, settings):
    model = build(preset, **settings)
    reference = Reference(model, preset == "compat", settings.get("penalty_weight", 10))
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["eps"] = SOFT
    batches = torch.rand(2, 5, 3, 1, 16, 16, 16) * 2 - 1
    for number, stream in enumerate(batches):
        torch.manual_seed(number)
        losses = model.training_step(iter(stream).__next__)
        torch.manual_seed(number)
        for name, value in reference.train(stream).items():
            assert losses[name].item() == pytest.approx(value.item(), rel=1e-6)
    agree(model.G, reference.G)
    agree(model.D, reference.D)


def test_kinds_of_penalty_and_critic_are_settings():
    losses = {}
    for penalty in ("sample", "voxel"):
        for patch in (False, True):
            model = build(penalty=penalty, patch=patch, critic_steps=1)
            torch.manual_seed(1)
            x = torch.rand(3, 1, 16, 16, 16) * 2 - 1
            losses[penalty, patch] = model.training_step(lambda x=x: x)["penalty"].item()
    assert len(set(losses.values())) == 4
    assert losses["voxel", False] > 0.9  # hardly any voxel has unit slope at the start


def test_standard_critic_judges_each_volume_alone():
    model, compat = build(), build("compat")
    x = torch.randn(3, 1, 16, 16, 16)
    torch.testing.assert_close(model.D(x)[:1], model.D(x[:1]))
    assert not torch.allclose(compat.D(x)[:1], compat.D(x[:1]), atol=1e-3)


@pytest.mark.parametrize("preset", ["small", "paper", "paper-native"])
def test_presets_are_the_standard_recipe(preset):
    config = GANGP.build_config(preset)
    assert (config.latent, config.batch_size) == (1000, 4)
    assert (config.critic_steps, config.generator_steps) == (5, 1)
    assert (config.penalty, config.penalty_weight, config.critic_norm) == ("sample", 10, "group")
    assert (config.learning_rate, config.beta1, config.beta2, config.patch) == (1e-4, 0, 0.9, False)
    assert config.budget == 12_000 * 5 * 4


def test_compat_is_the_public_notebook():
    config = GANGP.build_config("compat")
    assert (config.size, config.channels, config.latent, config.batch_size) == (
        64,
        (64, 128, 256, 512),
        1000,
        4,
    )
    assert (config.critic_steps, config.generator_steps) == (1, 5)
    assert (config.penalty, config.penalty_weight, config.critic_norm) == ("voxel", 10, "batch")
    assert (config.learning_rate, config.beta1, config.beta2, config.patch) == (2e-4, 0.9, 0.999, True)
    assert config.budget == 12_000 * 4
