"""3D-VAE-GAN: two steps recomputed with plain autograd, the divergence, the encoder, the numbers of the presets."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mribench.models.vae_gan import VAEGAN, divergence
from mribench.runtime import seed_everything

NARROW = {"size": 16, "channels": (8, 16), "latent": 12, "hidden": 16, "batch_size": 3}
SOFT = 1e-2  # Adam's eps here; at 1e-8 the scale of a loss would hardly show in its steps


def build(**overrides):
    seed_everything(0)
    return VAEGAN(VAEGAN.build_config("small", **{**NARROW, **overrides}))


def agree(mine, theirs):
    """Every parameter the same within rounding."""
    for (name, parameter), expected in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-8, msg=name)


def step(optimizer, loss):
    """One step of its parameters down `loss`, without touching any other gradient."""
    parameters = optimizer.param_groups[0]["params"]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def cross_entropy(logits, real):
    probability = torch.sigmoid(logits)
    return -torch.log(probability if real else 1 - probability).mean()


class Reference:
    """The recipe of the fact sheet, section 2, with the encoder's error through the updated generator."""

    def __init__(self, model, rate, generator_mse, encoder_mse):
        self.nets = {name: copy.deepcopy(model.get_submodule(name)) for name in "GED"}
        self.adam = {n: torch.optim.Adam(net.parameters(), rate, eps=SOFT) for n, net in self.nets.items()}
        self.weights = generator_mse, encoder_mse

    def train(self, x):
        G, E, D = self.nets.values()
        mean, log_variance = E(x)
        code = mean + torch.exp(log_variance / 2) * torch.randn(len(x), 12)
        rebuilt, made = G(code), G(torch.randn(len(x), 12))

        def game():
            return (
                cross_entropy(D(x), True) + cross_entropy(D(rebuilt), False) + cross_entropy(D(made), False)
            )

        loss_d = game()
        step(self.adam["D"], loss_d)
        step(self.adam["G"], self.weights[0] * ((rebuilt - x) ** 2).mean() - game())
        kl = -0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance)).sum() / (len(x) * 12)
        mse = ((G(code) - x) ** 2).mean()
        step(self.adam["E"], kl + self.weights[1] * mse)
        return {"D": loss_d, "mse": mse, "kl": kl}


@pytest.mark.parametrize("weights", [{}, {"generator_mse_weight": 3.0, "encoder_mse_weight": 300.0}])
@pytest.mark.usefixtures("exact")
def test_training_follows_the_recipe(weights):
    model = build(learning_rate=1e-2, **weights)
    reference = Reference(
        model, 1e-2, weights.get("generator_mse_weight", 20), weights.get("encoder_mse_weight", 10)
    )
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["eps"] = SOFT
    batches = torch.rand(3, 3, 1, 16, 16, 16) * 2 - 1
    for number, x in enumerate(batches):
        torch.manual_seed(number)
        losses = model.training_step(lambda x=x: x)
        torch.manual_seed(number)
        for name, value in reference.train(x).items():
            assert losses[name].item() == pytest.approx(value.item(), rel=1e-6)
    for name, net in reference.nets.items():
        agree(model.get_submodule(name), net)


def test_divergence_is_the_textbook_one_per_latent_dimension():
    assert divergence(torch.zeros(3, 5), torch.zeros(3, 5)) == 0
    mean, variance = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0, 4.0, 0.25]])
    by_hand = (0.5 + (0.5 * (4 - 1) - math.log(2)) + (0.5 * (0.25 + 4 - 1) + math.log(2))) / 3
    assert divergence(mean, variance.log()).item() == pytest.approx(by_hand, rel=1e-6)
    both = divergence(mean.repeat(2, 1), variance.log().repeat(2, 1))
    assert both.item() == pytest.approx(by_hand, rel=1e-6)  # a mean over the batch too


def test_no_gradient_of_an_update_stays_on_another_network():
    model = build()
    model.training_step(lambda: torch.rand(3, 1, 16, 16, 16) * 2 - 1)
    for parameter in model.parameters():
        parameter.grad = None
    model.descend(model.D(model.G(torch.randn(3, 12))).sum(), "G")
    assert all(p.grad is None for net in (model.D, model.E) for p in net.parameters())
    assert all(p.grad is not None for p in model.G.parameters())


def test_encoder_averages_the_features_of_an_enlarged_volume_to_4_cubed():
    encoder, x = build(channels=(8,)).E, torch.randn(3, 1, 16, 16, 16)
    features = encoder.trunk(x)
    assert features.shape == (3, 8, 8, 8, 8)
    pooled = features.reshape(3, 8, 4, 2, 4, 2, 4, 2).mean((3, 5, 7)).flatten(1)
    for head, out in zip((encoder.mean, encoder.log_variance), encoder(x), strict=True):
        hidden = F.relu(
            F.batch_norm(head[0](pooled), None, None, head[1].weight, head[1].bias, training=True)
        )
        torch.testing.assert_close(out, head[3](hidden), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", ["small", "paper", "paper-native"])
def test_presets_hold_the_published_numbers(preset):
    config = VAEGAN.build_config(preset)
    assert (config.latent, config.hidden, config.batch_size) == (1000, 2048, 4)
    assert (config.generator_mse_weight, config.encoder_mse_weight) == (20, 10)
    assert (config.learning_rate, config.beta1, config.beta2) == (1e-4, 0.9, 0.999)
    assert config.critic_norm == "batch" and config.critic_learning_rate in (None, 1e-4)
    assert config.budget == 100 * 1262
