"""What the four GANs share: penalties in closed form, the critic's loss by hand, which update moves which network."""

from __future__ import annotations

import pytest
import torch

from mribench.errors import UsageError
from mribench.models import get_model
from mribench.models.adversarial import critic_loss, gradient_penalty, voxel_penalty
from mribench.runtime import Noise, seed_everything

SHAPE = (3, 1, 4, 4, 4)
NARROW = {"size": 16, "channels": (8, 16), "latent": 12, "batch_size": 2}
EXTRA = {"vae_gan": {"hidden": 16}, "gan_gp": {}, "alpha_wgan": {"code_width": 16}, "cce_gan": {}}
RATES = {"vae_gan": 1e-4, "gan_gp": 1e-4, "alpha_wgan": 2e-4, "cce_gan": 2e-4}
ALPHA, CCE = ["E and G", "D", "C"], ["G and E", "E", "D", "D", "D"]
CASES = [  # model, settings, its updates in order, batches drawn
    ("vae_gan", {}, ["D", "G", "E"], 1),
    ("gan_gp", {}, ["D"] * 5 + ["G"], 5),
    ("gan_gp", {"critic_steps": 1, "generator_steps": 5}, ["D"] + ["G"] * 5, 1),
    ("alpha_wgan", {}, ALPHA, 2),
    ("alpha_wgan", {"steps_per_gradient": 2, "live_code_term": False}, ALPHA, 2),
    ("cce_gan", {}, CCE, 4),
    ("cce_gan", {"step_one": ("G",)}, ["G", *CCE[1:]], 4),
    ("cce_gan", {"step_one": ("G", "G"), "critic_steps": 1}, ["G", "E", "D"], 2),
]


def build(name, **overrides):
    kind = get_model(name)
    seed_everything(0)
    return kind(kind.build_config("small", **{**NARROW, **EXTRA[name], **overrides}))


def linear(weight):
    return lambda x: (x * weight).flatten(1).sum(1, keepdim=True)


def of_norm(length):
    weight = torch.randn(SHAPE[1:])
    return weight * length / weight.norm()


def volumes():
    return torch.rand(SHAPE) * 2 - 1


@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_penalty_of_a_linear_critic(length):
    """(a - 1)^2, exactly 0 at unit norm."""
    penalty = gradient_penalty(linear(of_norm(length)), volumes(), volumes())
    assert penalty.item() == pytest.approx((length - 1) ** 2, rel=1e-5, abs=1e-10)


def test_penalty_of_a_flat_critic_is_one_and_has_a_gradient():
    weight = torch.zeros(SHAPE[1:], requires_grad=True)
    penalty = gradient_penalty(linear(weight), volumes(), volumes())
    penalty.backward()
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(weight.grad).all()


def test_penalty_is_the_mean_over_samples_of_each_samples_own_norm():
    x = volumes() * torch.tensor([0.1, 0.5, 2.0]).reshape(3, 1, 1, 1, 1)
    penalty = gradient_penalty(lambda v: 0.5 * v.square().flatten(1).sum(1), x, x)  # its gradient is v
    norms = x.flatten(1).norm(dim=1)
    assert penalty.item() == pytest.approx((norms - 1).square().mean().item(), rel=1e-5)


def test_penalty_differentiates_the_sum_of_a_patch_critics_scores():
    weight = of_norm(1)
    penalty = gradient_penalty(lambda v: linear(weight)(v).repeat(1, 8), volumes(), volumes())
    assert penalty.item() == pytest.approx((8 - 1) ** 2, rel=1e-5)


def test_penalty_reaches_the_critic_through_its_gradient():
    """Of (|w| - 1)^2: 2 (|w| - 1) w / |w|."""
    weight = of_norm(3).requires_grad_()
    gradient_penalty(linear(weight), volumes(), volumes()).backward()
    torch.testing.assert_close(weight.grad, 2 * (3 - 1) * weight.detach() / 3, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", [gradient_penalty, voxel_penalty])
def test_penalty_sits_between_real_and_fake_with_one_share_per_sample(penalty):
    real, fake, seen = volumes().requires_grad_(), volumes().requires_grad_(), []
    weight = of_norm(2).requires_grad_()

    def critic(x):
        seen.append(x)
        return linear(weight)(x)

    torch.manual_seed(5)
    value = penalty(critic, real, fake)
    torch.manual_seed(5)
    share = torch.rand(3, 1, 1, 1, 1)
    torch.testing.assert_close(seen[0], share * real + (1 - share) * fake)
    assert torch.autograd.grad(value, [real, fake, weight], allow_unused=True)[:2] == (None, None)


def test_penalty_of_a_critic_in_bf16_is_off_by_the_rounding_of_its_weights():
    real, fake, weight = volumes(), volumes(), torch.nn.Linear(64, 1)

    def critic(x):
        return weight(x.flatten(1))

    torch.manual_seed(5)
    expected = gradient_penalty(critic, real, fake)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(critic, real, fake)
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, expected, rtol=4e-3, atol=0)


def test_voxel_penalty_asks_every_voxel_for_unit_slope():
    weight = of_norm(3)
    penalty = voxel_penalty(linear(weight), volumes(), volumes())
    assert penalty.item() == pytest.approx((weight.abs() - 1).square().mean().item(), rel=1e-5)
    assert voxel_penalty(linear(torch.zeros(SHAPE[1:])), volumes(), volumes()).item() == 1
    signs = torch.sign(weight)
    assert voxel_penalty(linear(signs), volumes(), volumes()).item() == pytest.approx(0, abs=1e-10)


def test_critic_loss_by_hand():
    weight = of_norm(3).requires_grad_()
    real, rebuilt, made = volumes(), volumes().requires_grad_(), volumes().requires_grad_()
    loss = critic_loss(linear(weight), real, rebuilt, made, weight=10)
    score = [(weight.detach() * v.detach()).flatten(1).sum(1).mean() for v in (real, rebuilt, made)]
    expected = -2 * score[0] + score[1] + score[2] + 10 * (3 - 1) ** 2 + 10 * (3 - 1) ** 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    distance = (rebuilt + made - 2 * real).detach().mean(0)
    torch.testing.assert_close(weight.grad, distance + 20 * 2 * (3 - 1) * weight.detach() / 3)
    assert rebuilt.grad is None and made.grad is None


def test_critic_loss_penalises_between_the_real_and_each_of_the_fakes():
    seen, weight = [], of_norm(1).requires_grad_()

    def critic(x):
        seen.append(x.detach().mean().item())
        return linear(weight)(x)

    real = torch.zeros(SHAPE)
    torch.manual_seed(5)
    critic_loss(critic, real, real + 1, real + 2, weight=10)
    torch.manual_seed(5)
    to_made, to_rebuilt = (1 - torch.rand(3).mean().item() for _ in range(2))
    assert sorted(seen[:3]) == [0, 1, 2]
    assert seen[3:] == pytest.approx([2 * to_made, to_rebuilt], rel=1e-5)


@pytest.mark.parametrize(("name", "settings", "order", "drawn"), CASES)
def test_each_update_moves_its_own_networks_and_no_other(name, settings, order, drawn, monkeypatch):
    model, updates, batches = build(name, **settings), [], []
    descend = model.descend

    def watch(losses, *names):
        before = {key: value.clone() for key, value in model.named_parameters()}
        descend(losses, *names)
        moved = {k.split(".")[0] for k, p in model.named_parameters() if not torch.equal(p, before[k])}
        assert moved == set(names)
        updates.append(" and ".join(dict.fromkeys(names)))

    def next_batch():
        batches.append(None)
        return torch.rand(2, 1, 16, 16, 16) * 2 - 1

    monkeypatch.setattr(model, "descend", watch)
    losses = model.training_step(next_batch)
    assert (updates, len(batches)) == (order, drawn)
    assert all(value.dim() == 0 and not value.requires_grad for value in losses.values())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("route", [{}, {"channels": (8,)}])  # native, enlarged by 2
def test_one_volume_a_batch_trains(name, route):
    model = build(name, batch_size=1, **route)
    for _ in range(2):
        losses = model.training_step(lambda: torch.rand(1, 1, 16, 16, 16) * 2 - 1)
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not any(model.unfinite.values())


@pytest.mark.parametrize("name", EXTRA)
def test_every_network_has_an_adam_of_its_own(name):
    model = build(name)
    for key, optimizer in model.optimizers.items():
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert owned == {id(p) for p in model.get_submodule(key).parameters()}
        assert type(optimizer) is torch.optim.Adam
        settings = optimizer.defaults
        assert settings["betas"] == ((0.0, 0.9) if name == "gan_gp" else (0.9, 0.999))
        assert (settings["eps"], settings["weight_decay"]) == (1e-8, 0)
        assert settings["lr"] == (1e-3 if (name, key) == ("cce_gan", "D") else RATES[name])
    assert set(model.optimizers) == set(model.parameter_count())


@pytest.mark.parametrize("name", EXTRA)
def test_sample_is_one_pass_of_the_generator_over_normal_codes(name):
    model = build(name).eval()
    expected = model.G(Noise([3, 4]).normal(12))
    assert torch.equal(model.sample(Noise([3, 4])), expected)
    prior = model.prior(torch.empty(2000, 1, 1, 1, 1))
    assert prior.shape == (2000, 12)
    assert abs(prior.mean().item()) < 0.03 and abs(prior.std().item() - 1) < 0.03


def test_size_must_be_what_the_channels_make_or_twice_that():
    kind = get_model("alpha_wgan")
    for size, channels in ((64, (8,) * 4), (128, (8,) * 4), (128, (8,) * 5)):
        assert kind.build_config("tiny", size=size, channels=channels).size == size
    for size in (32, 96, 256):
        with pytest.raises(UsageError, match="64 voxels a side, or 128"):
            kind.build_config("tiny", size=size, channels=(8,) * 4)
