"""The family's networks: counts and layers of the published tables, the fused convolution, heads, norms."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mribench.models import get_model
from mribench.models.blocks import CodeBatchNorm, CodeCritic, UpConv, VolumeCritic, VolumeGenerator, trunk

LINEAR, TRANSPOSED, CRITIC, ENCODER = 37_449_280, 37_416_512, 11_049_665, 43_785_896
CODE_CRITIC, VAE_ENCODER = 20_901_889, 149_344_912
COUNTS = {
    "vae_gan": {"G": LINEAR, "E": VAE_ENCODER, "D": CRITIC},
    "gan_gp": {"G": LINEAR, "D": CRITIC},
    "alpha_wgan": {"G": TRANSPOSED, "E": ENCODER, "D": CRITIC, "C": CODE_CRITIC},
    "cce_gan": {"G": TRANSPOSED, "E": ENCODER, "D": CRITIC},
}
NATIVE_128 = {
    LINEAR: 37_503_776,
    TRANSPOSED: 37_471_008,
    CRITIC: 11_178_849,
    ENCODER: 43_915_080,
    VAE_ENCODER: 149_474_096,
    CODE_CRITIC: CODE_CRITIC,
}
WIDE, DEEP = (64, 128, 256, 512), (32, 64, 128, 256, 512)
ROUTES = {"64": (64, WIDE), "upsampled": (128, WIDE), "native": (128, DEEP)}
routes = pytest.mark.parametrize("route", ROUTES)


@functools.cache
def empty(name, preset):
    """The model of a preset without memory for its weights."""
    kind = get_model(name)
    with torch.device("meta"):
        return kind(kind.build_config(preset))


def layers(module, x):
    """Every layer but pools that `x` runs through: type, channels, kernel, stride, padding, bias, what comes out."""
    rows = []

    def note(layer, _, out):
        text = type(layer).__name__
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            k, s, p = layer.kernel_size[0], layer.stride[0], layer.padding[0]
            bias = "bias" if layer.bias is not None else "no bias"
            text += f" {layer.in_channels}>{layer.out_channels} k{k} s{s} p{p} {bias}"
        rows.append(
            f"{text} = {out.shape[1]}x{out.shape[2]}" if out.dim() == 5 else f"{text} = {out.shape[1]}"
        )

    pools = nn.Identity | nn.AdaptiveAvgPool3d
    leaves = [m for m in module.modules() if not list(m.children()) and not isinstance(m, pools)]
    hooks = [m.register_forward_hook(note) for m in leaves]
    module(x)
    for hook in hooks:
        hook.remove()
    return rows


def expected_critic(side, channels, outputs):
    rows, before = [], 1
    for width in channels:
        side //= 2
        rows.append(f"CriticConv3d {before}>{width} k4 s2 p1 bias = {width}x{side}")
        if before > 1:
            rows.append(f"BatchNorm3d = {width}x{side}")
        rows.append(f"LeakyReLU = {width}x{side}")
        before = width
    head = "s1 p0" if side == 4 else "s2 p1"
    return [*rows, f"CriticConv3d 512>{outputs} k4 {head} bias = {outputs}x{1 if side == 4 else 4}"]


def expected_stages(channels):
    rows, side = ["BatchNorm3d = 512x4", "ReLU = 512x4"], 4
    for before, width in zip(channels[::-1], [*channels[-2::-1], 1], strict=True):
        side *= 2
        kind = "UpConv" if width > 1 else "LastUpConv"
        rows.append(f"{kind} {before}>{width} k3 s1 p1 no bias = {width}x{side}")
        after = ("BatchNorm3d", "ReLU") if width > 1 else ("Tanh",)
        rows += [f"{layer} = {width}x{side}" for layer in after]
    return rows


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("preset", ["small", "paper", "paper-native"])
def test_parameters_of_every_network_are_those_of_the_public_code(name, preset):
    native = preset == "paper-native"
    expected = {net: NATIVE_128[count] if native else count for net, count in COUNTS[name].items()}
    assert empty(name, preset).parameter_count() == expected


def test_totals_and_parts_are_those_of_the_public_code():
    assert sum(empty("alpha_wgan", "compat").parameter_count().values()) == 113_153_962
    assert sum(empty("cce_gan", "small").parameter_count().values()) == 92_252_073
    assert sum(empty("gan_gp", "compat").parameter_count().values()) == LINEAR + CRITIC
    with torch.device("meta"):
        assert sum(p.numel() for p in trunk(WIDE, "batch").parameters()) == 11_016_896
        assert sum(p.numel() for p in CodeCritic(1000, 750).parameters()) == 1_317_751


@routes
@pytest.mark.parametrize("outputs", [1, 1000])
def test_critic_and_encoder_have_the_published_layers(route, outputs):
    size, channels = ROUTES[route]
    with torch.device("meta"):
        critic, x = VolumeCritic((size,) * 3, channels, outputs), torch.empty(2, 1, size, size, size)
    assert layers(critic, x) == expected_critic(size, channels, outputs)
    assert critic(x).shape == (2, outputs)
    slopes = {m.negative_slope for m in critic.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}


@routes
@pytest.mark.parametrize("stem", ["linear", "transposed"])
def test_generator_has_the_published_layers(route, stem):
    size, channels = ROUTES[route]
    with torch.device("meta"):
        generator, code = VolumeGenerator((size,) * 3, channels, 1000, stem), torch.empty(2, 1000)
    rows = layers(generator, code)
    if stem == "linear":
        head = ["Linear = 32768", "Unflatten = 512x4"]
        assert generator.stem[0].bias is not None
    else:
        head = ["Unflatten = 1000x1", "ConvTranspose3d 1000>512 k4 s1 p0 no bias = 512x4"]
    assert rows == head + expected_stages(channels)
    assert generator(code).shape == (2, 1, size, size, size)


def test_code_critic_has_the_published_layers():
    with torch.device("meta"):
        rows = layers(CodeCritic(1000, 4096), torch.empty(2, 1000))
    hidden = ["Linear = 4096", "CodeBatchNorm = 4096", "LeakyReLU = 4096"]
    assert rows == [*hidden, *hidden, "Linear = 1"]


def test_vae_encoder_has_two_equal_heads_on_4_cubed_features():
    for preset, side in {"small": 64, "paper": 128, "paper-native": 128}.items():
        encoder = empty("vae_gan", preset).E
        x = torch.empty(2, 1, side, side, side, device="meta")
        head = ["Linear = 2048", "CodeBatchNorm = 2048", "ReLU = 2048", "Linear = 1000"]
        assert layers(encoder, x)[-8:] == [*head, *head]
        assert encoder.mean[0].in_features == 512 * 4**3
        mean, log_variance = encoder(x)
        assert mean.shape == log_variance.shape == (2, 1000)


def test_normalisation_keeps_the_defaults_of_the_public_code():
    norms = [
        m for m in empty("alpha_wgan", "small").modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    assert len(norms) == 4 + 3 + 3 + 2  # G, E, D, C
    assert {(m.eps, m.momentum, m.affine, m.track_running_stats) for m in norms} == {(1e-5, 0.1, True, True)}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 4), (1, 3, 2, 3, 5)])
def test_upconv_equals_enlarging_then_convolving(bias, shape):
    layer = UpConv(3, 4, bias).double()
    plain = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv3d(3, 4, 3, padding=1, bias=bias)).double()
    plain[1].load_state_dict(layer.state_dict())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    mine, theirs = layer(x), plain(x)
    torch.testing.assert_close(mine, theirs)
    push = torch.randn_like(theirs)
    gradients = torch.autograd.grad(mine, [x, *layer.parameters()], push)
    expected = torch.autograd.grad(theirs, [x, *plain[1].parameters()], push)
    torch.testing.assert_close(gradients, expected)


def test_upconv_starts_like_a_3_cubed_convolution():
    weight = UpConv(16, 32, bias=False).weight
    bound = 1 / math.sqrt(16 * 27)  # torch's default: uniform in +-1/sqrt(fan in)
    assert 0.99 * bound < weight.abs().max() <= bound


def test_generator_computes_the_published_function():
    generator = VolumeGenerator((32,) * 3, (4, 8), 6, "linear")  # 16^3 enlarged
    code = torch.randn(3, 6)
    linear, *norms = generator.stem[0], generator.stages[0], generator.stages[3]
    x = F.relu(norms[0](linear(code).reshape(3, 8, 4, 4, 4)))
    x = F.conv3d(F.interpolate(x, scale_factor=2), generator.stages[2].weight, padding=1)
    x = F.conv3d(F.interpolate(F.relu(norms[1](x)), scale_factor=2), generator.stages[5].weight, padding=1)
    blocks = torch.tanh(x).repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    torch.testing.assert_close(generator(code), blocks, rtol=0, atol=1e-5)
    assert blocks.abs().max() < 1


def test_transposed_stem_projects_the_code_without_bias():
    generator = VolumeGenerator((8,) * 3, (5,), 6, "transposed")
    code = torch.randn(3, 6)
    expected = torch.einsum("bl,lcdhw->bcdhw", code, generator.stem[1].weight)
    torch.testing.assert_close(generator.stem(code), expected)


def test_native_head_covers_4_cubed_whole():
    critic, x = VolumeCritic((16,) * 3, (4, 8), 3), torch.randn(2, 1, 16, 16, 16)
    features = critic.trunk(x)
    expected = torch.einsum("bcdhw,ocdhw->bo", features, critic.head.weight) + critic.head.bias
    torch.testing.assert_close(critic(x), expected)


def test_upsampled_head_is_the_mean_of_4_cubed_scores():
    critic, x = VolumeCritic((32,) * 3, (4, 8), 3), torch.randn(2, 1, 32, 32, 32)
    scores = F.conv3d(critic.trunk(x), critic.head.weight, critic.head.bias, stride=2, padding=1)
    assert scores.shape == (2, 3, 4, 4, 4)
    torch.testing.assert_close(critic(x), scores.sum((2, 3, 4)) / 64)


def test_patch_head_scores_2_cubed_positions():
    critic, x = VolumeCritic((16,) * 3, (4, 8), 1, patch=True), torch.randn(2, 1, 16, 16, 16)
    scores = F.conv3d(critic.trunk(x), critic.head.weight, critic.head.bias, stride=2, padding=1)
    assert scores.shape == (2, 1, 2, 2, 2)
    torch.testing.assert_close(critic(x), scores.flatten(1))  # unpooled: the public penalty sums all eight


def test_group_norm_does_not_couple_the_volumes_of_a_batch():
    x = torch.randn(3, 1, 16, 16, 16)
    alone = VolumeCritic((16,) * 3, (8, 16), 1, "group")
    coupled = VolumeCritic((16,) * 3, (8, 16), 1, "batch")
    torch.testing.assert_close(alone(x)[:1], alone(x[:1]))
    assert not torch.allclose(coupled(x)[:1], coupled(x[:1]), atol=1e-3)
    kinds = [m for m in trunk((8, 16, 12), "group") if isinstance(m, nn.GroupNorm)]
    assert [(m.num_groups, m.num_channels, m.affine) for m in kinds] == [(8, 16, True), (4, 12, True)]


def test_code_norm_takes_one_code_by_its_running_statistics():
    norm = CodeBatchNorm(5)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    norm(torch.randn(64, 5) * 3 + 2)
    mean, variance, seen = (
        norm.running_mean.clone(),
        norm.running_var.clone(),
        norm.num_batches_tracked.clone(),
    )
    code = torch.randn(1, 5, requires_grad=True)
    expected = (code - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(code), expected)
    assert torch.autograd.grad(norm(code).sum(), code)[0].abs().min() > 0
    assert torch.equal(norm.running_mean, mean) and torch.equal(norm.running_var, variance)
    assert norm.num_batches_tracked == seen


def test_code_norm_is_batch_norm_for_several_codes():
    norm, plain = CodeBatchNorm(5), nn.BatchNorm1d(5)
    for train in (True, False):
        codes = torch.randn(7, 5) * 2 + 1
        torch.testing.assert_close(norm.train(train)(codes), plain.train(train)(codes), rtol=0, atol=0)
        assert torch.equal(norm.running_var, plain.running_var)


def test_volumes_and_scores_are_float32_under_autocast():
    generator, critic = VolumeGenerator((16,) * 3, (8, 16), 12, "linear"), VolumeCritic((16,) * 3, (8, 16), 1)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        volume = generator(torch.randn(2, 12))
        score = critic(volume)
    assert volume.dtype == score.dtype == torch.float32
    assert len(volume.unique()) > 2000  # bf16 has 256 numbers between 0.5 and 1
