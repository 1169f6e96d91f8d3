"""The convolution of critics: its first and second derivatives are torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mribench.models.convolution import convolution

LAYERS = [(4, 2, 1), (4, 1, 0), (3, 1, 1)]  # kernel, stride, padding


def tensors(kernel, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6, 6, dtype=dtype, requires_grad=True)
    return x, torch.randn(4, 3, kernel, kernel, kernel, dtype=dtype, requires_grad=True)


def penalty(convolve, x, weight):
    """A gradient penalty's parts: a loss of the first derivative by the input, and the plain output."""
    made = convolve(x, weight).tanh()
    first = torch.autograd.grad(made.square().sum(), x, create_graph=True)[0]
    return first.square().mean() + made.sum()


@pytest.mark.parametrize("kernel,stride,padding", LAYERS)
def test_both_derivatives_are_those_of_torch(kernel, stride, padding):
    x, weight = tensors(kernel)
    ours = torch.autograd.grad(
        penalty(lambda a, w: convolution(a, w, [stride] * 3, [padding] * 3), x, weight), (x, weight)
    )
    theirs = torch.autograd.grad(
        penalty(lambda a, w: F.conv3d(a, w, None, stride, padding), x, weight), (x, weight)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel,stride,padding", LAYERS[:2])
def test_derivatives_are_those_of_finite_differences(kernel, stride, padding):
    torch.manual_seed(1)
    x = torch.randn(1, 1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, kernel, kernel, kernel, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda a, w: convolution(a, w, [stride] * 3, [padding] * 3), (x, weight), fast_mode=True
    )


def test_it_computes_in_the_autocast_type_and_gives_the_weight_its_own():
    x, weight = tensors(4, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        made = convolution(x, weight, [2] * 3, [1] * 3)
    assert made.dtype == torch.bfloat16
    made.float().sum().backward()
    assert weight.grad.dtype == torch.float32 and x.grad.dtype == torch.float32
