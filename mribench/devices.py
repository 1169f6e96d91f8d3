"""Where to compute, and the switches that can move a number: chosen once per command and recorded."""

from __future__ import annotations

import platform
from typing import Any

import torch

from mribench.errors import UsageError


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" -> a device, with deterministic algorithms and TF32 off.

    Raises UsageError when CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda needs a CUDA device, and torch sees none here. Use --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # TF32 moves MS-SSIM by 3e-3 (docs/metrics.md) and is not wanted in training either: bf16 is faster.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Every buffer is written before it is read.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if name == "cuda":
        # The fused kernels have non-deterministic backward passes; attention is under 4 % of cDPM's arithmetic.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(name)


def describe(device: torch.device, precision: str = "fp32") -> dict[str, Any]:
    """What is recorded beside every product."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "tf32": torch.backends.cudnn.allow_tf32,
    }
