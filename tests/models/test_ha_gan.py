"""HA-GAN: layer tables and counts, the slab rule, losses worked out by hand, who learns from whom."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mribench.errors import UsageError
from mribench.models.blocks import UpConv
from mribench.models.ha_gan import HAGAN
from mribench.runtime import Noise, seed_everything

NARROW = {"width": 8, "latent": 12, "batch_size": 2, "train_encoders": True}


def build(**overrides):
    """The tiny preset, narrower, with encoders and seeded weights."""
    seed_everything(0)
    return HAGAN(HAGAN.build_config("tiny", **{**NARROW, **overrides}))


@functools.cache
def empty(preset):
    """The model of a preset without memory for its weights."""
    with torch.device("meta"):
        return HAGAN(HAGAN.build_config(preset))


def count(module):
    return sum(p.numel() for p in module.parameters())


def volumes(generator, batch=2):
    return torch.rand(batch, 1, *[generator.config.size] * 3) * 2 - 1


def table(module, *inputs):
    """Every layer that `module` runs through, in order: type, and for convolutions sizes and what comes out."""
    rows = []

    def note(layer, _, output):
        side = "x".join(map(str, output.shape[2:]))
        if isinstance(layer, UpConv):
            rows.append(UP)
        if isinstance(layer, nn.Conv3d):
            kernel, stride, pad = (
                "".join(map(str, t)) for t in (layer.kernel_size, layer.stride, layer.padding)
            )
            rows.append(f"{layer.in_channels}>{layer.out_channels} k{kernel} s{stride} p{pad} = {side}")
        elif isinstance(layer, nn.Linear):
            rows.append(f"Linear {layer.in_features}>{layer.out_features}")
        elif isinstance(layer, nn.GroupNorm):
            rows.append(f"GN{layer.num_groups}")
        elif isinstance(layer, nn.LeakyReLU):
            rows.append(f"LReLU{layer.negative_slope}")
        else:
            rows.append(type(layer).__name__)

    leaves = [m for name, m in module.named_modules() if "parametrizations" not in name and is_layer(m)]
    hooks = [m.register_forward_hook(note) for m in leaves]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return rows


def is_layer(module):
    return isinstance(module, nn.Conv3d | nn.Linear) or not list(module.children())


def convolution(row):
    return [row, "GN8", "ReLU"]


UP = "up2 nearest"


def expected_common(last):
    """G^A: `last` upsamples before the last convolution at 256 only."""
    rows = ["Linear 1024>32768", "Unflatten", *convolution("512>512 k333 s111 p111 = 4x4x4")]
    rows += [UP, *convolution("512>512 k333 s111 p111 = 8x8x8")]
    rows += [UP, *convolution("512>256 k333 s111 p111 = 16x16x16")]
    rows += [UP, *convolution("256>128 k333 s111 p111 = 32x32x32")]
    side = 64 if last else 32
    return [*rows, *([UP] if last else []), *convolution(f"128>64 k333 s111 p111 = {side}x{side}x{side}")]


@pytest.mark.parametrize("preset", ["paper", "paper-256"])
def test_generator_has_the_published_layers(preset):
    generator = empty(preset)
    size, twice = generator.config.size, generator.config.size // 128
    z = torch.empty(1, 1024, device="meta")
    assert table(generator.G.A, z) == expected_common(last=size == 256)
    common = generator.G.A(z)
    low = size // 4
    assert table(generator.G.L, common) == [
        *convolution(f"64>32 k333 s111 p111 = {low}x{low}x{low}"),
        *convolution(f"32>16 k333 s111 p111 = {low}x{low}x{low}"),
        f"16>1 k333 s111 p111 = {low}x{low}x{low}",
        "Tanh",
    ]
    assert table(generator.G.H, common[:, :, : 4 * twice]) == [
        UP,
        *convolution(f"64>32 k333 s111 p111 = {8 * twice}x{64 * twice}x{64 * twice}"),
        UP,
        f"32>1 k333 s111 p111 = {16 * twice}x{128 * twice}x{128 * twice}",
        "Tanh",
    ]
    slab, low_volume = generator.G(z, size - size // 8)
    assert slab.shape == (1, 1, 16 * twice, size, size) and low_volume.shape == (1, 1, low, low, low)
    assert generator.G.H(common).shape == (1, 1, size, size, size)


HIGH_128 = [
    "32>64 k444 s222 p111 = 4x32x32",
    "64>128 k244 s222 p011 = 2x16x16",
    "128>256 k244 s222 p011 = 1x8x8",
    "256>512 k144 s122 p011 = 1x4x4",
    "512>128 k144 s111 p000 = 1x1x1",
]
LOW_128 = ["64>128 k444 s222 p111 = 8x8x8", "128>256 k444 s222 p111 = 4x4x4"]
HIGH = {
    "paper": ["1>32 k444 s222 p111 = 8x64x64", *HIGH_128],
    "paper-256": ["1>16 k444 s222 p111 = 16x128x128", "16>32 k444 s222 p111 = 8x64x64", *HIGH_128],
}
LOW = {
    "paper": ["1>64 k444 s222 p111 = 16x16x16", *LOW_128],
    "paper-256": ["1>32 k444 s222 p111 = 32x32x32", "32>64 k444 s222 p111 = 16x16x16", *LOW_128],
}


@pytest.mark.parametrize("preset", ["paper", "paper-256"])
def test_discriminator_and_encoders_have_the_published_layers(preset):
    generator = empty(preset)
    size = generator.config.size
    slab = torch.empty(1, 1, size // 8, size, size, device="meta")
    low = torch.empty(1, 1, *[size // 4] * 3, device="meta")
    high = [row for each in HIGH[preset] for row in (each, "LReLU0.2")]
    assert table(generator.D.H, slab, 0.5) == [*high, "Linear 129>64", "LReLU0.2", "Linear 64>1"]
    rows = [row for each in LOW[preset] for row in (each, "LReLU0.2")]
    assert table(generator.D.L, low) == [*rows, "256>1 k444 s111 p000 = 1x1x1"]
    depth, side = size // 16, size // 2
    assert table(generator.E_H, slab) == [
        *convolution(f"1>32 k444 s222 p111 = {depth}x{side}x{side}"),
        *convolution(f"32>32 k333 s111 p111 = {depth}x{side}x{side}"),
        *convolution(f"32>64 k444 s222 p111 = {depth // 2}x{side // 2}x{side // 2}"),
    ]
    first = ["64>64 k444 s222 p111 = 16x16x16"]
    if size == 256:
        first = ["64>32 k444 s222 p111 = 32x32x32", "32>64 k444 s222 p111 = 16x16x16"]
    rows = [row for each in [*first, *LOW_128] for row in convolution(each)]
    common = torch.empty(1, 64, *[size // 4] * 3, device="meta")
    assert table(generator.E_G, common) == [*rows, "256>1024 k444 s111 p000 = 1x1x1", "Flatten"]
    assert generator.E_G(common).shape == (1, 1024)


def test_parameter_counts():
    paper, larger = empty("paper"), empty("paper-256")
    assert paper.parameter_count() == {"G": 52_518_210, "D": 7_241_442, "E_H": 161_152, "E_G": 19_663_168}
    assert larger.parameter_count() == {"G": 52_518_210, "D": 7_402_258, "E_H": 161_152, "E_G": 19_663_264}
    for generator in (paper, larger):
        parts = (generator.G.A, generator.G.H, generator.G.L)
        assert [count(part) for part in parts] == [52_392_256, 56_257, 69_697]
    assert (count(paper.D.H), count(paper.D.L)) == (4_599_073, 2_642_369)
    assert (count(larger.D.H), count(larger.D.L)) == (4_630_833, 2_771_425)


def test_recipe_of_the_presets():
    for preset in ("paper", "paper-256"):
        generator = empty(preset)
        config = generator.config
        assert (config.batch_size, config.budget) == (4, 4 * 80_000)
        assert config.train_encoders and not config.align_slabs
        rates = {"G": 1e-4, "D": 4e-4, "E_H": 1e-4, "E_G": 1e-4}
        assert {name: o.param_groups[0]["lr"] for name, o in generator.optimizers.items()} == rates
    generator = build()
    for name, optimizer in generator.optimizers.items():
        (group,) = optimizer.param_groups
        assert type(optimizer) is torch.optim.Adam
        settings = {"betas": (0.0, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
        assert {key: group[key] for key in settings} == settings
        own = generator.get_submodule(name).parameters()
        assert [id(p) for p in group["params"]] == [id(p) for p in own]


def test_only_four_sizes_exist():
    with pytest.raises(UsageError, match="32, 64, 128, 256"):
        HAGAN.build_config("tiny", size=48)


@pytest.mark.parametrize(("align", "allowed"), [(False, range(25)), (True, range(0, 25, 4))])
def test_slab_positions_are_uniform_over_the_allowed_ones(align, allowed):
    generator = build(align_slabs=align)
    drawn = torch.tensor([generator._draw_position() for _ in range(100 * len(allowed))])
    frequency = torch.bincount(drawn, minlength=25)
    assert len(frequency) == 25
    assert frequency[[i for i in range(25) if i not in allowed]].sum() == 0
    assert (frequency[list(allowed)] - 100).abs().max() < 50  # 5 standard deviations


@pytest.mark.parametrize(("r", "first"), [(0, 0), (3, 0), (4, 1), (13, 3), (56, 14)])
def test_a_generated_slab_is_refined_from_the_features_at_floor_r_over_4(r, first):
    generator = build(size=64)
    z = torch.randn(2, 12)
    slab, low = generator.G(z, r)
    common = generator.G.A(z)
    assert common.shape == (2, 8, 16, 16, 16)
    assert torch.equal(slab, generator.G.H(common[:, :, first : first + 2]))
    assert torch.equal(low, generator.G.L(common))
    assert slab.shape == (2, 1, 8, 64, 64) and low.shape == (2, 1, 16, 16, 16)


def test_generator_computes_the_formula():
    generator = build()
    z = torch.randn(2, 12)

    def block(x, layers):
        conv, norm, _ = layers
        x = F.conv3d(x, conv.weight, conv.bias, padding=1)
        return F.relu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias))

    def up(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)

    A, H = list(generator.G.A), list(generator.G.H)
    x = F.linear(z, A[0].weight, A[0].bias).reshape(2, 64, 4, 4, 4)
    x = up(block(x, A[2:5]))
    for start in (5, 8, 11, 14):
        x = block(x, A[start : start + 3])
    x = up(block(up(x), H[:3]))
    whole = torch.tanh(F.conv3d(x, H[3].weight, H[3].bias, padding=1))
    assert len(A) == 17 and len(H) == 5
    torch.testing.assert_close(generator.G.H(generator.G.A(z)), whole, atol=1e-5, rtol=1e-5)
    codes = Noise([3, 4]).normal(12)
    assert torch.equal(generator.sample(Noise([3, 4])), generator.G.H(generator.G.A(codes)))


@pytest.mark.parametrize(("size", "r"), [(32, 0), (32, 7), (32, 24), (64, 56)])
def test_discriminator_averages_two_logits_and_sees_the_position(size, r):
    generator = build(size=size).eval()  # no power iterations: calls can be compared
    x = volumes(generator)
    slab, low = x[:, :, r : r + 8], x[:, :, ::4, ::4, ::4]
    D = generator.D
    features = D.H.convolutions(slab).flatten(1)
    assert features.shape == (2, 16)
    column = torch.full((2, 1), r / (size - 8))
    h = D.H.head(torch.cat([features, column], dim=1))
    expected = (h + D.L(low).flatten(1)) / 2
    assert expected.shape == (2, 1)
    torch.testing.assert_close(D(slab, low, r), expected)


def test_every_layer_of_the_discriminator_alone_has_spectral_norm_1():
    generator = build()
    x = volumes(generator)
    for _ in range(300):
        generator.D(x[:, :, :8], x[:, :, ::4, ::4, ::4], 0)
    layers = [m for m in generator.D.modules() if isinstance(m, nn.Conv3d | nn.Linear)]
    assert len(layers) == 8
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1, abs=1e-3)
    others = [m for name in ("G", "E_H", "E_G") for m in generator.get_submodule(name).modules()]
    assert not any(hasattr(module, "parametrizations") for module in others)


def test_one_power_iteration_per_forward_pass_in_training():
    generator = build()
    x = volumes(generator)
    layer = generator.D.H.head[2]
    norm = layer.parametrizations.weight[0]
    weight = layer.parametrizations.weight.original.detach()
    v = F.normalize(torch.arange(8.0), dim=0)
    norm._v.copy_(v)
    generator.D(x[:, :, :8], x[:, :, ::4, ::4, ::4], 0)
    u = F.normalize(weight @ v, dim=0)
    torch.testing.assert_close(norm._v, F.normalize(weight.T @ u, dim=0))
    torch.testing.assert_close(norm._u, u)


class Spy:
    """Replaces networks by stand-ins that note their input; one weight each, so that losses have gradients."""

    def __init__(self, generator, r):
        self.generator, self.calls = generator, []
        generator._draw_position = lambda: r
        logits = iter([0.7, -0.4, 1.1])
        self.bias = {name: next(generator.get_submodule(name).parameters()) for name in generator.optimizers}
        generator.D.forward = lambda slab, low, r: self.note("D", next(logits), slab, low, r)
        generator.G.forward = self.generate

    def note(self, name, value, *inputs):
        self.calls.append((name, inputs))
        return value + 0 * self.bias[name].sum() + 0 * inputs[0].sum() + torch.zeros(2, 1)

    def generate(self, z, r):
        self.calls.append(("G", (z, r)))
        zero = 0 * self.bias["G"].sum() + 0 * z.sum()
        return 0.25 + zero + torch.zeros(2, 1, 8, 32, 32), -0.5 + zero + torch.zeros(2, 1, 8, 8, 8)


def test_losses_by_hand_on_one_slab_position():
    generator = build()
    spy = Spy(generator, r=13)
    x = volumes(generator)
    slab, low = x[:, :, 13:21], x[:, :, ::4, ::4, ::4]
    parts = []
    generator.E_H.register_forward_hook(lambda _, inputs, __: parts.append(inputs[0]))
    generator.G.H.forward = lambda f: -0.1 + 0 * f.sum() + torch.zeros(2, 1, 8, 32, 32)
    losses = generator.training_step(lambda: x)
    made, real, fake, made_again, judged, rebuilt = spy.calls
    assert [c[0] for c in spy.calls] == ["G", "D", "D", "G", "D", "G"]
    assert all(call[1][-1] == 13 for call in spy.calls)
    assert torch.equal(real[1][0], slab) and torch.equal(real[1][1], low)
    assert made[1][0].shape == (2, 12) and not torch.equal(made[1][0], made_again[1][0])
    for call in (fake, judged):
        assert (call[1][0] == 0.25).all() and (call[1][1] == -0.5).all()
    assert not fake[1][0].requires_grad and judged[1][0].requires_grad
    assert rebuilt[1][0].requires_grad
    assert float(losses["D"]) == pytest.approx(math.log1p(math.exp(-0.7)) + math.log1p(math.exp(-0.4)))
    assert float(losses["G"]) == pytest.approx(math.log1p(math.exp(-1.1)))
    assert float(losses["E_H"]) == pytest.approx(float((slab + 0.1).abs().mean()))
    both = float((slab - 0.25).abs().mean()), float((low + 0.5).abs().mean())
    assert float(losses["E_G"]) == pytest.approx(sum(both) / 2)
    assert torch.equal(parts[0], slab)
    assert torch.equal(torch.cat(parts[1:], dim=2), x) and len(parts) == 5
    assert list(losses) == ["D", "G", "E_H", "E_G"] and not any(v.requires_grad for v in losses.values())


def test_the_volume_encoder_reads_all_slabs_in_order():
    generator = build()
    x = volumes(generator)
    given = []
    generator.E_G.register_forward_hook(lambda _, inputs, __: given.append(inputs[0]))
    generator.training_step(lambda: x)
    expected = torch.cat([generator.E_H(x[:, :, i : i + 8]) for i in range(0, 32, 8)], dim=2)
    assert expected.shape == (2, 8, 8, 8, 8)
    assert torch.equal(given[0], expected) and not given[0].requires_grad


def test_each_update_moves_one_network_alone_in_the_published_order():
    generator = build()
    descend, order = generator.descend, []

    def watch(loss, *names):
        before = {k: v.clone() for k, v in generator.named_parameters()}
        descend(loss, *names)
        moved = {k.split(".")[0] for k, v in generator.named_parameters() if not torch.equal(v, before[k])}
        order.append((names, moved))

    generator.descend = watch
    x = volumes(generator)
    generator.training_step(lambda: x)
    assert order == [((name,), {name}) for name in ("D", "G", "E_H", "E_G")]


def test_the_generator_climbs_the_discriminator():
    generator = build(train_encoders=False, discriminator_learning_rate=1e-12, learning_rate=1e-3)
    x = volumes(generator)
    losses = [float(generator.training_step(lambda: x)["G"]) for _ in range(15)]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_encoders_influence_neither_g_nor_d():
    states = []
    for encoders in (True, False):
        generator = build(train_encoders=encoders)
        batch = torch.Generator().manual_seed(0)
        for step in range(2):
            x = torch.rand(2, 1, 32, 32, 32, generator=batch) * 2 - 1
            seed_everything(step)
            losses = generator.training_step(lambda x=x: x)
        assert set(losses) == ({"D", "G", "E_H", "E_G"} if encoders else {"D", "G"})
        states.append({k: v for k, v in generator.state_dict().items() if k[:2] in ("G.", "D.")})
    assert states[0].keys() == states[1].keys() and len(states[0]) > 40
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_only_what_sampling_needs_is_saved(tmp_path):
    generator, other = build(), build()
    nn.init.normal_(other.G.A[0].weight)
    generator.save(tmp_path / "weights.safetensors")
    nn.init.normal_(generator.G.L[0].weight)
    expected = generator.sample(Noise([1]))
    other.load(tmp_path / "weights.safetensors")
    assert torch.equal(other.sample(Noise([1])), expected)


@pytest.mark.parametrize("size", [32, 64])
def test_our_sizes_train_and_sample_with_one_volume(size):
    generator = build(size=size, width=4, batch_size=1)
    losses = generator.training_step(lambda: volumes(generator, 1))
    assert all(torch.isfinite(v) for v in losses.values())
    sample = generator.sample(Noise([0, 1, 2]))
    assert sample.shape == (3, 1, size, size, size) and sample.abs().max() <= 1
