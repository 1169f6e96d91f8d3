"""Seeds, exact arithmetic, and a cDPM small enough for every test, with no layer left silent."""

from __future__ import annotations

import pytest
import torch

from mribench.models.cdpm import CDPM

SMALL = {
    "size": 16,
    "base": 32,
    "multipliers": (1, 2),
    "attention_sizes": (8,),
    "tau_max": 8,
    "stage_slices": 4,
    "ddim_steps": 3,
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def jitter():
    """Moves every parameter: zero-initialised layers and unit norms would hide what happens before them."""

    def move(module: torch.nn.Module) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return module

    return move


@pytest.fixture
def fresh():
    """`fresh(**overrides)`: the preset tiny-x0 at 16^3 as its constructor leaves it."""

    def build(**overrides) -> CDPM:
        torch.manual_seed(0)
        return CDPM(CDPM.build_config("tiny-x0", **{**SMALL, **overrides}))

    return build


@pytest.fixture
def model(fresh, jitter):
    """`model(**overrides)`: the same with jittered weights, different ones in the average."""

    def build(**overrides) -> CDPM:
        generator = fresh(**overrides)
        jitter(jitter(generator.ema))
        jitter(generator.net)
        return generator

    return build


@pytest.fixture
def exact(monkeypatch):
    """float64 throughout: rounding stays far below what a wrong recipe does."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)
    yield
    torch.set_default_dtype(torch.float32)
