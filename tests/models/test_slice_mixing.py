"""Neighbours against a search by hand; the mixing layer against its formula, and inside the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mribench.models.cdpm import CDPM
from mribench.models.slice_mixing import NeighbourMixing, neighbours
from mribench.models.unet import GroupNorm, missing


def by_hand(index, stack, sign):
    """(slot, distance) of the nearest slice on one side of each slot, or None."""
    answers = []
    for i in range(len(index)):
        side = [(abs(index[j] - index[i]), j) for j in range(len(index))]
        side = [(d, j) for d, j in side if stack[j] == stack[i] and sign * (index[j] - index[i]) > 0]
        answers.append((min(side)[1], sign * min(side)[0]) if side else None)
    return answers


def test_neighbours_are_the_nearest_slices_of_the_same_stack():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        index = torch.randperm(30, generator=generator)[:9]
        stack = torch.randint(3, (9,), generator=generator)
        for side, sign in zip(neighbours(index, stack), (-1, 1), strict=True):
            expected = by_hand(index.tolist(), stack.tolist(), sign)
            assert side.exists.tolist() == [each is not None for each in expected]
            for slot, each in enumerate(expected):
                distance = int(side.distance[slot])
                assert distance == 0 if each is None else (int(side.place[slot]), distance) == each


def test_the_layer_is_its_formula(jitter):
    layer = jitter(NeighbourMixing(GroupNorm(8), 8, 4, 6))
    x, time = torch.randn(5, 8, 3, 3), torch.randn(5, 6)
    index, stack = torch.tensor([4, 0, 9, 1, 2]), torch.tensor([0, 0, 0, 1, 1])
    u = layer.inward(layer.norm(x))
    out = layer(x, time, neighbours(index, stack))
    for i, pair in enumerate([(1, 2), (None, 0), (0, None), (None, 4), (3, None)]):
        total = u[i, :4]
        for part, j in zip((u[:, 4:8], u[:, 8:]), pair, strict=True):
            if j is None:
                continue
            d = float(index[j] - index[i])
            features = torch.tensor([max(d, 0.0), max(-d, 0.0)]).log1p()
            gate = layer.gate(F.silu(layer.time(time[i]) + layer.distance(features)))
            total = total + gate[:, None, None] * part[j]
        assert torch.allclose(out[i], x[i] + layer.project(F.silu(total)[None])[0], atol=1e-5)


def network(jitter, **settings):
    torch.manual_seed(0)
    small = {"size": 16, "multipliers": (1, 2), "attention_sizes": (8,), "tau_max": 8, "stage_slices": 4}
    model = CDPM(CDPM.build_config("tiny", **{**small, "mixing_sizes": (16, 8), **settings}))
    return jitter(model.net)


def stack_of_six():
    x_t, x_0 = torch.randn(2, 1, 6, 1, 16, 16)
    index, group = torch.tensor([[0, 1, 2, 3, 9, 4]]), torch.tensor([[0, 0, 0, 0, 1, 1]])
    observed = torch.tensor([[True, True, False, False, False, False]])
    return x_t, x_0, index, observed, group, torch.tensor([300.0])


def test_mixing_is_silent_at_the_start():
    torch.manual_seed(0)
    plain, mixed = (network(lambda net: net, mixing_sizes=sizes) for sizes in ((), (16, 8)))
    mixed.load_state_dict({**mixed.state_dict(), **plain.state_dict()})
    for net in (plain, mixed):
        torch.nn.init.ones_(net.head[2].weight)
    given = stack_of_six()
    assert torch.equal(plain(*given), mixed(*given))
    assert sum("mixing.inward.weight" in name for name in mixed.state_dict()) == 4  # 2 sizes, down and up


def test_slices_of_another_volume_stay_apart(jitter):
    net = network(jitter)
    x_t, x_0, index, observed, group, t = stack_of_six()
    before = net(x_t, x_0, index, observed, group, t)
    x_t = x_t.clone()
    x_t[:, 4:] += 1
    after = net(x_t, x_0, index, observed, group, t)
    assert torch.equal(before[:2], after[:2]) and not torch.allclose(before[2:], after[2:])


def test_neighbours_change_each_other(jitter):
    """Without attention inside the stack (one pixel apart it cannot reach) the mixing alone carries detail."""
    net = network(jitter)
    for module in net.modules():
        if type(module).__name__ == "FactorisedAttention":
            module.forward = lambda x, time, index, group: x
    x_t, x_0, index, observed, group, t = stack_of_six()
    before = net(x_t, x_0, index, observed, group, t)
    changed = x_0.clone()
    changed[:, 1] += 1  # given, next to the first slice that is made
    after = net(x_t, changed, index, observed, group, t)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[2:], after[2:])
    wanted = missing(observed)
    assert torch.equal(net(x_t, changed, index, observed, group, t, wanted), after)
