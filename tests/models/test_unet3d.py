"""The 3-D network: parameter counts, and every layer against its formula spelt out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mribench.models.unet import SelfAttention
from mribench.models.unet3d import ResBlock, Upsample, VolumeUNet

SMALL = {
    "size": 8,
    "base": 8,
    "multipliers": (1, 2),
    "res_blocks": 1,
    "attention_sizes": (4,),
    "checkpoint_blocks": False,
}
PAPER = {**SMALL, "size": 128, "base": 64, "multipliers": (1, 1, 2, 3, 4), "attention_sizes": (16,)}


def count(module):
    return sum(p.numel() for p in module.parameters())


def attending(net):
    """Names of the blocks with attention."""
    return [
        name.removesuffix(".attention") for name, m in net.named_modules() if isinstance(m, SelfAttention)
    ]


@pytest.fixture
def net(jitter):
    """`net(**overrides)`: two levels at 8 pixels with no silent layer, the same weights every time."""

    def build(**overrides) -> VolumeUNet:
        torch.manual_seed(0)
        return jitter(VolumeUNet(**{**SMALL, **overrides}))

    return build


@pytest.mark.parametrize(
    ("base", "res_blocks", "expected"), [(64, 1, 40_222_977), (64, 2, 58_288_321), (128, 1, 160_825_857)]
)
def test_parameter_counts_are_those_of_the_public_code(base, res_blocks, expected):
    with torch.device("meta"):
        assert count(VolumeUNet(**{**PAPER, "base": base, "res_blocks": res_blocks})) == expected


def test_attention_is_at_16_pixels_and_in_the_middle():
    with torch.device("meta"):
        one, two = (attending(VolumeUNet(**{**PAPER, "res_blocks": n})) for n in (1, 2))
    # Encoder: R D R D R D R(16) D R(8); decoder: 8, 8+U, 16, 16+U, ...
    assert one == ["down.6", "middle", "up.2", "up.3"]
    assert two == ["down.9", "down.10", "middle", "up.3", "up.4", "up.5"]


@torch.no_grad()
def test_fresh_network_is_silent():
    net = VolumeUNet(**SMALL)
    assert torch.equal(net(torch.randn(2, 1, 4, 8, 8), torch.tensor([0, 9])), torch.zeros(2, 1, 4, 8, 8))
    layers = [m.conv_out for m in net.modules() if isinstance(m, ResBlock)]
    layers += [m.project for m in net.modules() if isinstance(m, SelfAttention)]
    assert len(layers) == 8 + 4 and all(layer.weight.abs().max() == 0 for layer in layers)


@torch.no_grad()
@pytest.mark.parametrize("channels_in", [8, 16])
def test_res_block_adds_the_embedding_before_its_second_norm(jitter, channels_in):
    block = jitter(ResBlock(channels_in, 16, 12))
    x, e = torch.randn(2, channels_in, 4, 6, 6), torch.randn(2, 12)
    h = F.silu(F.group_norm(x, channels_in, block.norm_in.weight, block.norm_in.bias))
    h = F.conv3d(h, block.conv_in.weight, block.conv_in.bias, padding=1)
    h = h + F.linear(e * e.sigmoid(), block.shift.weight, block.shift.bias).reshape(2, 16, 1, 1, 1)
    h = F.silu(F.group_norm(h, 16, block.norm_out.weight, block.norm_out.bias))
    h = F.conv3d(h, block.conv_out.weight, block.conv_out.bias, padding=1)
    skip = x if channels_in == 16 else F.conv3d(x, block.skip.weight, block.skip.bias)
    assert torch.allclose(block(x, e), skip + h, atol=1e-5)


@torch.no_grad()
def test_attention_is_one_head_over_all_voxels_added_to_its_input(net):
    layer = net(base=4).middle.attention
    x = torch.randn(2, 8, 2, 3, 4)
    tokens = layer.norm(x).reshape(2, 8, 24)
    expected = torch.empty_like(tokens)
    for b in range(2):
        q, k, v = (layer.qkv.weight @ tokens[b] + layer.qkv.bias[:, None]).split(8)
        weight = ((q.T @ k) / 8**0.5).softmax(dim=1)  # [query, key]
        expected[b] = layer.project.weight @ (v @ weight.T) + layer.project.bias[:, None]
    assert torch.allclose(layer(x), x + expected.reshape(x.shape), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("axis", [2, 3, 4])
def test_upsampling_is_linear_along_every_axis(axis):
    layer = Upsample(1)
    torch.nn.init.dirac_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    x = torch.tensor([0.0, 4.0]).reshape([2 if i == axis else 1 for i in range(5)]).expand(1, 1, 2, 2, 2)
    line = layer(x).transpose(axis, 4)[0, 0, 1, 2]
    assert line.tolist() == [0, 1, 3, 4]  # a quarter from either neighbour; edges repeat


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 2, 1, 4, 3), (1, 1, 2, 1, 1)])
def test_upsampling_is_torchs_trilinear_with_its_gradient(shape, exact):
    results = []
    ours = Upsample(shape[1])
    ours.conv = torch.nn.Identity()
    weight = torch.randn(*shape[:2], *(2 * n for n in shape[2:]))
    x = torch.randn(shape)
    for upsample in (ours, lambda x: F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)):
        leaf = x.clone().requires_grad_()
        out = upsample(leaf)
        (out * weight).sum().backward()
        results.append((out.detach(), leaf.grad))
    for here, there in zip(*results, strict=True):
        assert here.shape == there.shape and torch.allclose(here, there, rtol=0, atol=1e-12)


@torch.no_grad()
def test_time_enters_unscaled_with_periods_up_to_1000(net):
    net = net()
    given = []
    net.time_mlp.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    net(torch.randn(1, 1, 4, 8, 8), torch.tensor([249]))
    angle = 249 * 1000.0 ** (-torch.arange(4) / 4)
    assert torch.allclose(given[0][0], torch.cat([angle.cos(), angle.sin()]), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("depth", [4, 8])
def test_network_is_its_layers_in_the_published_order(net, depth):
    net = net()
    x, t = torch.randn(2, 1, depth, 8, 8), torch.tensor([3, 200])
    angle = t[:, None] * 1000.0 ** (-torch.arange(4) / 4)
    e = net.time_mlp(torch.cat([angle.cos(), angle.sin()], dim=1))
    stem = net.stem(x)
    fine = net.down[0].res(stem, e)
    halved = F.conv3d(fine, net.down[1].resample.weight, net.down[1].resample.bias, stride=2, padding=1)
    coarse = net.down[2].attention(net.down[2].res(halved, e))
    h = net.middle_out.res(net.middle.attention(net.middle.res(coarse, e)), e)
    h = net.up[0].attention(net.up[0].res(torch.cat([h, coarse], dim=1), e))
    h = net.up[1].attention(net.up[1].res(torch.cat([h, halved], dim=1), e))
    h = net.up[1].resample(h)
    h = net.up[2].res(torch.cat([h, fine], dim=1), e)
    h = net.up[3].res(torch.cat([h, stem], dim=1), e)
    assert len(net.down) == 3 and len(net.up) == 4
    expected = net.head[2](F.silu(net.head[0](h)))
    assert torch.allclose(net(x, t), expected, atol=1e-5) and expected.std() > 1e-3


def test_checkpointing_changes_neither_outputs_nor_gradients(net):
    x, t = torch.randn(2, 1, 4, 8, 8), torch.tensor([3, 200])
    results = []
    for checkpoint_blocks in (False, True):
        network = net(checkpoint_blocks=checkpoint_blocks)
        out = network(x, t)
        out.square().mean().backward(inputs=list(network.parameters()))
        results.append([out, *[p.grad for p in network.parameters()]])
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


def kept_for_backward(network):
    """Numbers kept by a forward pass."""
    kept = []

    def keep(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        network(torch.randn(1, 1, 4, 8, 8), torch.tensor([3]))
    return sum(kept)


def test_checkpointing_keeps_less(net):
    assert kept_for_backward(net(checkpoint_blocks=True)) < 0.5 * kept_for_backward(net())
