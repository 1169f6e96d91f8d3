"""What each prediction means at a noise level, against its definition; the levels that training draws."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from mribench.errors import UsageError
from mribench.models.cdpm import CDPM
from mribench.models.diffusion import Diffusion, cosine_betas, linear_betas
from mribench.models.dpm3d import DPM3D
from mribench.models.noise_levels import draw_flow_sigma, draw_sigma, min_snr_weight, read
from mribench.models.solvers import karras_levels, solve
from mribench.runtime import Noise

PREDICTIONS = ["eps", "x0", "v", "edm", "flow"]
CPU = torch.device("cpu")


@pytest.fixture
def example():
    torch.manual_seed(0)
    x_0, noise = torch.rand(3, 1, 4).double() * 2 - 1, torch.randn(3, 1, 4).double()
    sigma = torch.tensor([0.05, 1.0, 12.0]).double()
    return x_0, noise, sigma, x_0 + sigma[:, None, None] * noise


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_gives_back_the_volume(example, prediction):
    x_0, _, sigma, z = example
    reading = read(prediction, sigma, Diffusion(linear_betas(1000), "eps"))
    assert torch.allclose(reading.estimate(z, reading.target(x_0, z)), x_0, atol=1e-5)
    assert float(reading.estimate(z, 1000 + z).abs().max()) <= 1


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_at_the_steps_of_the_schedule_readings_are_those_of_the_schedule(prediction):
    process = Diffusion(linear_betas(1000), prediction)
    t = torch.tensor([0, 300, 999])
    x_0, noise = torch.rand(3, 5).double() * 2 - 1, torch.randn(3, 5).double()
    sigma = ((1 - process.signal[t]) / process.signal[t]).sqrt()
    z = x_0 + sigma[:, None] * noise
    reading = read(prediction, sigma, process)
    assert torch.allclose(reading.given(z), process.add_noise(x_0, noise, t), atol=1e-5)
    assert torch.allclose(reading.target(x_0, z), process.target(x_0, noise, t), atol=1e-4)
    assert torch.allclose(reading.time, t.float(), atol=1e-3)


def test_flow_goes_straight_from_volume_to_noise(example):
    x_0, noise, sigma, z = example
    reading = read("flow", sigma, Diffusion(linear_betas(1000), "eps"))
    time = (sigma / (1 + sigma))[:, None, None]
    assert torch.allclose(reading.given(z), (1 - time) * x_0 + time * noise, atol=1e-6)
    assert torch.allclose(reading.target(x_0, z), noise - x_0, atol=1e-4)
    assert torch.allclose(reading.time, 1000 * time.flatten().float())


def test_edm_is_the_table_of_karras(example):
    _, _, sigma, _ = example
    reading = read("edm", sigma, Diffusion(linear_betas(500), "eps"))
    total = (sigma**2 + 0.25).float()
    assert torch.allclose(reading.scale, total.rsqrt())
    assert torch.allclose(reading.skip, 0.25 / total)
    assert torch.allclose(reading.out, sigma.float() * 0.5 * total.rsqrt())
    assert torch.allclose(reading.time, (500 + 50 * sigma.log().float()) / 2)


@pytest.mark.parametrize("betas", [linear_betas(1000), cosine_betas(250)])
def test_times_between_the_steps_follow_the_noise(betas):
    process = Diffusion(betas, "eps")
    table = ((1 - process.signal) / process.signal).sqrt()
    wanted = torch.tensor([7, 100])
    assert torch.allclose(process.time_of(table[wanted]), wanted.double(), atol=1e-9)
    between = (table[wanted] * table[wanted + 1]).sqrt()
    assert torch.allclose(process.time_of(between), wanted.double() + 0.5, atol=1e-9)
    ends = process.time_of(torch.tensor([1e-9, 1e9]).double())
    assert ends.tolist() == [0, len(betas) - 1]


def test_levels_have_the_law_that_was_asked_for():
    torch.manual_seed(0)
    drawn = draw_sigma(50_000, -0.8, 1.4, CPU).log()
    assert float(drawn.mean()) == pytest.approx(-0.8, abs=0.03)
    assert float(drawn.std()) == pytest.approx(1.4, abs=0.02)
    sigma = draw_flow_sigma(50_000, CPU)
    time = sigma / (1 + sigma)
    assert float(time.min()) >= 0.001 and float(time.max()) <= 0.999
    assert (torch.histc(time, 10, 0, 1) - 5000).abs().max() < 350  # 5 standard deviations


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_makes_the_error_of_the_volume_weigh_min_snr(example, prediction):
    x_0, _, sigma, z = example
    reading = read(prediction, sigma, Diffusion(linear_betas(1000), "eps"))
    answer = reading.target(x_0, z)
    off = answer + 1e-3 * torch.randn_like(answer)
    column = reading.out[:, None, None]
    of_answer = (off - answer).square() * min_snr_weight(sigma, reading)[:, None, None]
    of_volume = (column * (off - answer)).square() * (1 / sigma**2).clamp(max=5)[:, None, None]
    assert torch.allclose(of_answer, of_volume, rtol=1e-4)


RECIPES = {
    "edm": {"prediction": "edm", "levels": "log_normal", "sampler": "dpmpp", "calls": 4},
    "flow": {"prediction": "flow", "levels": "log_normal", "sampler": "heun", "calls": 5},
    "flow-uniform": {"prediction": "flow", "sampler": "ddim", "calls": 4, "eta": 0.5},
    "v-log-normal": {"prediction": "v", "levels": "log_normal", "sampler": "dpmpp_2s", "calls": 5},
    "eps-min-snr": {"prediction": "eps", "weighting": "min_snr", "sampler": "ancestral", "calls": 4},
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", [CDPM, DPM3D])
def test_both_models_train_and_sample_with_every_recipe(kind, recipe):
    preset = "tiny-x0" if kind is CDPM else "tiny"
    settings = {**kind.SMALLEST, "mixing_sizes": (16, 8)} if kind is CDPM else kind.SMALLEST
    settings = {**settings, "eta": 0.0, "ddim_steps": None, **RECIPES[recipe]}
    model = kind(kind.build_config(preset, **settings))
    before = copy.deepcopy(model.net.head[2].weight)
    for _ in range(4):
        losses = model.training_step(lambda: torch.rand(2, 1, 16, 16, 16) * 2 - 1)
        assert math.isfinite(losses["loss"])
    assert not torch.equal(before, model.net.head[2].weight)
    volumes = model.sample(Noise([1, 2]))
    assert volumes.shape[0] == 2 and float(volumes.abs().max()) <= 1 and float(volumes.std()) > 0
    assert torch.allclose(model.sample(Noise([2]))[0], volumes[1], atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_all_predictions_lead_to_the_same_volumes(prediction):
    """Networks that mean the same denoiser, each in its own prediction, give the same samples."""
    settings = {
        "ddim_steps": None,
        "levels": "log_normal",
        "sampler": "dpmpp",
        "calls": 8,
        "sigma_max": 20,
        "sigma_min": 0.03,
    }
    model = DPM3D(
        DPM3D.build_config("tiny", **{**DPM3D.SMALLEST, **settings, "eta": 0.0, "prediction": prediction})
    )

    def predict(x, times):
        sigma = {
            "edm": ((times - 500) / 50).exp(),
            "flow": times / (1000 - times),
        }.get(prediction)
        if sigma is None:
            table = ((1 - model.diffusion.signal) / model.diffusion.signal).log() / 2
            left = times.floor().long().clamp(max=998)
            sigma = (table[left] + (times - left) * (table[left + 1] - table[left])).exp()
        reading = read(prediction, sigma.double(), model.diffusion)
        z = x / reading.scale.reshape(-1, 1, 1)
        return reading.target(0.09 / (0.09 + sigma.reshape(-1, 1, 1) ** 2) * z, z)

    made = model.denoise(predict, Noise([0, 1]), (8, 8))
    levels = karras_levels(20, 0.03, 8)
    expected = solve(
        "dpmpp",
        lambda z, sigma: (0.09 / (0.09 + sigma**2) * z).clamp(-1, 1),
        Noise([0, 1]),
        (8, 8),
        levels,
        0.0,
    )
    assert torch.allclose(made, expected, atol=1e-4)
    assert 0.25 < float(made.std()) < 0.35


def test_a_sampler_replaces_the_ddim_of_a_preset_and_the_other_way_round():
    better = CDPM.build_config("tiny-x0", sampler="dpmpp", calls=20)
    assert (better.sampler, better.calls, better.ddim_steps) == ("dpmpp", 20, None)
    back = CDPM.merge(better.model_dump(), {"ddim_steps": 5})
    assert CDPM.read_config(back).ddim_steps == 5 and CDPM.read_config(back).sampler is None
    assert CDPM.build_config("paper", sampler="dpmpp").calls is None
    with pytest.raises(UsageError, match="ddim_steps must be absent"):
        CDPM.build_config("tiny", ddim_steps=5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"prediction": "flow"}, "flow needs a sampler"),
        ({"prediction": "edm", "sampler": "dpmpp"}, "edm needs levels=log_normal"),
        ({"calls": 20}, "calls can be set with a sampler only"),
        ({"sampler": "dpmpp", "sigma_max": 1, "sigma_min": 2}, "sigma_min must be less"),
        ({"sampler": "euler"}, "sampler"),
        ({"mixing_sizes": (12,)}, "mixing_sizes must be among"),
        ({"mixing_sizes": (32,), "tail_skip": False}, "need tail_skip"),
        ({"windows": 0.5, "stage_slices": 10}, "twice stage_slices"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, reason):
    with pytest.raises(UsageError, match=reason):
        CDPM.build_config("tiny-x0", **settings)
