"""The network: parameter counts, equivariances, and every layer against its formula spelt out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mribench.models.cdpm import CDPM
from mribench.models.unet import (
    AcrossSliceAttention,
    FactorisedAttention,
    GroupNorm,
    RelativePosition,
    ResBlock,
    SelfAttention,
)

both_norms = pytest.mark.parametrize("norm", ["set", "slice"])
both_residuals = pytest.mark.parametrize("residual", ["normed", "raw"])
SLICES, EMBEDDING, HEADS = 16, 24, 2


def inputs(k=6, batch=2, size=16):
    generator = torch.Generator().manual_seed(2)
    index = torch.stack([torch.randperm(SLICES, generator=generator)[:k] for _ in range(batch)])
    observed = torch.zeros(batch, k, dtype=torch.bool)
    observed[:, :2] = True
    x_t, x_0 = torch.randn(2, batch, k, 1, size, size, generator=generator)
    return x_t, x_0, index, observed, torch.zeros_like(index), torch.tensor([10, 700])[:batch]


@pytest.mark.parametrize(("res_blocks", "expected"), [(2, 118_952_833), (1, 80_353_537)])
def test_parameter_counts_are_those_of_the_public_code(res_blocks, expected):
    config = CDPM.build_config("paper-anchor", res_blocks=res_blocks)
    with torch.device("meta"):
        assert CDPM(config).parameter_count() == {"net": expected}


def test_paper_preset_adds_the_index_embedding_only():
    with torch.device("meta"):
        count = CDPM(CDPM.build_config("paper")).parameter_count()["net"]
    assert count == 118_952_833 + (128 * 512 + 512) + (512 * 512 + 512)


@pytest.mark.parametrize(
    ("block", "expected"),
    [("stem", 2_432), ("time_mlp", 328_704), ("down.0", 427_008), ("down.6", 4_929_920), ("head", 1_409)],
)
def test_block_counts_match_the_layer_table(block, expected):
    with torch.device("meta"):
        net = CDPM(CDPM.build_config("paper-anchor", res_blocks=1)).net
    assert sum(p.numel() for p in net.get_submodule(block).parameters()) == expected


def test_fresh_network_is_silent(fresh):
    net = fresh().net
    assert torch.equal(net(*inputs()), torch.zeros(8, 1, 16, 16))
    tables = [m for m in net.modules() if isinstance(m, RelativePosition)]
    assert tables
    assert all(table(torch.randn(1, 128)).abs().max() == 0 for table in tables)
    assert all(m.conv_out.weight.abs().max() == 0 for m in net.modules() if isinstance(m, ResBlock))
    attention = [m for m in net.modules() if isinstance(m, AcrossSliceAttention | SelfAttention)]
    assert attention
    assert all(m.project.weight.abs().max() == 0 for m in attention)


@torch.no_grad()
def test_noisy_values_of_given_slices_do_not_matter(model):
    net = model().net
    x_t, *rest = inputs()
    changed = x_t.clone()
    changed[:, :2] = torch.randn_like(changed[:, :2])
    assert torch.equal(net(x_t, *rest), net(changed, *rest))


@torch.no_grad()
@both_norms
def test_order_of_slices_does_not_matter(model, norm):
    net = model(tail_skip=False, norm=norm).net
    x_t, x_0, index, observed, group, t = inputs()
    out = net(x_t, x_0, index, observed, group, t).unflatten(0, (2, 4))
    order = torch.tensor([1, 0, 5, 3, 2, 4])
    permuted = net(x_t[:, order], x_0[:, order], index[:, order], observed[:, order], group, t)
    expected = out[:, order[2:] - 2]
    assert (permuted.unflatten(0, (2, 4)) - expected).abs().max() < 2e-5 * out.std() + 1e-7


@torch.no_grad()
@pytest.mark.parametrize("index_embedding", [False, True])
def test_only_the_index_embedding_sees_absolute_positions(model, index_embedding):
    net = model(index_embedding=index_embedding).net
    x_t, x_0, _, observed, group, t = inputs()
    index = torch.arange(6).expand(2, -1)
    here, there = (net(x_t, x_0, index + shift, observed, group, t) for shift in (0, 7))
    assert torch.equal(here, there) != index_embedding


@torch.no_grad()
@both_norms
def test_tail_skip_is_exact(model, norm):
    skipping, full = model(norm=norm).net, model(norm=norm, tail_skip=False).net
    assert skipping.drop_after < full.drop_after
    assert (skipping(*inputs()) - full(*inputs())).abs().max() <= 1e-6


@torch.no_grad()
@pytest.mark.parametrize(("norm", "leaks"), [("set", True), ("slice", False)])
def test_padding_reaches_real_slices_through_group_norm_only(model, norm, leaks):
    net = model(norm=norm).net
    x_t, x_0, index, observed, group, t = inputs()
    group[:, 4:] = 1
    changed = x_t.clone()
    changed[:, 4:] = torch.randn_like(changed[:, 4:])
    out, other = (net(x, x_0, index, observed, group, t).unflatten(0, (2, 4))[:, :2] for x in (x_t, changed))
    relative = float((out - other).abs().max() / out.std())
    assert (relative > 1e-3) if leaks else relative == 0


# The formulas spelt out: plain arithmetic, one volume, slice and pair of slices at a time.


def silu(x):
    return x / (1 + (-x).exp())


def group_norm(layer, x):
    """`[C,M]`, at most 32 groups of neighbouring channels, statistics over (channels of a group) x M."""
    groups = x.reshape(min(32, len(x)), -1)
    centred = groups - groups.mean(dim=1, keepdim=True)
    unit = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return unit.reshape(x.shape) * layer.weight[:, None] + layer.bias[:, None]


def norm_of_slice(layer, x):
    """`[C,H,W]` -> the same, normalised over its own pixels."""
    return group_norm(layer, x.flatten(1)).reshape(x.shape)


def norm_of_set(layer, x):
    """`[K,C,H,W]` -> the same, normalised at each pixel over the slices."""
    out = torch.empty_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            out[:, :, row, column] = group_norm(layer, x[:, :, row, column].T).T
    return out


def res_block(layer, x, embedding):
    """One slice `[C,H,W]`."""
    h = F.conv2d(silu(norm_of_slice(layer.norm_in, x))[None], layer.conv_in.weight, layer.conv_in.bias, 1, 1)
    modulation = layer.modulate.weight @ silu(embedding) + layer.modulate.bias
    scale, shift = modulation[: len(h[0])], modulation[len(h[0]) :]
    h = norm_of_slice(layer.norm_out, h[0]) * (1 + scale)[:, None, None] + shift[:, None, None]
    h = F.conv2d(silu(h)[None], layer.conv_out.weight, layer.conv_out.bias, 1, 1)[0]
    return h + (x if len(x) == len(h) else F.conv2d(x[None], layer.skip.weight, layer.skip.bias)[0])


def relative(layer, time, distance):
    """R `[heads,f]` for one signed distance."""
    d = torch.tensor(float(distance))
    phi = torch.stack([d.clamp(min=0).log1p(), (-d).clamp(min=0).log1p(), (d == 0).float()])
    return layer.out(silu(layer.time(time) + layer.distance(phi))).view(HEADS, -1)


def across(layer, x, time, index, group, norm, residual):
    """One volume `[K,C,H,W]`."""
    k, channels, height, width = x.shape
    u = (
        norm_of_set(layer.norm, x)
        if norm == "set"
        else torch.stack([norm_of_slice(layer.norm, s) for s in x])
    )
    tokens = u.flatten(2).transpose(1, 2)  # [K,HW,C]
    q, key, v = layer.qkv(tokens).view(k, height * width, 3, HEADS, -1).unbind(2)
    out = torch.zeros_like(q)
    for i in range(k):
        peers = [j for j in range(k) if group[i] == group[j]]
        scores = [
            (q[i] * key[j]).sum(-1)
            + (q[i] * relative(layer.relative_k, time, index[i] - index[j])).sum(-1)
            + (key[j] * relative(layer.relative_q, time, index[j] - index[i])).sum(-1)
            for j in peers
        ]
        weights = (torch.stack(scores) / (channels / HEADS) ** 0.5).exp()
        for weight, j in zip(weights / weights.sum(0), peers, strict=True):
            out[i] += weight[..., None] * (v[j] + relative(layer.relative_v, time, index[i] - index[j]))
    change = layer.project(out.flatten(-2)).transpose(1, 2).reshape(x.shape)
    return change + (u if residual == "normed" else x)


def within(layer, x, residual):
    """One slice `[C,H,W]`."""
    u = norm_of_slice(layer.norm, x)
    q, key, v = layer.qkv(u.flatten(1).T).view(-1, 3, HEADS, len(x) // HEADS).unbind(1)  # [HW,heads,f]
    out = torch.empty_like(q)
    for head in range(HEADS):
        weights = (q[:, head] @ key[:, head].T / (len(x) / HEADS) ** 0.5).exp()
        out[:, head] = weights @ v[:, head] / weights.sum(1, keepdim=True)
    return layer.project(out.flatten(1)).T.reshape(x.shape) + (u if residual == "normed" else x)


def attention_inputs(k=4, batch=2):
    """Not centred and not of unit scale, so that the normalised input differs from the input."""
    x = 2 * torch.randn(batch * k, 64, 2, 3) + torch.arange(batch * k)[:, None, None, None]
    index = torch.tensor([[3, 9, 4, 15], [0, 7, 7, 2]])
    group = torch.tensor([[0, 0, 0, 1], [0, 1, 0, 1]])
    return x, torch.randn(batch, EMBEDDING), index, group


@torch.no_grad()
@pytest.mark.parametrize("channels_out", [32, 64])
def test_residual_block_is_the_formula(jitter, channels_out):
    layer = jitter(jitter(ResBlock(32, channels_out, EMBEDDING)))
    x, embedding = 2 * torch.randn(3, 32, 5, 4) + 1, 2 * torch.randn(3, EMBEDDING)
    expected = torch.stack([res_block(layer, x[i], embedding[i]) for i in range(3)])
    assert torch.allclose(layer(x, embedding), expected, atol=1e-5)


@torch.no_grad()
@both_norms
@both_residuals
def test_attention_across_slices_is_the_formula(jitter, norm, residual):
    layer = jitter(jitter(AcrossSliceAttention(64, HEADS, EMBEDDING, SLICES, norm, residual)))
    x, time, index, group = attention_inputs()
    parts = [across(layer, x[4 * b :][:4], time[b], index[b], group[b], norm, residual) for b in range(2)]
    assert torch.allclose(layer(x, time, index, group), torch.cat(parts), atol=2e-5)


@torch.no_grad()
@both_residuals
def test_attention_within_slices_is_the_formula(jitter, residual):
    layer = jitter(SelfAttention(64, HEADS, residual))
    x = attention_inputs()[0]
    assert torch.allclose(layer(x), torch.stack([within(layer, s, residual) for s in x]), atol=2e-5)


@torch.no_grad()
@both_norms
@both_residuals
def test_slices_attend_across_first_then_within(jitter, norm, residual):
    layer = jitter(FactorisedAttention(64, HEADS, EMBEDDING, SLICES, norm, residual))
    x, time, index, group = attention_inputs(batch=1)
    middle = across(layer.across, x, time[0], index[0], group[0], norm, residual)
    expected = torch.stack([within(layer.within, s, residual) for s in middle])
    assert torch.allclose(layer(x, time, index[:1], group[:1]), expected, atol=5e-5)


@torch.no_grad()
@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("index_embedding", [False, True])
def test_times_and_slice_numbers_are_embedded_as_published(model, steps, index_embedding):
    net = model(steps=steps, index_embedding=index_embedding).net

    def mlp(layers, position):
        angle = position * 10_000 ** (-torch.arange(16) / 16)
        wave = torch.cat([angle.cos(), angle.sin()])
        hidden = silu(layers[0].weight @ wave + layers[0].bias)
        return layers[2].weight @ hidden + layers[2].bias

    t, index = torch.tensor([7, 49]), torch.tensor([[0, 3, 15], [8, 2, 5]])
    time, per_slice = net.embed(t, index)
    for b in range(2):
        expected = mlp(net.time_mlp, float(t[b]) * 1000 / steps)
        assert torch.allclose(time[b], expected, atol=1e-4)
        for k in range(3):
            added = mlp(net.index_mlp, float(index[b, k])) if index_embedding else 0
            assert torch.allclose(per_slice[3 * b + k], expected + added, atol=1e-4)


@torch.no_grad()
@both_norms
@both_residuals
@pytest.mark.parametrize("index_embedding", [False, True])
def test_the_network_is_wired_as_the_layer_table_says(model, norm, residual, index_embedding):
    net = model(norm=norm, residual=residual, index_embedding=index_embedding).net
    x_t, x_0, index, observed, group, t = inputs()
    images = torch.where(observed[..., None, None, None], x_0, x_t)
    flags = observed[..., None, None, None].expand_as(images).float()
    time, each = net.embed(t, index)
    place = (time, index, group)

    def conv(layer, x, stride=1):
        return F.conv2d(x, layer.weight, layer.bias, stride, padding=1)

    full = conv(net.stem, torch.cat([images, flags], 2).flatten(0, 1))
    first = net.down[0].res(full, each)
    halved = conv(net.down[1].resample.conv, first, stride=2)
    low = net.down[2].attention(net.down[2].res(halved, each), *place)
    middle = net.middle_out(net.middle.attention(net.middle.res(low, each), *place), each)
    h = net.up[0].attention(net.up[0].res(torch.cat([middle, low], 1), each), *place)
    h = net.up[1].attention(net.up[1].res(torch.cat([h, halved], 1), each), *place)
    h = conv(net.up[1].resample.conv, h.repeat_interleave(2, 2).repeat_interleave(2, 3))
    h = net.up[2].res(torch.cat([h, first], 1), each)
    h = net.up[3].res(torch.cat([h, full], 1), each)
    out = conv(net.head[2], silu(torch.stack([norm_of_slice(net.head[0], s) for s in h])))
    assert len(net.down) == 3 and len(net.up) == 4
    assert torch.allclose(net(x_t, x_0, index, observed, group, t), out[~observed.flatten()], atol=1e-4)


def test_group_norm_keeps_the_type_and_the_precision_of_float32():
    layer = GroupNorm(32)
    x = (torch.randn(2, 32, 8, 8) + 100).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, layer(x.float()).bfloat16())
