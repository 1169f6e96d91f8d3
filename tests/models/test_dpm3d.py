"""The recipe of 3D-DPM: slabs, training steps worked out by hand, averaging, sampling."""

from __future__ import annotations

import itertools

import pytest
import torch

from mribench.errors import UsageError
from mribench.models.diffusion import cosine_betas, linear_betas
from mribench.models.dpm3d import DPM3D
from mribench.runtime import Noise

SMALL = {
    "size": 16,
    "batch_size": 3,
    "base": 8,
    "multipliers": (1, 2),
    "attention_sizes": (8,),
    "schedule": "cosine",
    "steps": 250,
    "ddim_steps": 3,
    "eta": 0.0,
    "ema_start": 0,
}
predictions = pytest.mark.parametrize("prediction", ["eps", "x0", "v"])


@pytest.fixture
def model(jitter):
    """`model(**overrides)`: the tiny preset at 16^3 with jittered weights, different ones in the average."""

    def build(**overrides) -> DPM3D:
        torch.manual_seed(0)
        generator = DPM3D(DPM3D.build_config("tiny", **{**SMALL, **overrides}))
        jitter(jitter(generator.ema))
        jitter(generator.net)
        return generator

    return build


def record(generator):
    """Put a stub that halves its input in the network's place; returns the (x_t, t) it will be given."""
    calls, bias = [], generator.net.head[2].bias

    def forward(x, t):
        calls.append((x, t))
        return 0.5 * x + bias - bias.detach()

    generator.net.forward = forward
    return calls


def volumes(count=3):
    return torch.rand(count, 1, 16, 16, 16) * 2 - 1


def parts(x_t, x_0, t, betas):
    """Noise `[D,H,W]` of one volume, and the shares of signal and noise."""
    kept = float((1 - betas[: int(t) + 1]).prod())
    signal, spread = kept**0.5, (1 - kept) ** 0.5
    return (x_t - signal * x_0) / spread, signal, spread


@pytest.mark.parametrize("size", [128, 64, 32])
def test_slab_is_the_central_quarter(size):
    expected = {128: (48, 80), 64: (24, 40), 32: (12, 20)}[size]
    with torch.device("meta"):
        assert DPM3D(DPM3D.build_config("tiny", size=size, attention_sizes=())).slab == expected
        assert DPM3D(DPM3D.build_config("tiny", whole_volume=True)).slab is None


@pytest.mark.parametrize("preset", ["paper", "paper-2022", "small", "tiny"])
def test_presets_can_be_built(preset):
    with torch.device("meta"):
        count = DPM3D(DPM3D.build_config(preset)).parameter_count()["net"]
    assert count == 40_222_977 or not preset.startswith("paper")


def test_paper_preset_is_med_ddpm():
    config = DPM3D.build_config("paper").model_dump()
    expected = {"size": 128, "batch_size": 1, "accumulation": 2, "budget": 200_000, "whole_volume": False}
    expected |= {"schedule": "cosine", "steps": 250, "prediction": "eps", "loss": "l1", "variance": "small"}
    expected |= {"learning_rate": 1e-5, "ema": 0.995, "ema_every": 10, "ema_start": 2000, "ddim_steps": None}
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedule_is_the_one_chosen(model, schedule):
    expected = {"cosine": cosine_betas, "linear": linear_betas}[schedule](40)
    assert torch.equal(model(schedule=schedule, steps=40).diffusion.betas, expected)


@predictions
@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("whole_volume", [False, True])
def test_loss_is_the_mean_error_over_the_slab(model, prediction, loss, whole_volume):
    generator = model(prediction=prediction, loss=loss, whole_volume=whole_volume, schedule="linear")
    calls, batch = record(generator), volumes()
    losses = generator.training_step(lambda: batch)
    ((x_t, t),) = calls
    clean = batch if whole_volume else batch[:, :, 6:10]
    assert x_t.shape == clean.shape
    total = 0.0
    for b in range(3):
        noise, signal, spread = parts(x_t[b], clean[b], t[b], generator.diffusion.betas)
        assert abs(float(noise.mean())) < 0.15 and abs(float(noise.std()) - 1) < 0.15
        target = {"eps": noise, "x0": clean[b], "v": signal * noise - spread * clean[b]}[prediction]
        error = (0.5 * x_t[b] - target).double()
        total += float((error.abs() if loss == "l1" else error.square()).mean()) / 3
    assert float(losses["loss"]) == pytest.approx(total, rel=1e-3)
    assert not losses["loss"].requires_grad


def test_accumulated_batches_make_one_step_down_their_mean(model):
    generator = model(accumulation=2, batch_size=1, prediction="x0", loss="l2")
    calls, batches = record(generator), [volumes(1), volumes(1)]
    bias = generator.net.head[2].bias
    before, queue = float(bias.detach()), list(batches)
    losses = generator.training_step(lambda: queue.pop(0))
    assert not queue and len(calls) == 2
    errors = [0.5 * x - b[:, :, 6:10] for (x, _), b in zip(calls, batches, strict=True)]
    gradient = sum(2 * float(e.mean()) for e in errors) / 2
    assert float(bias.grad) == pytest.approx(gradient, rel=1e-3)
    assert float(bias.detach()) - before == pytest.approx(-2e-3 if gradient > 0 else 2e-3, rel=1e-3)
    assert float(losses["loss"]) == pytest.approx(sum(float(e.square().mean()) for e in errors) / 2, rel=1e-3)


def test_times_are_uniform_and_each_volume_has_its_own(model):
    generator = model(steps=25)
    calls = record(generator)
    batch = torch.zeros(64, 1, 16, 16, 16)
    for _ in range(50):
        generator.training_step(lambda: batch)
    times = torch.stack([t for _, t in calls])
    count = torch.bincount(times.flatten(), minlength=25)
    assert len(count) == 25 and (count - 128).abs().max() < 60  # 5 standard deviations
    assert all(len(t.unique()) > 10 for t in times)


def test_weights_move_by_adam(model):
    generator = model()
    (optimizer,) = generator.optimizers.values()
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.Adam and generator.clip_norm is None
    assert {id(p) for p in group["params"]} == {id(p) for p in generator.net.parameters()}
    settings = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    assert {name: group[name] for name in settings} == settings


def test_average_is_a_copy_first_and_then_keeps_its_share(model):
    generator = model(ema=0.75, ema_every=2, ema_start=3)
    weights = list(zip(generator.net.parameters(), generator.ema.parameters(), strict=True))
    for step, decay in enumerate([0.0, None, 0.0, None, 0.75, None]):  # None = not this time
        old = [p.clone() for _, p in weights]
        generator.training_step(volumes)
        for (now, new), before in zip(weights, old, strict=True):
            if decay is None:
                assert torch.equal(new, before), step
            else:
                assert torch.allclose(new, decay * before + (1 - decay) * now, atol=1e-6), step
    assert not any(p.requires_grad for p in generator.ema.parameters())


def test_checkpointing_trains_the_same_weights(model):
    trained = []
    for checkpoint_blocks in (False, True):
        generator = model(checkpoint_blocks=checkpoint_blocks, accumulation=2)
        torch.manual_seed(1)
        generator.training_step(volumes)
        trained.append(generator.net.state_dict())
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


@pytest.mark.parametrize("whole_volume", [False, True])
def test_samples_come_from_the_averaged_network_at_all_slices_of_the_slab(model, whole_volume):
    generator = model(whole_volume=whole_volume, steps=25, prediction="x0", schedule="linear")
    times = []

    def forward(x, t):
        times.append(t.tolist())
        return 0.5 * x

    generator.ema.forward = forward
    depth = 16 if whole_volume else 4
    sample = generator.sample(Noise([5, 6]))
    assert times == [[24, 24], [16, 16], [7, 7]]
    x = Noise([5, 6]).normal(1, depth, 16, 16)
    kept = (1 - linear_betas(25)).cumprod(0).tolist()
    for t, after in itertools.pairwise([24, 16, 7]):
        a, b = kept[t], kept[after]
        x_0 = (0.5 * x).clamp(-1, 1)
        x = b**0.5 * x_0 + (1 - b) ** 0.5 * (x - a**0.5 * x_0) / (1 - a) ** 0.5
    assert torch.allclose(sample, (0.5 * x).clamp(-1, 1), atol=1e-5)


@pytest.mark.parametrize(
    "changed", [{"ddim_steps": None}, {"eta": 1.0}, {"ddim_steps": None, "variance": "large"}]
)
def test_sampler_settings_reach_the_sampler(model, changed):
    usual = {"steps": 25, "ddim_steps": None if "variance" in changed else 3}
    quiet, other = (model(**s).sample(Noise([1])) for s in (usual, {**usual, **changed}))
    assert quiet.shape == other.shape == (1, 1, 4, 16, 16)
    assert (quiet - other).abs().mean() > 1e-3 and other.abs().max() <= 1
    assert set(changed) <= set(DPM3D.sampler_settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": 36, "multipliers": (1, 1), "attention_sizes": ()}, "multiple of 8"),
        ({"multipliers": (1,) * 5}, "8 slices made must be a multiple of 16"),
        ({"size": 36, "whole_volume": True}, "size must be a multiple of 8"),
        ({"attention_sizes": (12,)}, r"among \[32, 16, 8, 4\]"),
        ({"ddim_steps": 1001}, "between 1 and 1000"),
        ({"ddim_steps": None}, "eta must be 0 without ddim_steps"),
        ({"steps": 20}, "greater than or equal to 21"),
        ({"slab": 4}, "no setting 'slab'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, reason):
    with pytest.raises(UsageError, match=reason):
        DPM3D.build_config("tiny", **settings)


def test_whole_volumes_may_have_any_size_that_halves(model):
    generator = model(whole_volume=True, size=12, attention_sizes=(6,))
    assert generator.sample(Noise([1])).shape == (1, 1, 12, 12, 12)
