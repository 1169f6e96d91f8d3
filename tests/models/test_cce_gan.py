"""CCE-GAN: two steps recomputed with plain autograd, the transport cost, the numbers of the presets, an overfit."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from mribench.models.cce_gan import CCEGAN, sinkhorn_cost
from mribench.runtime import seed_everything

NARROW = {"size": 16, "channels": (8, 16), "latent": 12, "batch_size": 3}
SOFT = 1e-2  # Adam's eps here; at 1e-8 the scale of a loss would hardly show in its steps
WEIGHTS = {"l1_weight": 100, "cycle_weight": 50, "sinkhorn_weight": 100, "penalty_weight": 10}
OTHERS = {"l1_weight": 5.0, "cycle_weight": 25.0, "sinkhorn_weight": 50.0, "penalty_weight": 3.0}
VARIANTS = [
    {},
    {"step_one": ("G",), "critic_learning_rate": 6e-3},
    {"step_one": ("G", "G"), "critic_learning_rate": 2e-3, "log_sum_exp": "coded", "epsilon": 0.3},
    {"critic_steps": 1, **OTHERS},
]
kinds = pytest.mark.parametrize("kind", ["shifted", "coded"])
slow = pytest.mark.slow
REFERENCE = [  # batch, codes, kind, the middle of what two independent implementations gave on several seeds
    pytest.param(4, "std 1", "coded", 0.485),
    pytest.param(4, "std 1", "shifted", 0.485, marks=slow),  # matched codes differ by 0.1 %
    pytest.param(4, "std 0.1", "coded", 3.4),
    pytest.param(4, "std 0.1", "shifted", 3.4),
    pytest.param(4, "std 3", "coded", 16.0, marks=slow),
    pytest.param(4, "std 3", "shifted", 17.0, marks=slow),  # 15.3 coded was 16.3 shifted
    pytest.param(4, "zero", "coded", 4.0),
    pytest.param(4, "zero", "shifted", 4.0),
    pytest.param(4, "one code", "coded", 4.1, marks=slow),
    pytest.param(4, "one code", "shifted", 4.1, marks=slow),
    pytest.param(2, "std 1", "coded", 0.127),
    pytest.param(8, "std 1", "coded", 2.62, marks=slow),
]


def build(**overrides):
    seed_everything(0)
    return CCEGAN(CCEGAN.build_config("small", **{**NARROW, **overrides}))


def volumes(*batch):
    return torch.rand(*batch, 1, 16, 16, 16) * 2 - 1


def agree(mine, theirs):
    """Every parameter the same within rounding."""
    for (name, parameter), expected in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-8, msg=name)


def penalty(critic, real, fake):
    share = torch.rand(len(real), 1, 1, 1, 1)
    x = (share * real + (1 - share) * fake).detach().requires_grad_()
    slope = torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]
    return (((slope**2 + 1e-15).flatten(1).sum(1)).sqrt() - 1).square().mean()


def transport(codes, prior, epsilon, kind):
    """The fact sheet's recursion, unrolled: prior coordinates are rows i, encoded ones columns j."""

    def lse(scores, dim):
        if kind == "coded":
            return torch.log(torch.exp(scores).sum(dim) + 1e-6)
        top = scores.amax(dim, keepdim=True).detach()
        return (torch.exp(scores - top).sum(dim, keepdim=True).log() + top).squeeze(dim)

    x, y = prior.T, codes.T
    n = len(x)
    cost = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    u, v, rounds = torch.zeros(n), torch.zeros(n), 0
    while rounds < 100:
        old, rounds = u, rounds + 1
        u = epsilon * (math.log(1 / n) - lse((-cost + u[:, None] + v[None]) / epsilon, 1)) + u
        v = epsilon * (math.log(1 / n) - lse((-cost + u[:, None] + v[None]) / epsilon, 0)) + v
        if (u - old).abs().sum() < 0.1:
            break
    return (torch.exp((-cost + u[:, None] + v[None]) / epsilon) * cost).sum(), rounds


class Reference:
    """The recipe of the fact sheet, section 5."""

    def __init__(self, model):
        self.config = model.config
        self.nets = {name: copy.deepcopy(model.get_submodule(name)) for name in "GED"}
        rates = {"G": 1e-2, "E": 1e-2, "D": model.config.critic_learning_rate}
        self.adam = {
            n: torch.optim.Adam(net.parameters(), rates[n], eps=SOFT) for n, net in self.nets.items()
        }

    def step(self, loss, *names):
        """One gradient of each named network, then one step for each name."""
        for name in dict.fromkeys(names):
            parameters = [*self.nets[name].parameters()]
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        for name in names:
            self.adam[name].step()

    def train(self, x, *others):
        c, (G, E, D) = self.config, self.nets.values()
        code, prior = E(x), torch.randn(len(x), 12)
        rebuilt, made = G(code), G(prior)
        l1 = (rebuilt - x).abs().mean()
        cycle = ((code - E(rebuilt)) ** 2).mean() + ((prior - E(made)) ** 2).mean()
        loss = c.l1_weight * l1 + c.cycle_weight * cycle - D(rebuilt).mean() - D(made).mean()
        self.step(loss, *c.step_one)
        sinkhorn, _ = transport(E(x), torch.randn(len(x), 12), c.epsilon, c.log_sum_exp)
        self.step(c.sinkhorn_weight * sinkhorn, "E")
        rebuilt, made = rebuilt.detach(), made.detach()
        for real in others:
            loss_d = -2 * D(real).mean() + D(rebuilt).mean() + D(made).mean()
            loss_d = loss_d + c.penalty_weight * (penalty(D, real, made) + penalty(D, real, rebuilt))
            self.step(loss_d, "D")
        return {"l1": l1, "cycle": cycle, "sinkhorn": sinkhorn, "D": loss_d}


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.usefixtures("exact")
def test_training_follows_the_recipe(settings):
    model = build(**{"learning_rate": 1e-2, "critic_learning_rate": 1e-2, **settings})
    reference = Reference(model)
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["eps"] = SOFT
    for number, stream in enumerate(volumes(2, 1 + model.config.critic_steps, 3)):
        torch.manual_seed(number)
        losses = model.training_step(iter(stream).__next__)
        torch.manual_seed(number)
        for name, value in reference.train(*stream).items():
            assert losses[name].item() == pytest.approx(value.item(), rel=1e-6)
    for name, net in reference.nets.items():
        agree(model.get_submodule(name), net)


def test_defaults_are_the_canonical_notebook():
    for preset, budget in {"small": 1_600_000, "paper": 1_600_000, "paper-native": 1_600_000}.items():
        config = CCEGAN.build_config(preset)
        assert {name: getattr(config, name) for name in WEIGHTS} == WEIGHTS
        assert (config.step_one, config.critic_steps) == (("G", "E"), 3)
        assert (config.learning_rate, config.critic_learning_rate) == (2e-4, 1e-3)
        assert (config.beta1, config.beta2, config.critic_norm) == (0.9, 0.999, "batch")
        assert (config.latent, config.batch_size, config.epsilon) == (1000, 4, 0.1)
        assert config.budget == budget == 100_000 * (1 + 3) * 4
        assert config.log_sum_exp == "shifted"


@kinds
@pytest.mark.parametrize(
    ("spread", "epsilon", "stops"), [(3.0, 0.1, False), (1.0, 0.1, True), (0.3, 0.5, True)]
)
@pytest.mark.usefixtures("exact")
def test_transport_cost_and_gradient_equal_the_unrolled_recursion(kind, spread, epsilon, stops):
    codes = (spread * torch.randn(3, 40)).requires_grad_()
    prior = torch.randn(3, 40)
    expected, rounds = transport(codes, prior, epsilon, kind)
    assert (rounds < 100) == stops and rounds > 2
    mine = sinkhorn_cost(codes, prior, epsilon, kind)
    torch.testing.assert_close(mine, expected, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(cost, codes)[0] for cost in (mine, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)
    assert gradients[0].abs().min() > 0


@pytest.mark.parametrize(("batch", "codes", "kind", "expected"), REFERENCE)
def test_transport_cost_of_known_codes(batch, codes, kind, expected):
    prior, encoded = torch.randn(batch, 1000), torch.randn(batch, 1000)
    if codes == "zero":
        encoded = torch.zeros_like(encoded)
    elif codes == "one code":
        encoded = encoded[:1].expand(batch, -1)
    else:
        encoded = encoded * float(codes.removeprefix("std "))
    with torch.no_grad():
        assert sinkhorn_cost(encoded, prior, log_sum_exp=kind).item() == pytest.approx(expected, rel=0.1)


def test_shifting_the_exponents_prevents_underflow():
    """Far apart, every unshifted exponential is 0 and only the floor of 1e-6 is left."""
    codes, prior = torch.full((2, 10), 100.0), torch.zeros(2, 10)
    exact = 2 * 100.0**2  # float32 keeps 0.01 of an exponent of 200,000
    assert sinkhorn_cost(codes, prior, 0.1, "shifted").item() == pytest.approx(exact, rel=1e-2)
    assert sinkhorn_cost(codes, prior, 0.1, "coded").item() < 0.1 * exact


def test_transport_cost_keeps_float32_under_bf16():
    codes, prior = torch.randn(4, 30), torch.randn(4, 30)
    expected = sinkhorn_cost(codes, prior)
    with torch.autocast("cpu", torch.bfloat16):
        assert sinkhorn_cost(codes, prior).item() == pytest.approx(expected.item(), rel=1e-6)
        assert sinkhorn_cost(codes.bfloat16(), prior).dtype == torch.float32


def test_iterations_are_recomputed_not_stored():
    codes, squares = torch.randn(3, 40, requires_grad=True), []

    def note(tensor):
        squares.extend([tensor] if tensor.numel() == 40 * 40 else [])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        sinkhorn_cost(codes, torch.randn(3, 40))
    assert len({tensor.data_ptr() for tensor in squares}) < 10  # stored, they would be several per iteration


def test_one_volume_is_learned():
    model = build(learning_rate=2e-3, batch_size=2)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 16)] * 3, indexing="ij"))
    volume = (1.6 * (grid.norm(dim=0) < 0.7) - 1).expand(2, 1, 16, 16, 16)
    errors = [model.training_step(lambda: volume)["l1"].item() for _ in range(20)]
    assert errors[-1] < 0.4 * errors[0]
