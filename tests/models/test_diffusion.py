"""The noise schedule and the two reverse steps against their equations."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from mribench.models.diffusion import (
    Diffusion,
    average_weights,
    cosine_betas,
    linear_betas,
    trailing_steps,
)
from mribench.runtime import Noise


def test_linear_schedule():
    process = Diffusion(linear_betas(1000), "eps")
    assert float(process.betas[0]) == pytest.approx(1e-4) and float(process.betas[-1]) == pytest.approx(0.02)
    assert float(process.signal[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(process.signal[249]) == pytest.approx(0.524, abs=1e-3)
    assert float(process.signal[499]) == pytest.approx(0.0786, abs=1e-4)


def test_fewer_steps_end_in_as_much_noise():
    for steps in (50, 250):
        assert float(Diffusion(linear_betas(steps), "eps").signal[-1]) < 1e-4


def test_21_steps_are_the_fewest_of_the_linear_schedule():
    assert float(linear_betas(20)[-1]) == pytest.approx(1) and float(linear_betas(21)[-1]) < 0.96


def test_cosine_schedule():
    process = Diffusion(cosine_betas(250), "eps")
    assert float(process.betas[0]) == pytest.approx(1.94e-4, abs=1e-6)
    assert process.betas[-3:].tolist() == pytest.approx([0.556, 0.750, 0.999], abs=1e-3)
    assert float(process.betas[-1]) == 0.999  # clipped
    assert float(process.signal[-1]) == pytest.approx(3.9e-8, abs=1e-9)
    for t in (1, 100, 249):
        kept = (
            math.cos((t / 250 + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
        ) ** 2
        assert float(process.signal[t - 1]) == pytest.approx(kept, rel=1e-9)


def test_trailing_steps_begin_with_the_noisiest():
    assert trailing_steps(1000, 50)[:2] == [999, 979] and trailing_steps(1000, 50)[-1] == 19
    assert trailing_steps(1000, 1000) == list(range(999, -1, -1))


def test_noise_and_targets_follow_their_definitions():
    betas = linear_betas(1000)
    x_0, noise = torch.rand(3, 1, 4, 4).double(), torch.randn(3, 1, 4, 4).double()
    t = torch.tensor([0, 400, 999])
    for b in range(3):
        kept = float((1 - betas[: int(t[b]) + 1]).prod())
        x_t = kept**0.5 * x_0[b] + (1 - kept) ** 0.5 * noise[b]
        velocity = kept**0.5 * noise[b] - (1 - kept) ** 0.5 * x_0[b]
        expected = {"eps": noise[b], "x0": x_0[b], "v": velocity}
        for prediction, target in expected.items():
            process = Diffusion(betas, prediction)
            assert torch.allclose(process.add_noise(x_0, noise, t)[b], x_t, atol=1e-9)
            assert torch.allclose(process.target(x_0, noise, t)[b], target, atol=1e-9)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_every_prediction_gives_back_x0_within_the_range(prediction):
    process = Diffusion(linear_betas(1000), prediction)
    x_0, noise = torch.rand(3, 1, 4, 4) * 4 - 2, torch.randn(3, 1, 4, 4)
    t = torch.tensor([0, 400, 800])
    x_t = process.add_noise(x_0, noise, t)
    estimate = process.estimate(x_t, process.target(x_0, noise, t), t)
    assert torch.allclose(estimate, x_0.clamp(-1, 1), atol=1e-3)


@pytest.mark.parametrize("t", [1, 500, 999])
def test_posterior_mean_is_the_papers_equation_4(t):
    """Without clipping: (x_t - beta / sqrt(1 - abar) eps) / sqrt(alpha)."""
    process = Diffusion(linear_betas(1000), "eps")
    x_0, noise = torch.rand(1, 8).double() - 0.5, torch.randn(1, 8).double()
    x_t = process.add_noise(x_0, noise, torch.tensor([t]))
    beta, abar = process.betas[t], process.signal[t]
    expected = (x_t - beta / (1 - abar).sqrt() * noise) / (1 - beta).sqrt()
    assert torch.allclose(process.ancestral(x_t, x_0, t, None, "small"), expected, atol=1e-9)


@pytest.mark.parametrize("t", [1, 10, 100])
def test_ancestral_variances_are_beta_and_that_of_the_posterior(t):
    process = Diffusion(linear_betas(1000), "eps")
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    ratio = (1 - process.signal[t - 1]) / (1 - process.signal[t])
    large, small = (float(process.ancestral(zero, zero, t, one, kind)) ** 2 for kind in ("large", "small"))
    assert large == pytest.approx(float(process.betas[t]))
    assert small == pytest.approx(float(process.betas[t] * ratio))


def test_the_last_ancestral_step_is_clean():
    process = Diffusion(linear_betas(1000), "eps")
    x_0 = torch.rand(1, 8)
    assert torch.allclose(process.ancestral(torch.randn(1, 8), x_0, 0, torch.randn(1, 8), "large"), x_0)


@pytest.mark.parametrize("t", [1, 300, 999])
def test_ddim_with_eta_one_has_the_ancestral_variance(t):
    process = Diffusion(linear_betas(1000), "eps")
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    ours = process.ddim(zero, zero, t, t - 1, one, 1.0) - process.ddim(zero, zero, t, t - 1, 0 * one, 1.0)
    theirs = process.ancestral(zero, zero, t, one, "small")
    assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_the_marginal_of_the_next_time(eta):
    """From x_t = sqrt(a) x_0 + sqrt(1-a) eps, mean sqrt(a') x_0 and variance 1 - a' (eps and z independent)."""
    process = Diffusion(linear_betas(1000), "eps")
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    now, after = process.signal[700], process.signal[300]
    of_x0 = process.ddim(now.sqrt() * one, one, 700, 300, zero, eta)
    of_eps = process.ddim((1 - now).sqrt() * one, zero, 700, 300, zero, eta)
    of_z = process.ddim(zero, zero, 700, 300, one, eta)
    assert float(of_x0) == pytest.approx(float(after.sqrt()))
    assert float(of_eps**2 + of_z**2) == pytest.approx(float(1 - after))
    assert float(of_z) == pytest.approx(eta * float(((1 - after) / (1 - now) * (1 - now / after)).sqrt()))


def clipped_half(x, t):
    """A network's answer that depends on the time."""
    return 0.5 * x + 0.01 * t[:, None, None]


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_sampling_goes_through_the_trailing_steps(eta):
    process, times = Diffusion(linear_betas(25), "x0"), []
    noise = Noise([3, 4])

    def predict(x, t):
        times.append(t.tolist())
        return clipped_half(x, t).bfloat16()

    out = process.sample(predict, noise, (2, 5), ddim_steps=3, eta=eta, variance="small")
    assert times == [[24, 24], [16, 16], [7, 7]] and out.dtype == torch.float32
    again = Noise([3, 4])
    x = again.normal(2, 5)
    for t, after in ((24, 16), (16, 7), (7, None)):
        x_0 = clipped_half(x, torch.full((2,), t)).bfloat16().float().clamp(-1, 1)
        fresh = again.normal(2, 5) if eta and after is not None else None
        x = process.ddim(x, x_0, t, after, fresh, eta)
    assert torch.equal(out, x)
    assert torch.equal(noise.normal(1), again.normal(1))  # no draw too many


@pytest.mark.parametrize("variance", ["large", "small"])
def test_ancestral_sampling_takes_every_step(variance):
    process = Diffusion(linear_betas(25), "x0")
    noise, again = Noise([3]), Noise([3])
    out = process.sample(clipped_half, noise, (2, 5), ddim_steps=None, eta=0.0, variance=variance)
    x = again.normal(2, 5)
    for t in range(24, -1, -1):
        x_0 = clipped_half(x, torch.tensor([t])).clamp(-1, 1)
        x = process.ancestral(x, x_0, t, again.normal(2, 5) if t else None, variance)
    assert torch.equal(out, x)
    assert torch.equal(noise.normal(1), again.normal(1))


def test_averaging_keeps_the_share_of_the_past():
    net = torch.nn.Linear(3, 2)
    average = copy.deepcopy(net).requires_grad_(False)
    with torch.no_grad():
        net.weight += 1
    before = average.weight.clone()
    average_weights(average, net, torch.tensor(0.75, dtype=torch.float64))
    assert torch.allclose(average.weight, before + 0.25)
    average_weights(average, net, torch.tensor(0.0, dtype=torch.float64))
    assert torch.equal(average.weight, net.weight) and not average.weight.requires_grad
