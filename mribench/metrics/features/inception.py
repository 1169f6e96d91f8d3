"""Inception v3 up to its 2048 pooled features, in the two graphs that FIDs are computed with.

"2015" is the TensorFlow graph of 2015-12-05 that the FID was defined on: its average pools do not count the
padding and its last block takes a maximum. "torchvision" is the ImageNet model of that library: its average
pools count the padding everywhere (Szegedy et al. 2016, figures 5 to 7). Parameter names are torchvision's,
which the common port of the 2015 weights keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Graph = Literal["2015", "torchvision"]
_Pool = Callable[[Tensor], Tensor]


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _down_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class _ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _BlockA(nn.Module):
    """35 x 35: 1x1, 5x5, double 3x3 and a pool."""

    def __init__(self, inputs: int, pooled: int, pool: _Pool) -> None:
        super().__init__()
        self.branch1x1 = _ConvNorm(inputs, 64, 1)
        self.branch5x5_1 = _ConvNorm(inputs, 48, 1)
        self.branch5x5_2 = _ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _ConvNorm(inputs, 64, 1)
        self.branch3x3dbl_2 = _ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = _ConvNorm(inputs, pooled, 1)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch5x5_2(self.branch5x5_1(x)),
                double,
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


class _BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _ConvNorm(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = _ConvNorm(inputs, 64, 1)
        self.branch3x3dbl_2 = _ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _ConvNorm(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _down_pool(x)], 1)


class _BlockC(nn.Module):
    """17 x 17 with 7-tap filters along one axis at a time."""

    def __init__(self, middle: int, pool: _Pool) -> None:
        super().__init__()
        wide, tall = partial(_seven, wide=True), partial(_seven, wide=False)
        self.branch1x1 = _ConvNorm(768, 192, 1)
        self.branch7x7_1 = _ConvNorm(768, middle, 1)
        self.branch7x7_2 = wide(middle, middle)
        self.branch7x7_3 = tall(middle, 192)
        self.branch7x7dbl_1 = _ConvNorm(768, middle, 1)
        self.branch7x7dbl_2 = tall(middle, middle)
        self.branch7x7dbl_3 = wide(middle, middle)
        self.branch7x7dbl_4 = tall(middle, middle)
        self.branch7x7dbl_5 = wide(middle, 192)
        self.branch_pool = _ConvNorm(768, 192, 1)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(self.pool(x))], 1)


def _seven(inputs: int, outputs: int, wide: bool) -> _ConvNorm:
    if wide:
        return _ConvNorm(inputs, outputs, (1, 7), padding=(0, 3))
    return _ConvNorm(inputs, outputs, (7, 1), padding=(3, 0))


class _BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = _ConvNorm(768, 192, 1)
        self.branch3x3_2 = _ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _ConvNorm(768, 192, 1)
        self.branch7x7x3_2 = _seven(192, 192, wide=True)
        self.branch7x7x3_3 = _seven(192, 192, wide=False)
        self.branch7x7x3_4 = _ConvNorm(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), _down_pool(x)], 1)


class _BlockE(nn.Module):
    """8 x 8 with 3-tap filters along both axes side by side."""

    def __init__(self, inputs: int, pool: _Pool) -> None:
        super().__init__()
        self.branch1x1 = _ConvNorm(inputs, 320, 1)
        self.branch3x3_1 = _ConvNorm(inputs, 384, 1)
        self.branch3x3_2a = _ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _ConvNorm(inputs, 448, 1)
        self.branch3x3dbl_2 = _ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _ConvNorm(inputs, 192, 1)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.pool(x)),
        ]
        return torch.cat(branches, 1)


class InceptionV3(nn.Module):
    """`[B,3,299,299]` to `[B,2048]`; the caller scales the pixels."""

    def __init__(self, graph: _Graph) -> None:
        super().__init__()
        average = partial(
            F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=graph == "torchvision"
        )
        self.Conv2d_1a_3x3 = _ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = _ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = _ConvNorm(80, 192, 3)
        self.Mixed_5b = _BlockA(192, 32, average)
        self.Mixed_5c = _BlockA(256, 64, average)
        self.Mixed_5d = _BlockA(288, 64, average)
        self.Mixed_6a = _BlockB(288)
        self.Mixed_6b = _BlockC(128, average)
        self.Mixed_6c = _BlockC(160, average)
        self.Mixed_6d = _BlockC(160, average)
        self.Mixed_6e = _BlockC(192, average)
        self.Mixed_7a = _BlockD()
        self.Mixed_7b = _BlockE(1280, average)
        self.Mixed_7c = _BlockE(2048, average if graph == "torchvision" else _max_pool)

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_down_pool(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_down_pool(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(-2, -1))


def build(graph: _Graph, state: Mapping[str, Tensor]) -> nn.Module:
    """The network with the weights `state` for inference; classifier and auxiliary head are not needed.

    Raises RuntimeError when a name or shape differs.
    """
    net = InceptionV3(graph)
    needed = {name: value for name, value in state.items() if not name.startswith(("fc.", "AuxLogits."))}
    for name, value in net.state_dict().items():
        if name.endswith(
            "num_batches_tracked"
        ):  # old ports lack these counters, which inference does not read
            needed.setdefault(name, value)
    net.load_state_dict(needed, strict=True)
    return net.eval()
