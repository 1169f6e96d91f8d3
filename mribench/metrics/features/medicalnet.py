"""MedicalNet's ResNet-50 (Chen, Ma and Zheng 2019, "Med3D"): whole volumes to 2048 features, weights from a path.

A 3D ResNet-50 (He et al. 2016) whose last two stages dilate instead of striding. Names of parameters are those
of the published checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mribench.errors import MribenchError

NAME = "medicalnet-resnet50"
HEADS = ("conv_seg.", "fc.")  # of the tasks that it was trained for
_EXPANSION = 4
# Blocks, width, stride of the first block, dilation of all.
_STAGES = ((3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 1, 2), (3, 512, 1, 4))


class _Bottleneck(nn.Module):
    """Narrow 1x1x1, filter 3x3x3, widen 1x1x1; the skip is convolved where its shape changes."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = _EXPANSION * width
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv3d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y.add_(self.downsample(x) if self.downsample else x), inplace=True)


class ResNet50(nn.Module):
    """`[B,1,D,H,W]` to `[B,2048]`: the last stage averaged over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        inputs = 64
        for number, (count, width, stride, dilation) in enumerate(_STAGES, start=1):
            first = _Bottleneck(inputs, width, stride, dilation)
            inputs = _EXPANSION * width
            rest = (_Bottleneck(inputs, width, 1, dilation) for _ in range(count - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        for number in range(1, len(_STAGES) + 1):
            x = getattr(self, f"layer{number}")(x)
        return x.mean(dim=(-3, -2, -1))


def definition(digest: str) -> dict[str, Any]:
    """What can move a feature; `digest` is the SHA-256 of the weights' file."""
    return {"extractor": NAME, "weights": digest, "resize": "none", "input": "zscore-volume", "batch": 1}


def network_input(volume: np.ndarray) -> Tensor:
    """`[D,H,W]` -> `[1,1,D,H,W]` float32 with mean 0 and deviation 1 over all voxels; a constant one becomes 0."""
    centred = torch.from_numpy(volume).double()
    centred = centred - centred.mean()
    return (centred / centred.std(correction=0).clamp(min=1e-12)).float()[None, None]


def _read_state(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a file of weights, without the prefix "module." and the heads of other tasks.

    Raises MribenchError when the file is torn or holds anything else.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # which one depends on the place where a file is torn
        raise _refused(path, f"cannot be read as weights ({type(error).__name__}); it may be torn") from error
    state = saved.get("state_dict", saved) if isinstance(saved, dict) else saved
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _refused(path, "holds no dictionary of tensors")
    named = {str(name).removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in named.items() if not name.startswith(HEADS)}


def load_network(path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """The network with the weights in `path`, for inference; MribenchError when they are another network's."""
    state, net = _read_state(path), ResNet50()
    expected = net.state_dict()
    # Old checkpoints may lack the counters, which inference does not read.
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    state = counters | state
    shapes, given = ({name: value.shape for name, value in of.items()} for of in (expected, state))
    if wrong := sorted(name for name, _ in shapes.items() ^ given.items()):
        raise _refused(path, f"has other names or shapes, the first of {len(set(wrong))} being {wrong[0]}")
    net.load_state_dict(state)
    return net.eval().requires_grad_(False).to(device)


def _refused(path: Path, why: str) -> MribenchError:
    return MribenchError(
        f"{NAME} needs the weights that MedicalNet publishes as resnet_50.pth or resnet_50_23dataset.pth, "
        f"but {path} {why}. Give the right file with --weights-3d PATH."
    )
