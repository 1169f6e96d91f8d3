"""The recipe: index sets, training steps worked out by hand, stage plan, sampling worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mribench.errors import UsageError
from mribench.models import cdpm
from mribench.models.cdpm import CDPM, draw_index_sets, stage_plan
from mribench.models.diffusion import linear_betas
from mribench.runtime import Noise

# (condition, target) of each volume of a batch of three: 8, 5 and 2 of 8 slots, nothing given in the last.
SETS = [([4, 0, 9], [1, 2, 3, 15, 8]), ([7], [0, 14, 3, 5]), ([], [6, 0])]
SLOTS = 8
PLAN = [([], [0, 1, 2, 3]), ([0, 1, 2, 3], [4, 5, 6, 7]), ([4, 5, 6, 7], [8, 9, 10, 11])]
PLAN += [([8, 9, 10, 11], [12, 13, 14, 15])]
PLAN_WITH_ANCHOR = [([0], [1, 2, 3, 4]), ([1, 2, 3, 4], [5, 6, 7, 8]), ([5, 6, 7, 8], [9, 10, 11, 12])]
PLAN_WITH_ANCHOR += [([9, 10, 11, 12], [13, 14, 15])]
axes = pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])


def cut(volume, axis):
    """`[D,H,W]` with the slicing axis first; its own inverse."""
    return {"axial": volume, "coronal": volume.permute(1, 0, 2), "sagittal": volume.permute(2, 1, 0)}[axis]


def kept(config):
    """abar of each step."""
    return (1 - linear_betas(config.steps)).cumprod(0).tolist()


def record(generator):
    """Put a stub that halves the noisy slices in the network's place; returns what it will be given."""
    calls, bias = [], generator.net.head[2].bias

    def forward(x_t, x_0, index, observed, group, t, wanted):
        calls.append((x_t, x_0, index, observed, group, t))
        return 0.5 * x_t.flatten(0, 1)[~observed.flatten()] + bias - bias.detach()

    generator.net.forward = forward
    return calls


@pytest.fixture
def train(model, monkeypatch):
    """`train(**overrides)`: (generator, batch, what its network was given, losses) of one step on SETS."""

    def run(**overrides):
        drawn = iter(SETS)
        monkeypatch.setattr(cdpm, "draw_index_sets", lambda *_: next(drawn))
        generator = model(**overrides)
        calls = record(generator)
        batch = torch.rand(len(SETS), 1, 16, 16, 16) * 2 - 1
        untouched = batch.clone()
        losses = generator.training_step(lambda: batch)
        assert torch.equal(batch, untouched)
        (call,) = calls
        return generator, batch, call, losses

    return run


def noise_in(x_t, x_0, t, config):
    """The noise `[K,1,H,W]` of one volume and its share sqrt(1 - abar), with the share of x_0."""
    signal, spread = kept(config)[t] ** 0.5, (1 - kept(config)[t]) ** 0.5
    return (x_t - signal * x_0) / spread, signal, spread


@axes
@pytest.mark.parametrize("anchor", [False, True])
def test_slots_hold_the_sets_then_the_next_volume(train, axis, anchor):
    _, batch, (_, x_0, index, observed, group, _), _ = train(axis=axis, anchor=anchor)
    volumes = [cut(volume[0], axis).clone() for volume in batch]
    if anchor:
        for volume in volumes:
            volume[0] = -1
    for b, (condition, target) in enumerate(SETS):
        used = len(condition) + len(target)
        assert index[b, :used].tolist() == condition + target
        assert observed[b].tolist() == [True] * len(condition) + [False] * (SLOTS - len(condition))
        assert group[b].tolist() == [0] * used + [1] * (SLOTS - used)
        for slot in range(SLOTS):
            owner = volumes[b] if slot < used else volumes[(b + 1) % 3]
            assert torch.equal(x_0[b, slot, 0], owner[index[b, slot]])


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_loss_is_the_error_of_slices_not_given_over_all_slots(train, prediction):
    generator, _, (x_t, x_0, *_, t), losses = train(prediction=prediction)
    total = 0.0
    for b, (condition, _) in enumerate(SETS):
        noise, signal, spread = noise_in(x_t[b], x_0[b], t[b], generator.config)
        target = {"eps": noise, "x0": x_0[b], "v": signal * noise - spread * x_0[b]}[prediction]
        total += float((0.5 * x_t[b] - target)[len(condition) :].double().square().sum())
    assert float(losses["loss"]) == pytest.approx(total / (3 * SLOTS * 16 * 16), rel=1e-3)
    assert not losses["loss"].requires_grad


def test_every_slot_has_its_own_standard_normal_noise(train):
    generator, _, (x_t, x_0, *_, t), _ = train()
    noise = torch.stack([noise_in(x_t[b], x_0[b], t[b], generator.config)[0].flatten(1) for b in range(3)])
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05
    correlation = torch.corrcoef(noise.flatten(0, 1)) - torch.eye(3 * SLOTS)
    assert correlation.abs().max() < 0.35


def test_times_and_padding_are_uniform_and_sets_are_drawn_again(model):
    generator = model(steps=25)
    calls = record(generator)
    for _ in range(50):
        generator.training_step(lambda: torch.zeros(64, 1, 16, 16, 16))
    times = torch.stack([t for *_, t in calls])  # [50,64]
    count = torch.bincount(times.flatten(), minlength=25)
    assert len(count) == 25 and (count - 128).abs().max() < 60  # 5 standard deviations
    assert all(len(t.unique()) > 10 for t in times)
    index, group = (torch.stack([call[i] for call in calls]) for i in (2, 4))
    count = torch.bincount(index[group == 1], minlength=16)
    assert len(count) == 16 and count.min() > 0.8 * count.float().mean()
    assert len(index.flatten(0, 1)[:, :2].unique(dim=0)) > 200


def test_weights_move_by_adam_without_decay(model):
    generator = model()
    (optimizer,) = generator.optimizers.values()
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.AdamW and generator.clip_norm is None
    assert {id(p) for p in group["params"]} == {id(p) for p in generator.net.parameters()}
    settings = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
    assert {name: group[name] for name in settings} == settings
    assert CDPM.build_config("paper").learning_rate == 1e-4


def test_the_first_step_goes_against_the_gradient_of_the_loss(train, model):
    generator, _, (x_t, x_0, *_), _ = train(prediction="x0")
    bias = generator.net.head[2].bias
    errors = [(0.5 * x_t[b] - x_0[b])[len(condition) :] for b, (condition, _) in enumerate(SETS)]
    gradient = 2 * float(torch.cat(errors).sum()) / (3 * SLOTS * 16 * 16)
    assert float(bias.grad) == pytest.approx(gradient, rel=1e-3)
    before = model(prediction="x0").net.head[2].bias
    assert float((bias - before).detach()) == pytest.approx(-2e-3 * np.sign(gradient), rel=1e-3)


@pytest.mark.parametrize(
    ("ema", "warmup", "decays"),
    [(0.9, False, [0.9, 0.9]), (0.2, True, [2 / 11, 0.2]), (0.9, True, [2 / 11, 3 / 12])],
)
def test_average_keeps_its_share_of_the_past(model, ema, warmup, decays):
    generator = model(ema=ema, ema_warmup=warmup)
    for decay in decays:
        before = [p.clone() for p in generator.ema.parameters()]
        generator.training_step(lambda: torch.rand(2, 1, 16, 16, 16))
        for old, now, new in zip(before, generator.net.parameters(), generator.ema.parameters(), strict=True):
            assert torch.allclose(new, decay * old + (1 - decay) * now, atol=1e-6)
    assert not any(p.requires_grad for p in generator.ema.parameters())


def test_index_sets_have_the_published_statistics():
    rng = np.random.default_rng(0)
    draws = [draw_index_sets(rng, 20, 128) for _ in range(20_000)]
    sizes = np.array([(len(c), len(p)) for c, p in draws])
    total = sizes.sum(axis=1)
    assert total.max() <= 20 and sizes[:, 1].min() >= 1
    assert all(len({*c, *p}) == len(c) + len(p) for c, p in draws)
    assert abs((sizes[:, 0] == 0).mean() - 0.697) < 0.01
    assert abs((sizes[:, 0] >= 10).mean() - 0.10) < 0.01
    assert abs((total == 20).mean() - 0.14) < 0.01
    assert abs(np.mean([0 in c or 0 in p for c, p in draws]) - 0.038) < 0.01
    assert np.allclose(sizes.mean(axis=0), (2.3, 12.8), atol=0.15)
    assert abs(np.mean([max(c + p) - min(c + p) for c, p in draws]) - 65) < 1.5


@pytest.mark.parametrize(
    ("anchor", "counts", "first", "last_condition"),
    [(False, [10] * 12 + [8], 0, range(110, 120)), (True, [10] * 12 + [7], 1, range(111, 121))],
)
def test_stage_plan_covers_every_slice_once(anchor, counts, first, last_condition):
    plan = stage_plan(128, 10, anchor)
    assert [len(target) for _, target in plan] == counts
    assert [i for _, target in plan for i in target] == list(range(first, 128))
    assert plan[0][0] == ([0] if anchor else [])
    assert plan[-1][0] == list(last_condition)


def halve(noisy, given):
    """The stub's answer for the targets of one volume."""
    return 0.5 * noisy + (0.3 * given.mean() if len(given) else 0.1)


def answer_by_halving(generator):
    """Put a stub in the place of the averaged network; returns its calls as (condition, target, time)."""
    calls = []

    def forward(x_t, x_0, index, observed, group, t, wanted):
        given = int(observed[0].sum())
        assert observed[:, :given].all() and not observed[:, given:].any() and not group.any()
        assert (index == index[0]).all() and (t == t[0]).all()
        assert torch.equal(x_t[:, :given], x_0[:, :given])
        calls.append((index[0, :given].tolist(), index[0, given:].tolist(), int(t[0])))
        return torch.cat([halve(x[given:], known[:given]) for x, known in zip(x_t, x_0, strict=True)])

    generator.ema.forward = forward
    return calls


def denoise(config, given, count, times, stream):
    """All reverse steps of one stage of one volume, `prediction="x0"`; noise is drawn where needed only."""
    abar = kept(config)
    x = stream.normal(count, 1, 16, 16)[0]
    for t, after in itertools.pairwise(times):
        x_0 = halve(x, given).clamp(-1, 1)
        a, b = abar[t], abar[after]
        if config.ddim_steps is None:
            beta = 1 - a / b
            mean = b**0.5 * beta / (1 - a) * x_0 + (1 - beta) ** 0.5 * (1 - b) / (1 - a) * x
            variance = beta if config.variance == "large" else beta * (1 - b) / (1 - a)
            x = mean + variance**0.5 * stream.normal(*x.shape)[0]
        else:
            sigma = config.eta * ((1 - b) / (1 - a)) ** 0.5 * (1 - a / b) ** 0.5
            eps = (x - a**0.5 * x_0) / (1 - a) ** 0.5
            x = b**0.5 * x_0 + (1 - b - sigma**2) ** 0.5 * eps
            x = x + sigma * stream.normal(*x.shape)[0] if sigma else x
    return halve(x, given).clamp(-1, 1)


def sample_by_hand(config, seed, plan, times):
    stream = Noise([seed])
    volume = -torch.ones(16, 1, 16, 16)
    for condition, target in plan:
        volume[target] = denoise(config, volume[condition], len(target), times, stream)
    return cut(volume[:, 0], config.axis)


@pytest.mark.parametrize(
    "settings",
    [
        {"ddim_steps": 3, "eta": 0.0},
        {"ddim_steps": 3, "eta": 0.7},
        {"ddim_steps": None, "variance": "large"},
        {"ddim_steps": None, "variance": "small"},
        {"ddim_steps": 3, "anchor": True},
        {"ddim_steps": 3, "axis": "coronal"},
        {"ddim_steps": 3, "axis": "sagittal"},
    ],
)
def test_sampling_is_the_reverse_process_stage_after_stage(model, settings):
    generator = model(steps=25, prediction="x0", **settings)
    plan = PLAN_WITH_ANCHOR if settings.get("anchor") else PLAN
    times = [24, 16, 7] if settings["ddim_steps"] else list(range(24, -1, -1))
    calls = answer_by_halving(generator)
    volumes = generator.sample(Noise([5, 6]))
    assert calls == [(condition, target, t) for condition, target in plan for t in times]
    assert volumes.shape == (2, 1, 16, 16, 16)
    for volume, seed in zip(volumes, (5, 6), strict=True):
        expected = sample_by_hand(generator.config, seed, plan, times)
        assert torch.allclose(volume[0], expected, atol=1e-5)


def test_eta_adds_noise(model):
    quiet, noisy = (model(eta=eta).sample(Noise([1])) for eta in (0.0, 1.0))
    assert (quiet - noisy).abs().mean() > 1e-3


@axes
def test_the_network_gives_whole_volumes_in_range(model, axis):
    volume = model(axis=axis, ddim_steps=1).sample(Noise([1, 2]))
    assert volume.shape == (2, 1, 16, 16, 16)
    assert volume.abs().max() <= 1 and volume.std() > 0


def test_anchor_gives_a_blank_first_slice(model):
    volume = model(anchor=True, index_embedding=False).sample(Noise([1]))
    assert torch.equal(volume[:, :, 0], -torch.ones(1, 1, 16, 16))
    assert (volume[:, :, 1:] != -1).any()


def test_seams_vanish_on_smooth_volumes(model):
    """A network that knows the answer leaves no steps at stage borders."""
    generator = model(prediction="x0")
    truth = torch.sin(torch.arange(16) / 5)[:, None, None, None].expand(16, 1, 16, 16) * 0.5
    generator.ema.forward = lambda x_t, x_0, index, observed, group, t, wanted: truth[index[~observed]]
    assert torch.allclose(generator.sample(Noise([3]))[0, 0], truth[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stage_slices": 16}, "stage_slices"),
        ({"size": 20}, "multiple of 8"),
        ({"attention_sizes": (12,)}, r"among \[32, 16, 8, 4\]"),
        ({"heads": 3}, "heads must divide"),
        ({"ddim_steps": 1001}, "between 1 and 1000"),
        ({"ddim_steps": None, "eta": 0.5}, "eta must be 0 without ddim_steps"),
        ({"steps": 20}, "greater than or equal to 21"),
        ({"ddim_step": 4}, "Did you mean 'ddim_steps'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, reason):
    with pytest.raises(UsageError, match=reason):
        CDPM.build_config("tiny-x0", **settings)
