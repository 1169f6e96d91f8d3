"""What the fact sheet of cDPM demands: counts, equivariances, index sets, stage plan, samplers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mribench.models.cdpm import CDPM, draw_index_sets, stage_plan
from mribench.models.diffusion import Diffusion, linear_betas, trailing_steps
from mribench.models.unet import RelativePosition, SliceUNet
from mribench.seeds import Noise

SMALL = {
    "size": 16,
    "base": 32,
    "multipliers": (1, 2),
    "attention_sizes": (8,),
    "tau_max": 8,
    "stage_slices": 4,
    "ddim_steps": 3,
}


def model(**overrides):
    torch.manual_seed(0)
    return CDPM(CDPM.build_config("tiny", **{**SMALL, **overrides}))


def refill(net: torch.nn.Module) -> None:
    """Give zero-initialised layers weights, or every check below would pass on zero outputs."""
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        if parameter.abs().max() == 0:
            parameter.data.normal_(0, 0.02, generator=generator)


def inputs(k=6, batch=2, size=16, slices=16):
    generator = torch.Generator().manual_seed(2)
    index = torch.stack([torch.randperm(slices, generator=generator)[:k] for _ in range(batch)])
    observed = torch.zeros(batch, k, dtype=torch.bool)
    observed[:, :2] = True
    x_t, x_0 = torch.randn(2, batch, k, 1, size, size, generator=generator)
    return x_t, x_0, index, observed, torch.zeros_like(index), torch.tensor([10, 700])[:batch]


@pytest.mark.parametrize(
    ("preset", "res_blocks", "expected"),
    [("paper-anchor", 2, 118_952_833), ("paper-anchor", 1, 80_353_537)],
)
def test_parameter_counts_are_those_of_the_public_code(preset, res_blocks, expected):
    config = CDPM.build_config(preset, res_blocks=res_blocks)
    with torch.device("meta"):
        counts = CDPM(config).parameter_count()
    assert counts == {"net": expected}


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


def test_fresh_network_is_silent():
    net = model().net
    assert torch.equal(net(*inputs()), torch.zeros(8, 1, 16, 16))
    tables = [m for m in net.modules() if isinstance(m, RelativePosition)]
    assert tables
    assert all(table(torch.randn(1, 128)).abs().max() == 0 for table in tables)


def test_noisy_values_of_given_slices_do_not_matter():
    net = model().net
    refill(net)
    x_t, *rest = inputs()
    changed = x_t.clone()
    changed[:, :2] = torch.randn_like(changed[:, :2])
    assert torch.equal(net(x_t, *rest), net(changed, *rest))


def test_order_of_slices_does_not_matter():
    net = model(tail_skip=False).net
    refill(net)
    x_t, x_0, index, observed, group, t = inputs()
    out = net(x_t, x_0, index, observed, group, t).unflatten(0, (2, 4))
    order = torch.tensor([1, 0, 5, 3, 2, 4])
    permuted = net(x_t[:, order], x_0[:, order], index[:, order], observed[:, order], group, t)
    expected = out[:, order[2:] - 2]
    assert (permuted.unflatten(0, (2, 4)) - expected).abs().max() < 2e-5 * out.std() + 1e-7


@pytest.mark.parametrize("index_embedding", [False, True])
def test_only_the_index_embedding_sees_absolute_positions(index_embedding):
    net = model(index_embedding=index_embedding).net
    refill(net)
    x_t, x_0, _, observed, group, t = inputs()
    index = torch.arange(6).expand(2, -1)
    here, there = (net(x_t, x_0, index + shift, observed, group, t) for shift in (0, 7))
    assert torch.equal(here, there) != index_embedding


@pytest.mark.parametrize("norm", ["set", "slice"])
def test_tail_skip_is_exact(norm):
    skipping, full = model(norm=norm).net, model(norm=norm, tail_skip=False).net
    refill(skipping)
    full.load_state_dict(skipping.state_dict())
    assert skipping.drop_after < full.drop_after
    assert (skipping(*inputs()) - full(*inputs())).abs().max() <= 1e-6


@pytest.mark.parametrize(("norm", "leaks"), [("set", True), ("slice", False)])
def test_padding_reaches_real_slices_through_group_norm_only(norm, leaks):
    net = model(norm=norm).net
    refill(net)
    x_t, x_0, index, observed, group, t = inputs()
    group = group.clone()
    group[:, 4:] = 1
    changed = x_t.clone()
    changed[:, 4:] = torch.randn_like(changed[:, 4:])
    out, other = (net(x, x_0, index, observed, group, t).unflatten(0, (2, 4))[:, :2] for x in (x_t, changed))
    relative = float((out - other).abs().max() / out.std())
    assert (relative > 1e-3) if leaks else relative == 0


def test_relative_positions_attend_as_the_formula_says():
    """The table per distinct distance against the formula spelt out for every pair of slices."""
    net = model().net
    refill(net)
    layer = net.middle.attention.across
    x, time = torch.randn(5, 64, 2, 2), torch.randn(1, 128)
    index = torch.tensor([[3, 9, 4, 0, 15]])
    got = layer(x, time, index, torch.zeros_like(index))
    with torch.no_grad():
        expected = attention_by_loops(layer, x, time, index[0])
    assert torch.allclose(got, expected, atol=1e-5)


def attention_by_loops(layer, x, time, index):
    def table(module, delta):
        d = torch.tensor(float(delta))
        phi = torch.stack([d.clamp(min=0).log1p(), (-d).clamp(min=0).log1p(), (d == 0).float()])
        hidden = module.time(time[0]) + module.distance(phi)
        return module.out(hidden * hidden.sigmoid()).view(layer.heads, -1)

    k, _, height, width = x.shape
    u = layer._normalise(x, k)[0]  # [HW,K,C]
    q, key, v = layer.qkv(u).view(height * width, k, 3, layer.heads, -1).unbind(2)
    out = torch.zeros_like(q)
    scale = q.shape[-1] ** -0.5
    for i in range(k):
        score = torch.stack(
            [
                (q[:, i] * key[:, j]).sum(-1)
                + (q[:, i] * table(layer.relative_k, index[i] - index[j])).sum(-1)
                + (key[:, j] * table(layer.relative_q, index[j] - index[i])).sum(-1)
                for j in range(k)
            ],
            dim=-1,
        )
        weight = (score * scale).softmax(-1)
        for j in range(k):
            out[:, i] += weight[..., j, None] * (v[:, j] + table(layer.relative_v, index[i] - index[j]))
    added = layer.project(out.flatten(-2)).permute(1, 2, 0).unflatten(-1, (height, width))
    return added + (u.permute(1, 2, 0).unflatten(-1, (height, width)) if layer.residual == "normed" else x)


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


def test_linear_schedule():
    signal = Diffusion(linear_betas(1000), "eps").signal
    assert float(signal[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
    assert float(signal[249]) == pytest.approx(0.524, abs=1e-3)
    assert trailing_steps(1000, 50)[:2] == [999, 979] and trailing_steps(1000, 50)[-1] == 19
    assert trailing_steps(1000, 1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_every_prediction_gives_back_x0(prediction):
    process = Diffusion(linear_betas(1000), prediction)
    x_0, noise = torch.rand(3, 1, 4, 4) * 2 - 1, torch.randn(3, 1, 4, 4)
    t = torch.tensor([0, 400, 800])
    x_t = process.add_noise(x_0, noise, t)
    assert torch.allclose(process.estimate(x_t, process.target(x_0, noise, t), t), x_0, atol=1e-3)


@pytest.mark.parametrize("t", [1, 500, 999])
def test_posterior_mean_is_the_papers_equation_4(t):
    """Without clipping: (x_t - beta / sqrt(1 - abar) eps) / sqrt(alpha)."""
    process = Diffusion(linear_betas(1000), "eps")
    x_0, noise = torch.rand(1, 8).double() - 0.5, torch.randn(1, 8).double()
    x_t = process.add_noise(x_0, noise, torch.tensor([t]))
    beta, abar = process.betas[t], process.signal[t]
    expected = (x_t - beta / (1 - abar).sqrt() * noise) / (1 - beta).sqrt()
    assert torch.allclose(process.ancestral(x_t, x_0, t, None, "small"), expected, atol=1e-9)


@pytest.mark.parametrize("t", [1, 300, 999])
def test_ddim_with_eta_one_has_the_ancestral_variance(t):
    process = Diffusion(linear_betas(1000), "eps")
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    ours = process.ddim(zero, zero, t, t - 1, one, 1.0) - process.ddim(zero, zero, t, t - 1, 0 * one, 1.0)
    theirs = process.ancestral(zero, zero, t, one, "small")
    assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("ddim_steps", [3, None])
def test_axis_and_sampler_give_whole_volumes(axis, ddim_steps):
    net = model(axis=axis, ddim_steps=ddim_steps, steps=25)
    refill(net.ema)
    volume = net.sample(Noise([1, 2]))
    assert volume.shape == (2, 1, 16, 16, 16)
    assert volume.abs().max() <= 1
    batch = torch.rand(2, 1, 16, 16, 16)
    assert torch.equal(net._slicing(net._slicing(batch)), batch)


def test_anchor_gives_a_blank_first_slice():
    volume = model(anchor=True, index_embedding=False).sample(Noise([1]))
    assert torch.equal(volume[:, :, 0], -torch.ones(1, 1, 16, 16))


def test_seams_vanish_on_smooth_volumes():
    """A network that knows the answer leaves no steps at stage borders."""
    net = model(prediction="x0")
    truth = torch.sin(torch.arange(16) / 5)[None, :, None, None, None].expand(1, 16, 1, 16, 16) * 0.5

    class Oracle(SliceUNet):
        def forward(self, x_t, x_0, index, observed, group, t):
            return truth[0, index[~observed]]

    net.ema.__class__ = Oracle
    volume = net.sample(Noise([3]))[0, 0]
    steps = volume.diff(dim=0).abs().mean(dim=(1, 2))
    expected = truth[0, :, 0].diff(dim=0).abs().mean(dim=(1, 2))
    assert torch.allclose(steps, expected, atol=1e-6)


def test_a_set_is_cut_to_one_network_call():
    with pytest.raises(Exception, match="stage_slices"):
        CDPM.build_config("tiny", stage_slices=16)
    with pytest.raises(Exception, match="Did you mean 'ddim_steps'"):
        CDPM.build_config("tiny", ddim_step=4)
