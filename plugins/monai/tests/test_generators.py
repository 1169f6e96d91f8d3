"""The three generators keep the contract, have the published networks, and compute what their formulas say."""

import math

import pytest
import torch
from mribench_monai.latent_diffusion import LatentDiffusion
from mribench_monai.rectified_flow import RectifiedFlow
from mribench_monai.unet import ddim
from mribench_monai.wavelet_diffusion import WaveletDiffusion, haar, subbands, volume

from mribench.errors import UsageError
from mribench.models import get_model
from mribench.models.stages import TwoStageGenerator
from mribench.runtime import Noise, seed_everything
from mribench.selftest import contract

GENERATORS = {
    "latent_diffusion": LatentDiffusion,
    "rectified_flow": RectifiedFlow,
    "wavelet_diffusion": WaveletDiffusion,
}


def smallest(name, **changes):
    small = {**GENERATORS[name].SMALLEST, **changes}
    if "shape" in changes:
        del small["size"]
    return contract.build(name, small)


@pytest.mark.parametrize("name", GENERATORS)
def test_mribench_finds_it_and_it_keeps_the_contract(name):
    assert get_model(name) is GENERATORS[name]
    results = list(contract.run(name, **GENERATORS[name].SMALLEST))
    assert len(results) == len(contract.GENERATOR_CHECKS)
    assert [(title, problem) for title, problem in results if problem] == []


def test_paper_presets_have_the_published_networks_and_settings():
    """Counts of MONAI's networks with the public settings; of the autoencoder it is that of the public weights."""
    counts = {name: kind.count_parameters(kind.build_config("paper")) for name, kind in GENERATORS.items()}
    assert counts == {
        "latent_diffusion": {"net": 475_381_763, "autoencoder": 13_766_248, "D": 11_048_769},
        "rectified_flow": {"net": 132_456_929},
        "wavelet_diffusion": {"net": 74_192_648},
    }
    brain = LatentDiffusion.build_config("paper")
    assert [side // brain.factor for side in brain.sides] == [20, 28, 20]


@pytest.mark.parametrize("name", GENERATORS)
def test_it_makes_volumes_that_are_no_cubes(name):
    model = smallest(name, shape=[16, 24, 32])
    contract._make_steps(model, 1)
    assert model.eval().sample(Noise([1])).shape == (1, 1, 32, 24, 16)
    with pytest.raises(UsageError, match="multiple of"):
        GENERATORS[name].build_config("tiny", shape=[32, 40, 36])


def test_a_paper_preset_of_a_box_can_be_given_one_side():
    assert LatentDiffusion.build_config("paper", size=128).array_shape == (128, 128, 128)


def test_haar_coefficients_keep_the_volume_and_its_energy():
    x = torch.rand(2, 1, 8, 12, 16) * 2 - 1
    bands = subbands(x)
    assert bands.shape == (2, 8, 4, 6, 8) and float(bands[:, 0].abs().max()) <= 1
    assert torch.allclose(volume(bands), x, atol=1e-6)
    flat = haar(x).flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(8), atol=1e-6)
    unscaled = torch.cat([bands[:, :1] * 3, bands[:, 1:]], dim=1)
    assert float(unscaled.square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-5)
    constant = subbands(torch.ones(1, 1, 4, 4, 4))
    assert torch.allclose(constant[:, 0], torch.tensor(2 * math.sqrt(2) / 3))
    assert float(constant[:, 1:].abs().max()) < 1e-6


def test_rectified_flow_follows_a_known_velocity_to_the_volume():
    """Where the velocity is (x - e) for every e, Euler steps of any number end at x."""
    model = smallest("rectified_flow")
    target = 0.3 * torch.ones(1, 1, 16, 16, 16)
    start = Noise([5]).normal(1, 16, 16, 16)
    model.ema.forward = lambda x, t: target - start
    assert torch.allclose(model.sample(Noise([5])), target, atol=1e-3)


def test_the_velocity_of_rectified_flow_is_learned_at_its_own_place():
    """A U-Net that answers 0 has the mean square of volumes minus noise as its loss."""
    model = smallest("rectified_flow")
    batch = torch.zeros(2, 1, 16, 16, 16)
    seed_everything(3)
    loss = model.training_step(lambda: batch)["loss"]  # MONAI starts its last layer at 0
    seed_everything(3)
    assert float(loss) == pytest.approx(float(torch.randn_like(batch).square().mean()))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_ends_at_the_latent_that_the_answers_mean(prediction):
    model = smallest("latent_diffusion", prediction=prediction)
    schedule, clean = (
        model._schedule,
        3 * torch.ones(1, 3, 8, 8, 8),
    )  # outside [-1,1]: latents are not clipped

    def answer(x, t):
        a = schedule.alphas_cumprod[t].reshape(-1, 1, 1, 1, 1)
        noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
        return noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean

    assert torch.allclose(ddim(schedule, answer, Noise([1]).normal(3, 8, 8, 8), 10), clean, atol=1e-2)


def test_latents_of_the_second_stage_have_deviation_one_and_the_autoencoder_rests():
    model = smallest("latent_diffusion")
    contract._make_steps(model, 1)
    before = {name: value.clone() for name, value in model.autoencoder.named_parameters()}
    scale = float(model.latent.scale)
    model.training_step(contract._batches(model))
    assert model.stage == 1 and float(model.latent.scale) == scale > 0
    assert all(torch.equal(value, before[name]) for name, value in model.autoencoder.named_parameters())
    codes = model._latents(contract._batches(model)())
    assert 0.5 < float(codes.std()) < 2


def test_the_discriminator_waits_for_its_share_of_the_first_stage():
    model = smallest("latent_diffusion", adversarial_from=0.5, budget=100, first_share=0.4)
    model.begin_step(0, 0)
    assert "D" not in model.training_step(contract._batches(model))
    model.begin_step(5, 20)
    assert "D" in model.training_step(contract._batches(model))
    assert isinstance(model, TwoStageGenerator) and model.stage == 0
