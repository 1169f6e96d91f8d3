"""A 3-D convolution whose second derivative is as fast as its first, for critics under a gradient penalty.

torch computes the second derivative by the weight through a forward convolution whose kernel is a whole feature map:
two thirds of a 3D-GAN-GP step on an H100 (benchmarks/results/gpu_h100.json). Here the
kernels of the first derivative do it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


def _gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    settings: tuple[list[int], list[int]],
    mask: tuple[bool, bool],
) -> list[Tensor | None]:
    """Gradients by the input and by the weight of a convolution of x, as `mask` asks."""
    stride, padding = settings
    made: list[Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, [1, 1, 1], False, [0, 0, 0], 1, [*mask, False]
    )
    return made[:2]


def _convolved(x: Tensor, weight: Tensor, settings: tuple[list[int], list[int]]) -> Tensor:
    stride, padding = settings
    return torch.ops.aten.convolution(x, weight, None, stride, padding, [1, 1, 1], False, [0, 0, 0], 1)


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: tuple[list[int], list[int]]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        return _convolved(x, weight, settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        mask = ctx.needs_input_grad[:2]
        return (*_FirstDerivative.apply(gradients[0], x, weight, ctx.settings, mask), None)


class _FirstDerivative(Function):
    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        settings: tuple[list[int], list[int]],
        mask: tuple[bool, bool],
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(gradient, x, weight)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        return tuple(_gradients(gradient, x, weight, settings, mask))

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor | None) -> tuple[Any, ...]:
        """<by_x, dgrad(g, w)> + <by_w, wgrad(x, g)>, derived by g, x and w: both are linear in each of them."""
        gradient, x, weight = ctx.saved_tensors
        by_x, by_weight = seconds
        of_gradient = of_x = of_weight = None
        if by_x is not None:
            of_gradient = _convolved(by_x, weight, ctx.settings)
            _, of_weight = _gradients(gradient, by_x, weight, ctx.settings, (False, True))
        if by_weight is not None:
            convolved = _convolved(x, by_weight, ctx.settings)
            of_gradient = convolved if of_gradient is None else of_gradient + convolved
            of_x, _ = _gradients(gradient, x, by_weight, ctx.settings, (True, False))
        return of_gradient, of_x, of_weight, None, None


def convolution(x: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    """`[B,C,D,H,W]` by `[C',C,k,k,k]` without bias, differentiable twice; the numbers are torch's own."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
    made: Tensor = _Convolution.apply(x, weight, (stride, padding))
    return made


class CriticConv3d(nn.Conv3d):
    """`nn.Conv3d` for a critic. On a CPU, where torch's own second derivative is fast, it is torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return super().forward(x)
        made = convolution(x, self.weight, list(self.stride), list(self.padding))  # type: ignore[arg-type]
        return made if self.bias is None else made + self.bias.to(made.dtype)[:, None, None, None]
