"""Every solver against the closed form of a Gaussian, and against the optimal denoiser of a small set."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mribench.models.solvers import karras_levels, level_count, solve
from mribench.runtime import Noise

DETERMINISTIC = ["dpmpp", "dpmpp_2s", "heun", "ddim"]
ALL = [*DETERMINISTIC, "ancestral"]


def gaussian(variance):
    """The perfect denoiser of N(0, variance)."""
    return lambda z, sigma: variance / (variance + sigma**2) * z


def kept(sampler, levels, variance, eta=0.0):
    """Standard deviation of what a deterministic solver makes of N(0, variance), over the right one."""
    noise, again = Noise([0]), Noise([0])
    out = solve(sampler, gaussian(variance), noise, (4,), levels, eta).double()
    start = again.normal(4).double()
    ratio = out / start
    assert float(ratio.std()) < 1e-4 * float(ratio.mean())  # linear in the noise
    return float(ratio.mean()) / math.sqrt(variance)


def test_karras_levels_follow_their_equation():
    levels = karras_levels(20.0, 0.03, 5)
    assert levels[0] == pytest.approx(20) and levels[-1] == pytest.approx(0.03)
    roots = [level ** (1 / 7) for level in levels]
    assert [a - b for a, b in itertools.pairwise(roots)] == pytest.approx([(roots[0] - roots[-1]) / 4] * 4)
    assert karras_levels(20.0, 0.03, 1) == [20.0]


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_many_steps_reach_the_closed_form_of_a_gaussian(sampler):
    # On z = sqrt(v + sigma^2) c the ODE keeps c; the start has sigma_0 c', so c = c' up to v / (2 sigma_0^2).
    assert kept(sampler, karras_levels(80.0, 0.002, 2000), 0.04) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp", 2), ("dpmpp_2s", 2), ("heun", 2)])
def test_errors_fall_with_the_order_of_the_solver(sampler, order):
    """On uniform steps in log sigma, twice as many steps divide the error by two to the order."""
    variance, first, last = 0.25, 5.0, 0.05
    exact = math.sqrt((variance + last**2) / (variance + first**2)) * first * variance / (variance + last**2)

    def error(count):
        levels = [first * (last / first) ** (i / count) for i in range(count + 1)]
        return abs(kept(sampler, levels, variance) * math.sqrt(variance) - exact)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Noise, "normal", lambda self, *shape: torch.ones(1, *shape, dtype=torch.float64))
        ratio = error(80) / error(160)
    assert math.log2(ratio) == pytest.approx(order, abs=0.25)


def test_ddim_is_the_formula_for_a_gaussian_step_by_step():
    levels, variance = karras_levels(20.0, 0.03, 8), 0.09
    share = levels[0]
    for now, after in itertools.pairwise(levels):
        share *= (variance + now * after) / (variance + now**2)
    share *= variance / (variance + levels[-1] ** 2)
    assert kept("ddim", levels, variance) * math.sqrt(variance) == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_fresh_noise_keeps_the_variance_that_the_recursion_says(eta):
    levels, variance = karras_levels(20.0, 0.03, 12), 0.09
    spread = levels[0] ** 2
    for now, after in itertools.pairwise(levels):
        fresh = eta**2 * after**2 / now**2 * (now**2 - after**2)
        gain = variance / (variance + now**2)
        spread = (gain + math.sqrt(after**2 - fresh) / now * (1 - gain)) ** 2 * spread + fresh
    spread *= (variance / (variance + levels[-1] ** 2)) ** 2
    made = solve("ddim", gaussian(variance), Noise([1]), (100_000,), levels, eta)
    assert float(made.var()) == pytest.approx(spread, rel=0.02)
    if eta == 1:
        same = solve("ancestral", gaussian(variance), Noise([1]), (100_000,), levels, 0.0)
        assert torch.equal(made, same)


def test_two_multisteps_are_the_published_formula():
    levels, values = [8.0, 2.0, 1.0], iter([0.5, -0.25, 0.125])
    out = []

    def denoise(z, sigma):
        out.append((float(z), sigma))
        return torch.full_like(z, next(values))

    made = solve("dpmpp", denoise, Noise([3]), (1,), levels, 0.0)
    z = 8 * float(Noise([3]).normal(1))
    first = 2 / 8 * z + (1 - 2 / 8) * 0.5
    step, before = math.log(2), math.log(4)
    ahead = (1 + step / (2 * before)) * -0.25 - step / (2 * before) * 0.5
    second = 1 / 2 * first + (1 - 1 / 2) * ahead
    assert [z for z, _ in out] == pytest.approx([z, first, second], rel=1e-5)
    assert [sigma for _, sigma in out] == levels and float(made) == 0.125


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("calls", [1, 2, 7, 20])
def test_no_more_calls_than_asked_for(sampler, calls):
    made = []

    def denoise(z, sigma):
        made.append(sigma)
        return 0.5 * z

    solve(sampler, denoise, Noise([0]), (2,), karras_levels(20.0, 0.03, level_count(sampler, calls)), 0.0)
    assert calls - 1 <= len(made) <= calls
    assert made == sorted(made, reverse=True)


@pytest.mark.parametrize("sampler", ALL)
def test_the_optimal_denoiser_of_a_small_set_returns_its_members_evenly(sampler):
    """softmax(-|z - y|^2 / 2 sigma^2) over members y: nothing but members may come out, each as often."""
    generator = torch.Generator().manual_seed(5)
    members = torch.rand(4, 64, generator=generator) * 1.6 - 0.8

    def denoise(z, sigma):
        return (-torch.cdist(z.double(), members.double()).square() / (2 * sigma**2)).softmax(
            1
        ).float() @ members

    count = level_count(sampler, 40)
    made = solve(sampler, denoise, Noise(range(400)), (64,), karras_levels(80.0, 0.01, count), 0.0)
    distance, nearest = torch.cdist(made.double(), members.double()).min(1)
    assert float(distance.max()) < 1e-3
    assert torch.bincount(nearest, minlength=4).min() > 70  # 100 expected; 70 is 3.5 standard deviations less


@pytest.mark.parametrize("sampler", ALL)
def test_a_volume_does_not_depend_on_its_batch_mates(sampler):
    levels = karras_levels(20.0, 0.03, 6)
    both = solve(sampler, gaussian(0.1), Noise([4, 9]), (3, 5), levels, 0.0)
    alone = solve(sampler, gaussian(0.1), Noise([9]), (3, 5), levels, 0.0)
    assert torch.equal(both[1], alone[0])
