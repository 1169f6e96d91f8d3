"""3D-alpha-WGAN: two steps recomputed with plain autograd, the code critic's two forms, presets, an overfit."""

from __future__ import annotations

import copy

import pytest
import torch

from mribench.models.alpha_wgan import AlphaWGAN
from mribench.runtime import seed_everything

NARROW = {"size": 16, "channels": (8, 16), "latent": 12, "code_width": 16, "batch_size": 3}
SOFT = 1e-2  # Adam's eps here; at 1e-8 the scale of a loss would hardly show in its steps
PUBLISHED = {"live_code_term": False, "steps_per_gradient": 2}


def build(**overrides):
    seed_everything(0)
    return AlphaWGAN(AlphaWGAN.build_config("small", **{**NARROW, **overrides}))


def volumes(*batch):
    return torch.rand(*batch, 1, 16, 16, 16) * 2 - 1


def agree(mine, theirs):
    """Every parameter the same within rounding."""
    for (name, parameter), expected in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-8, msg=name)


def penalty(critic, real, fake):
    share = torch.rand(len(real), *[1] * (real.dim() - 1))
    x = (share * real + (1 - share) * fake).detach().requires_grad_()
    slope = torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]
    return (((slope**2 + 1e-15).flatten(1).sum(1)).sqrt() - 1).square().mean()


class Reference:
    """The recipe of the fact sheet, section 4; `published` with the double step and C's dead term."""

    def __init__(self, model, rate, published, l1_weight, penalty_weight):
        self.nets = {name: copy.deepcopy(model.get_submodule(name)) for name in "GEDC"}
        self.adam = {n: torch.optim.Adam(net.parameters(), rate, eps=SOFT) for n, net in self.nets.items()}
        self.published, self.l1_weight, self.penalty_weight = published, l1_weight, penalty_weight

    def step(self, name, gradients):
        for parameter, gradient in zip(self.nets[name].parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        self.adam[name].step()

    def train(self, x, x_d):
        G, E, D, C = self.nets.values()
        code = E(x)
        rebuilt, made = G(code), G(torch.randn(len(x), 12))
        l1 = (rebuilt - x).abs().mean()
        loss = self.l1_weight * l1 - D(rebuilt).mean() - D(made).mean() - C(code).mean()
        for_e, for_g = (torch.autograd.grad(loss, [*net.parameters()], retain_graph=True) for net in (E, G))
        self.step("E", for_e)
        for _ in range(2 if self.published else 1):
            self.step("G", for_g)

        code = E(x_d).detach()
        rebuilt, made = G(code).detach(), G(torch.randn(len(x_d), 12)).detach()
        loss_d = -2 * D(x_d).mean() + D(rebuilt).mean() + D(made).mean()
        loss_d = loss_d + self.penalty_weight * (penalty(D, x_d, made) + penalty(D, x_d, rebuilt))
        self.step("D", torch.autograd.grad(loss_d, [*D.parameters()]))

        prior = torch.randn(len(x_d), 12)
        loss_c = -C(prior).mean() + self.penalty_weight * penalty(C, code, prior)
        if not self.published:
            loss_c = loss_c + C(code).mean()
        self.step("C", torch.autograd.grad(loss_c, [*C.parameters()]))
        return {"l1": l1, "D": loss_d}


@pytest.mark.parametrize("weights", [{}, {"l1_weight": 300.0, "penalty_weight": 3.0}])
@pytest.mark.parametrize("published", [False, True])
@pytest.mark.usefixtures("exact")
def test_training_follows_the_recipe(published, weights):
    model = build(learning_rate=1e-2, **weights, **(PUBLISHED if published else {}))
    reference = Reference(
        model, 1e-2, published, weights.get("l1_weight", 10), weights.get("penalty_weight", 10)
    )
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["eps"] = SOFT
    for number, pair in enumerate(volumes(2, 2, 3)):
        torch.manual_seed(number)
        losses = model.training_step(iter(pair).__next__)
        torch.manual_seed(number)
        for name, value in reference.train(*pair).items():
            assert losses[name].item() == pytest.approx(value.item(), rel=1e-6)
    for name, net in reference.nets.items():
        agree(model.get_submodule(name), net)


def test_code_critic_learns_from_encoded_codes_only_when_the_term_is_live():
    """Live, the two means cancel in C's last bias; dead, only -mean C(prior) is left there."""
    for live, expected in ((True, 0), (False, -1)):
        model = build(live_code_term=live, penalty_weight=0)
        model.training_step(lambda: volumes(3))
        assert model.C.layers[-1].bias.grad.item() == pytest.approx(expected, abs=1e-6)
        assert all(p.grad.abs().max() > 0 for p in [model.C.layers[-1].weight, model.C.layers[0].weight])


def test_the_generator_steps_as_often_as_told_and_the_encoder_once():
    for times in (1, 2):
        model = build(steps_per_gradient=times)
        model.training_step(lambda: volumes(3))
        taken = {name: int(o.state_dict()["state"][0]["step"]) for name, o in model.optimizers.items()}
        assert taken == {"G": times, "E": 1, "D": 1, "C": 1}


@pytest.mark.parametrize("preset", ["small", "compat", "paper", "paper-native"])
def test_presets_hold_the_published_numbers(preset):
    config = AlphaWGAN.build_config(preset)
    assert (config.latent, config.code_width, config.batch_size) == (1000, 4096, 4)
    assert (config.l1_weight, config.penalty_weight) == (10, 10)
    assert (config.learning_rate, config.beta1, config.beta2) == (2e-4, 0.9, 0.999)
    assert config.critic_norm == "batch" and config.critic_learning_rate in (None, 2e-4)
    assert config.budget == 12_000 * 2 * 4
    assert (config.live_code_term, config.steps_per_gradient) == (
        (False, 2) if preset == "compat" else (True, 1)
    )
    assert AlphaWGAN.build_config("compat").size == 64


def test_one_volume_is_learned():
    model = build(learning_rate=2e-3, batch_size=2)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 3, indexing="ij"))
    volume = (1.6 * (grid.norm(dim=0) < 0.7) - 1).expand(2, 1, 16, 16, 16)
    errors = [model.training_step(lambda: volume)["l1"].item() for _ in range(30)]
    assert errors[-1] < 0.4 * errors[0]
