"""What a GPU would show, shown without one: waits for the device, networks that do not compile, float32 layers.

The device here is "meta", whose tensors have no values: whatever needs one on the host fails at once. (Fake tensors
of a CUDA device cannot run backward where there is none.)
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mribench.models import MODELS, cce_gan, get_model
from mribench.runtime import Noise, seed_everything

META = torch.device("meta")


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


def smallest(name, **overrides):
    kind = get_model(name)
    seed_everything(0)
    with META:
        model = kind(kind.build_config("tiny", **{**kind.SMALLEST, **overrides}))
    return model.train()


def volumes(model):
    size = model.config.size
    return torch.empty(model.config.batch_size, 1, size, size, size, device=META)


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
