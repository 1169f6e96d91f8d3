"""One batch over several processes: each has some of its rows, and every result is that of the whole batch.

Gradients, statistics and random numbers are those of one process with all rows. In one process nothing here computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mribench import processes
from mribench.errors import UsageError


@dataclass(frozen=True)
class Rows:
    """The rows [start, stop) of a batch of `whole` that this process has."""

    start: int
    stop: int
    whole: int

    @property
    def share(self) -> float:
        """What the mean over these rows weighs in the mean over the batch."""
        return (self.stop - self.start) / self.whole


def rows_of(batch_size: int) -> Rows:
    """This process's rows: consecutive, as many as any other's or one more.

    Raises UsageError when there are more processes than rows.
    """
    rank, size = processes.rank(), processes.size()
    if batch_size < size:
        raise UsageError(
            f"Every process must have a volume of each batch, but {size} processes share batches of {batch_size}. "
            f"Start at most {batch_size}, or raise --set batch_size (it is the batch of all processes together)."
        )
    return Rows(rank * batch_size // size, (rank + 1) * batch_size // size, batch_size)


_rows: Rows | None = None  # of the training step that is being computed by several processes


@contextmanager
def joint_batch(batch_size: int) -> Iterator[None]:
    """Inside, a batch is that of all processes together."""
    global _rows
    _rows = rows_of(batch_size) if processes.size() > 1 else None
    try:
        yield
    finally:
        _rows = None


def own_rows(draw: Callable[[int], Tensor], count: int) -> Tensor:
    """`draw(count)`; in a joint batch, this process's `count` rows of what is drawn for the whole batch."""
    if _rows is None:
        return draw(count)
    return draw(_rows.whole)[_rows.start : _rows.stop]


def draw_normal(count: int, *shape: int, like: Tensor) -> Tensor:
    """Standard normal `[count,*shape]` of the type and on the device of `like`."""
    return own_rows(lambda n: torch.randn(n, *shape, dtype=like.dtype, device=like.device), count)


def draw_uniform(count: int, *shape: int, like: Tensor) -> Tensor:
    """Uniform in [0,1) `[count,*shape]` of the type and on the device of `like`."""
    return own_rows(lambda n: torch.rand(n, *shape, dtype=like.dtype, device=like.device), count)


def draw_normal_like(x: Tensor) -> Tensor:
    """Standard normal `[count,...]`, laid out in memory as `x` is: that decides which voxel gets which number."""
    if _rows is None:
        return torch.randn_like(x)
    order = [0, *sorted(range(1, x.dim()), key=x.stride, reverse=True)]
    back = [order.index(dim) for dim in range(x.dim())]
    shape = [x.shape[dim] for dim in order[1:]]

    def draw(count: int) -> Tensor:
        return torch.empty(count, *shape, dtype=x.dtype, device=x.device).permute(back).normal_()

    return own_rows(draw, len(x))


class _Total(torch.autograd.Function):
    """The sum over the processes. Its derivative is the sum of theirs, so it can be differentiated again and again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        processes.add_up([total])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])


def total(x: Tensor) -> Tensor:
    """`x` summed over the processes; differentiable any number of times."""
    result: Tensor = _Total.apply(x)
    return result


def whole_batch(x: Tensor) -> Tensor:
    """The rows of all processes, `[whole,...]`, of `x [rows,...]`; differentiable any number of times."""
    if _rows is None:
        return x
    around = [0, 0] * (x.dim() - 1) + [_rows.start, _rows.whole - _rows.stop]
    return total(F.pad(x, around))


def own_part(x: Tensor) -> Tensor:
    """This process's rows of `x [whole,...]`."""
    return x if _rows is None else x[_rows.start : _rows.stop]


def own_share(loss: Tensor) -> Tensor:
    """A mean over this process's rows as its part of the mean over the batch."""
    return loss if _rows is None else loss * _rows.share


def add_up_gradients(gradients: Sequence[Tensor], bad: Tensor) -> Tensor:
    """Replace the gradients of this process's share of a loss by those of the whole; `bad` if it is so anywhere."""
    if _rows is None:
        return bad
    anywhere = bad.to(gradients[0].dtype)
    processes.add_up([*gradients, anywhere])
    return anywhere > 0


def joint_losses(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses of the whole batch from those of this process's rows."""
    if _rows is None or not losses:
        return dict(losses)
    values = torch.stack([loss.detach().double() * _rows.share for loss in losses.values()])
    processes.add_up([values])
    return dict(zip(losses, values.unbind(), strict=True))


def join_statistics(network: nn.Module) -> None:
    """Let every BatchNorm of a network use the statistics of the joint batch while it is trained in one."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.forward = partial(_normalise, layer, layer.forward)  # type: ignore[method-assign]


def _normalise(layer: _BatchNorm, alone: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if _rows is None or not layer.training:
        return alone(x)
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    count, mean, variance = _moments(exact)
    _update(layer, count, mean.detach(), variance.detach())
    shape = [1, -1, *[1] * (x.dim() - 2)]
    scale = (variance + layer.eps).rsqrt()
    shift = -mean * scale
    if layer.affine:
        scale, shift = scale * layer.weight, shift * layer.weight + layer.bias
    return torch.addcmul(shift.reshape(shape), exact, scale.reshape(shape)).to(x.dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values a channel, their mean and variance `[C]` over the batches `[B,C,...]` of all processes."""
    dims = [0, *range(2, x.dim())]
    mean = x.mean(dims)
    squares = (x - mean.reshape(1, -1, *[1] * (x.dim() - 2))).square().sum(dims)
    mine = torch.cat([mean, squares, mean.new_full((1,), x.numel() // x.shape[1])])
    every = total(F.pad(mine[None], [0, 0, processes.rank(), processes.size() - processes.rank() - 1]))
    means, squares, counts = every.split([len(mean), len(mean), 1], dim=1)
    count = counts.detach().sum()
    joint = (counts * means).sum(0) / count
    variance = (squares + counts * (means - joint).square()).sum(0) / count
    return count, joint, variance


def _update(layer: _BatchNorm, count: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Running statistics, with the unbiased variance, as PyTorch keeps them."""
    if layer.running_mean is None or layer.running_var is None:
        return
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    share = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked or 1)
    with torch.no_grad():
        layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share)
        layer.running_var.lerp_((variance * count / (count - 1)).to(layer.running_var.dtype), share)
