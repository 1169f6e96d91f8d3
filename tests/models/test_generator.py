"""`descend` against steps worked out by hand; the refreshed statistics against plain means over prior samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mribench.models.generator import Generator, GeneratorConfig
from mribench.runtime import Noise, derive

RATE = 0.5


class Toy(Generator):
    """Two networks with one optimizer each; `G` turns codes `[B,3]` into `[B,4]`."""

    title, needs = "Toy", ("G",)

    def __init__(self) -> None:
        super().__init__(GeneratorConfig(size=8, batch_size=1, budget=1))
        torch.manual_seed(0)
        self.G = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5))
        self.G.extend([nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=0.3)])
        self.D = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
        self.a, self.b = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
        self.optimizers = {name: torch.optim.SGD([getattr(self, name)], lr=RATE) for name in "ab"}

    def sample(self, noise):
        return self.G(noise.normal(3))


@pytest.fixture
def toy():
    return Toy()


def test_a_loss_moves_only_the_networks_named(toy):
    toy.b.grad = torch.tensor([7.0, 7.0])
    toy.descend((toy.a * toy.b).sum(), "a")
    assert toy.a.tolist() == [1 - RATE * 1, 2 - RATE * 2]
    assert toy.b.tolist() == [1, 2] and toy.b.grad.tolist() == [7, 7]


def test_two_networks_step_down_one_gradient(toy):
    toy.descend((toy.a * toy.b).sum(), "a", "b")
    assert toy.a.tolist() == toy.b.tolist() == [1 - RATE * 1, 2 - RATE * 2]


def test_gradients_of_an_earlier_step_are_gone(toy):
    for _ in range(2):
        toy.descend(toy.a.sum(), "a")
    assert toy.a.tolist() == [1 - 2 * RATE, 2 - 2 * RATE]


def test_several_losses_add_up_to_one_step_one_graph_at_a_time(toy):
    seen = []

    def losses():
        for factor in (3, 10):
            seen.append(None if toy.a.grad is None else toy.a.grad.tolist())
            yield factor * toy.a.sum()

    toy.descend(losses(), "a")
    assert toy.a.tolist() == [1 - 13 * RATE, 2 - 13 * RATE]
    assert seen == [None, [3, 3]]  # the first went backward before the second was computed


def test_a_name_given_twice_steps_twice_with_one_gradient(toy):
    toy.descend(toy.a.square().sum(), "a", "a")
    assert toy.a.tolist() == [1 - 2 * RATE * 2, 2 - 2 * RATE * 4]  # a fresh gradient would have been 0
    toy = Toy()
    toy.descend((toy.a * toy.b).sum(), "b", "a", "a")
    assert (toy.a.tolist(), toy.b.tolist()) == ([1 - 2 * RATE, 2 - 4 * RATE], [1 - RATE, 2 - 2 * RATE])


def test_the_norm_over_all_named_networks_is_clipped(toy):
    toy.clip_norm = 1.0
    toy.descend(3 * toy.a[0] + 4 * toy.b[1], "a", "b")
    torch.testing.assert_close(toy.a, torch.tensor([1 - RATE * 3 / 5, 2.0]))
    torch.testing.assert_close(toy.b, torch.tensor([1.0, 2 - RATE * 4 / 5]))
    toy.descend(0.5 * toy.a[0], "a")  # shorter: left alone
    assert toy.a[0].item() == pytest.approx(1 - RATE * 3 / 5 - RATE * 0.5, rel=1e-5)
    toy.descend(3 * toy.b[0], "b", "b")  # counted and clipped once, stepped twice
    assert toy.b[0].item() == pytest.approx(1 - 2 * RATE, abs=1e-5)


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf, 1e9, -1e10])
def test_losses_that_are_not_finite_or_beyond_return_are_counted(toy, factor):
    toy.descend(toy.b.sum(), "b")
    toy.descend(factor + toy.a.sum(), "a")
    assert {name: int(count) for name, count in toy.unfinite.items()} == {"b": 0, "a": 1}
    toy.descend(toy.a.sum(), "a")
    toy.descend(factor + toy.a.sum(), "a")
    assert int(toy.unfinite["a"]) == 2


def test_large_losses_are_no_divergence(toy):
    for loss in (9e8 + toy.a.sum(), -9e8 + toy.a.sum()):
        toy.descend(loss, "a")
    assert int(toy.unfinite["a"]) == 0


def test_one_bad_loss_of_several_is_enough(toy):
    toy.descend((factor * toy.a.sum() + factor for factor in (1, 1e10, 1)), "a")
    assert int(toy.unfinite["a"]) == 1


def test_a_gradient_that_is_not_finite_is_counted_under_the_updates_name(toy):
    loss = (toy.a[0] - 1).sqrt() + toy.b.sum()  # 0, but with an infinite slope
    assert torch.isfinite(loss)
    toy.descend(loss, "b", "a", "b")
    assert {name: int(count) for name, count in toy.unfinite.items()} == {"b and a": 1}


def test_rates_rise_over_the_warm_up_and_fall_to_the_end_of_the_budget():
    config = GeneratorConfig(size=8, batch_size=2, budget=100, warmup=3, decay_from=0.5, decay_to=0.1)
    shares = {seen: config.rate_share(seen // 2, seen) for seen in (0, 2, 4, 6, 50, 74, 75, 98, 100, 110)}
    expected = {0: 0.25, 2: 0.5, 4: 0.75, 6: 1, 50: 1, 75: 0.55, 100: 0.1, 110: 0.1}
    expected |= {74: 1 - 0.9 * 0.48, 98: 1 - 0.9 * 0.96}
    assert shares == pytest.approx(expected)
    constant = GeneratorConfig(size=8, batch_size=2, budget=100)
    assert {constant.rate_share(step, 2 * step) for step in range(60)} == {1.0}


def test_rates_are_shares_of_those_that_the_optimizers_were_made_with(toy):
    for share in (0.5, 0.1, 1.0):
        toy.scale_rates(share)
        assert {group["lr"] for o in toy.optimizers.values() for group in o.param_groups} == {RATE * share}
    toy.scale_rates(0.5)
    again = Toy()
    for name, optimizer in again.optimizers.items():
        optimizer.load_state_dict(toy.optimizers[name].state_dict())
    again.scale_rates(0.2)  # of the first rate, not of the one in the checkpoint
    assert again.optimizers["a"].param_groups[0]["lr"] == pytest.approx(RATE * 0.2)
    again.descend(again.a.sum(), "a")
    assert again.a.tolist() == pytest.approx([1 - RATE * 0.2, 2 - RATE * 0.2])


def statistics(toy, seed, batches=25, size=8):
    """Mean and variance of each of G's BatchNorms, averaged over batches of prior codes."""
    first, _, _, _, second, _ = toy.G
    rows = []
    for batch in range(batches):
        codes = Noise([derive(seed, "refresh", batch, i) for i in range(size)]).normal(3)
        before = first(codes)
        inside = second(torch.relu((before - before.mean(0)) / (before.var(0, correction=0) + 1e-5).sqrt()))
        rows.append([before.mean(0), before.var(0), inside.mean(0), inside.var(0)])
    return [torch.stack(column).mean(0) for column in zip(*rows, strict=True)]


def norms(toy):
    return [toy.G[1], toy.G[5]]


def held(toy):
    return [value for norm in norms(toy) for value in (norm.running_mean, norm.running_var)]


def test_refreshed_statistics_are_means_over_prior_samples(toy):
    expected = statistics(toy, seed=7)
    toy.G(torch.randn(50, 3) * 9 + 4)  # what training left behind must not count
    toy.refresh_batchnorm(7)
    torch.testing.assert_close(held(toy), expected)
    once = [value.clone() for value in held(toy)]
    toy.refresh_batchnorm(7)
    assert all(map(torch.equal, held(toy), once))
    toy.refresh_batchnorm(8)
    assert not any(map(torch.equal, held(toy), once))


def test_refreshing_changes_nothing_but_the_statistics_of_what_sampling_uses(toy):
    toy.D(torch.randn(6, 2))
    owned = {id(value) for value in held(toy)} | {id(norm.num_batches_tracked) for norm in norms(toy)}
    before = {key: v.clone() for key, v in toy.state_dict(keep_vars=True).items() if id(v) not in owned}
    random = torch.get_rng_state()
    toy.refresh_batchnorm(7)
    after = toy.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [norm.momentum for norm in norms(toy)] == [0.1, 0.3]
    assert all(module.training for module in toy.modules())
    assert not any(value.requires_grad for value in held(toy))


def test_without_batch_norm_nothing_is_sampled(toy, monkeypatch):
    toy.G = nn.Linear(3, 4)
    monkeypatch.setattr(Toy, "sample", lambda *_: pytest.fail("sampled"))
    toy.refresh_batchnorm(7)
