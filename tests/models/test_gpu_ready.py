"""What a GPU would show, shown without one: waits for the device, networks that do not compile, float32 layers.

The device here is "meta", whose tensors have no values: whatever needs one on the host fails at once. (Fake tensors
of a CUDA device cannot run backward where there is none.)
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mribench.models import MODELS, adversarial, cce_gan, gan_gp, get_model
from mribench.runtime import Noise, seed_everything

META, CPU = torch.device("meta"), torch.device("cpu")


class WaitError(AssertionError):
    pass


class NoWaits(TorchDispatchMode):
    """Fails where the host hands the device something and waits until it has arrived.

    Copies that do not wait, and single numbers, are allowed.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        out = func(*args, **(kwargs or {}))
        touched = tensors + [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        host = [t for t in tensors if t.device.type == "cpu" and t.dim()]
        if host and any(t.device.type == "meta" for t in touched) and not (kwargs or {}).get("non_blocking"):
            raise WaitError(f"{func} takes a tensor {list(host[0].shape)} from the host to the device")
        return out


class Flops(TorchDispatchMode):
    """FLOPs of convolutions and matrix products by the type of their first operand, every derivative included."""

    def __init__(self):
        super().__init__()
        self.by_type = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.by_type[args[0].dtype] += count(*args, **(kwargs or {}), out_val=out)
        return out

    def float32(self):
        return self.by_type[torch.float32] / sum(self.by_type.values())


def smallest(name, device=META, **overrides):
    kind = get_model(name)
    seed_everything(0)
    with device:
        model = kind(kind.build_config("tiny", **{**kind.SMALLEST, **overrides}))
    return model.train()


def volumes(model, device=META):
    size = model.config.size
    return torch.rand(model.config.batch_size, 1, size, size, size, device=device) * 2 - 1


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_does_not_wait_for_the_device(name, monkeypatch):
    # CCE-GAN's transport stops where it has converged, for which it reads one number an iteration.
    monkeypatch.setattr(cce_gan, "_converged", lambda *_: True)
    model = smallest(name)
    with NoWaits():
        losses = model.training_step(lambda: volumes(model))
    assert all(loss.device == META for loss in losses.values())


@pytest.mark.parametrize("name", MODELS)
def test_sampling_does_not_wait_for_the_device(name):
    model = smallest(name).eval()
    with NoWaits(), torch.inference_mode():
        assert model.sample(Noise([0, 1], META)).device == META


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.ones(4).to(META),
    ],
)
def test_a_wait_would_be_noticed(wait):
    with pytest.raises((WaitError, RuntimeError, NotImplementedError)), NoWaits():
        wait(torch.empty(4, device=META))


# What is left: a generator's last layer and HA-GAN's discriminator, a little above what these small networks have.
FLOAT32 = {
    "gan_gp": 0.06,
    "alpha_wgan": 0.09,
    "cce_gan": 0.03,
    "vae_gan": 0.12,
    "ha_gan": 0.11,
    "dpm3d": 0,
    "cdpm": 0,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_bf16_step_computes_little_in_float32(name):
    model = smallest(name, CPU)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), Flops() as flops:
        model.training_step(lambda: volumes(model, CPU))
    assert flops.float32() <= FLOAT32[name]


def test_a_penalty_in_float32_would_be_noticed(monkeypatch):
    """As it was until it was measured: critic and derivatives outside of autocast."""

    def penalty(critic, real, fake):
        with torch.autocast("cpu", enabled=False):
            return adversarial.gradient_penalty(critic, real, fake)

    monkeypatch.setattr(gan_gp, "gradient_penalty", penalty)
    model = smallest("gan_gp", CPU)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), Flops() as flops:
        model.training_step(lambda: volumes(model, CPU))
    assert flops.float32() > 0.3


@pytest.mark.parametrize("name", MODELS)
def test_every_network_compiles_as_one_graph(name):
    model, calls = smallest(name, CPU), {}
    for child in dict(model.named_children()).values():
        child.register_forward_pre_hook(lambda m, given: calls.setdefault(m, given) and None)
    model.training_step(lambda: volumes(model, CPU))
    assert calls
    for network, given in calls.items():
        network._forward_pre_hooks.clear()
        given = tuple(g.detach() if isinstance(g, torch.Tensor) else g for g in given)
        torch._dynamo.reset()
        with torch.no_grad():
            torch.compile(network, fullgraph=True, backend="eager")(*given)
