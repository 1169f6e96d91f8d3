"""Features of slices: our resize and Inception against torch-fidelity's, interleaved in one run, same seeded weights.

    OMP_NUM_THREADS=1 python benchmarks/features.py            (about 5 minutes on a quiet machine)
    OMP_NUM_THREADS=1 python benchmarks/features.py --volumes 1

Both sides get the same uint8 slices of 128 x 128 (simulated brains, three views) in one batch on one thread and
give 2048 features; the weights are random, because speed does not depend on them. "difference" is the largest
one as a share of the largest value. Also: the resize alone, effnet-lite0 with its packaged weights, one whole
volume through MedicalNet's ResNet-50 beside MONAI's without dilations, and what each of our changes to the network
gains. Writes benchmarks/results/features.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import machine
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from mribench.data.simulate import simulate
from mribench.data.volume_set import VIEWS
from mribench.files import write_json
from mribench.metrics.features import medicalnet
from mribench.metrics.features.extraction import infer
from mribench.metrics.features.inception import InceptionV3
from mribench.metrics.features.slices import (
    BATCH,
    EXTRACTORS,
    fold_norms,
    for_grey,
    grey_slice,
    load_network,
    network_input,
)

INCEPTION, EFFNET, SIDE = EXTRACTORS["inception-2015"], EXTRACTORS["effnet-lite0"], 128


def seeded(network: nn.Module, seed: int) -> nn.Module:
    """Weights of a size that keeps signals alive, and norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 3:
            tensor.copy_(math.sqrt(2 / tensor[0].numel()) * torch.randn(tensor.shape, generator=generator))
        elif tensor.ndim == 1:
            low = 0.6 if name.endswith((".weight", "running_var")) else -0.2
            tensor.copy_(low + 0.4 * torch.rand(tensor.shape, generator=generator))
    return network.eval().requires_grad_(False)


def peer(network: nn.Module) -> nn.Module:
    """torch-fidelity's extractor with the weights of `network`."""
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    with tempfile.NamedTemporaryFile() as file:
        torch.save({**network.state_dict(), **classifier}, file.name)
        return FeatureExtractorInceptionV3("peer", ["2048"], file.name)


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int, images: int) -> dict[str, Any]:
    """Milliseconds per image of each call, in turns, after one call each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - begun) / images)
    return {
        name: {
            "median_ms": float(np.median(t)),
            "min_ms": min(t),
            "images_per_second": 1e3 / float(np.median(t)),
        }
        for name, t in times.items()
    }


def compared(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], rounds: int) -> dict[str, Any]:
    """Both sides' times, the ratio theirs / ours, and the largest difference as a share of the largest value."""
    a, b = ours(), theirs()
    times = interleaved({"ours": ours, "theirs": theirs}, rounds, BATCH)
    ratios = {
        f"ratio_{kind}": times["theirs"][f"{kind}_ms"] / times["ours"][f"{kind}_ms"]
        for kind in ("median", "min")
    }
    return {"n": rounds, **times, **ratios, "difference": float((a - b).abs().max() / b.abs().max())}


def slices(count: int) -> np.ndarray:
    """uint8 `[count,S,S]`: the central slices of simulated brains, view after view."""
    volumes = (simulate(0, index, SIDE)[0] for index in range(-(-count // len(VIEWS))))
    planes = [grey_slice(volume, view, SIDE // 2) for volume in volumes for view in VIEWS]
    return np.stack(planes[:count])


def inception(planes: np.ndarray, rounds: int) -> dict[str, Any]:
    plain = seeded(InceptionV3(graph="2015"), 1)
    theirs, ours = peer(plain), for_grey(copy.deepcopy(plain))
    rgb = torch.from_numpy(planes)[:, None].expand(-1, 3, -1, -1).contiguous()

    def resized() -> Tensor:
        x = interpolate_bilinear_2d_like_tensorflow1x(rgb.float(), size=(299, 299), align_corners=False)
        return (x - 128) / 128

    def features() -> Tensor:
        with torch.inference_mode():
            return theirs(rgb)[0]

    return {
        "resize": compared(lambda: network_input(planes, INCEPTION), lambda: resized()[:, :1], 5 * rounds),
        "resize_and_network": compared(
            lambda: torch.from_numpy(infer(ours, network_input(planes, INCEPTION))), features, rounds
        ),
        "changes": changes(plain, ours, planes, rounds),
    }


def changes(plain: nn.Module, ours: nn.Module, planes: np.ndarray, rounds: int) -> dict[str, Any]:
    """The network alone: as built, channels last, norms folded too, one input channel too (= ours)."""
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    folded = folded.requires_grad_(False).to(memory_format=torch.channels_last)
    grey = network_input(planes, INCEPTION)
    rgb = grey.expand(-1, 3, -1, -1).contiguous()
    rgb_last = rgb.contiguous(memory_format=torch.channels_last)
    calls = {
        "as_built": lambda: infer(plain, rgb),
        "channels_last": lambda: infer(last, rgb_last),
        "norms_folded": lambda: infer(folded, rgb_last),
        "one_channel": lambda: infer(ours, grey),
    }
    return interleaved(calls, rounds, len(planes))


def effnet(planes: np.ndarray, rounds: int) -> dict[str, Any]:
    network = load_network(EFFNET, None)
    calls = {
        "resize": lambda: network_input(planes, EFFNET),
        "resize_and_network": lambda: infer(network, network_input(planes, EFFNET)),
    }
    return interleaved(calls, rounds, len(planes))


def whole_volume(volume: np.ndarray, rounds: int) -> dict[str, Any]:
    """One volume; MONAI's ResNet-50 strides where ours dilates, so it has an eighth of the last stages' work."""
    from monai.networks.nets import resnet50

    ours = seeded(medicalnet.ResNet50(), 2)
    theirs = resnet50(
        spatial_dims=3, n_input_channels=1, feed_forward=False, bias_downsample=False, conv1_t_stride=2
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    pixels = medicalnet.network_input(volume)
    return interleaved(
        {"ours": lambda: infer(ours, pixels), "monai": lambda: infer(theirs, pixels)}, rounds, 1
    )


def measure(rounds: int, volumes: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    planes = slices(BATCH)
    result: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python " + " ".join(sys.argv),
        "batch": BATCH,
        "threads": 1,
        "image": [SIDE, SIDE],
        "inception_2015": inception(planes, rounds),
        "effnet_lite0": effnet(planes, rounds),
    }
    if volumes:
        result["medicalnet_resnet50"] = whole_volume(simulate(0, 0, SIDE)[0], volumes)
    return {**result, "machine": machine("monai", "torch-fidelity")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--volumes", type=int, default=3, help="rounds of a whole volume; 0 leaves it out")
    arguments = parser.parse_args()
    result = measure(arguments.rounds, arguments.volumes)
    write_json(Path(__file__).resolve().parent / "results" / "features.json", result)
    print(json.dumps(result, indent=1))
    both = result["inception_2015"]["resize_and_network"]
    print(
        f"ours {both['ours']['images_per_second']:.2f} img/s, torch-fidelity "
        f"{both['theirs']['images_per_second']:.2f}, ratio {both['ratio_median']:.2f} (minima {both['ratio_min']:.2f})"
    )


if __name__ == "__main__":
    main()
