"""What one training step and one sample of each model cost: counted FLOPs, peak memory, seconds on this CPU.

    python benchmarks/costs.py [--preset paper] [--models vae_gan,gan_gp]     (batches of one; a process per model)

FLOPs are those that the tensors' shapes imply (2 per multiplication and addition), backward passes and gradient
penalties included. Memory is the process's peak resident memory with weights, Adam and one volume, in float32.
Sampling counts one network pass per diffusion step, so ancestral samplers are counted from few steps and scaled.
Writes benchmarks/results/costs-PRESET.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from provenance import machine, peak_gib
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mribench.bench.folder import versions
from mribench.files import read_json, write_json
from mribench.models import MODELS, get_model
from mribench.runtime import Noise, seed_everything

RESULTS = Path(__file__).resolve().parent / "results"
COUNTED_STEPS = 1  # diffusion steps that are really run to count a sampler


class Flops(TorchDispatchMode):
    """Adds up the FLOPs of convolutions, matrix products and attention, also where gradients are differentiated.

    (FlopCounterMode, whose formulas these are, follows modules by hooks that torch.autograd.grad refuses.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def one_step(model: str, preset: str) -> dict[str, Any]:
    """FLOPs, seconds and memory of the second training step (the first makes Adam's state)."""
    kind = get_model(model)
    seed_everything(0)
    generator = kind(kind.build_config(preset, batch_size=1))
    size, drawn = generator.config.size, []

    def next_batch() -> torch.Tensor:
        drawn.append(1)
        return torch.rand(1, 1, size, size, size) * 2 - 1

    generator.training_step(next_batch)
    drawn.clear()
    counter, begun = Flops(), time.monotonic()
    with counter:
        generator.training_step(next_batch)
    return {
        "parameters": generator.parameter_count(),
        "budget": kind.build_config(preset).budget,
        "volumes_per_step": len(drawn),
        "training_step_gflop": counter.total / 1e9,
        "training_step_seconds": time.monotonic() - begun,
        "training_peak_gib": peak_gib(),
    }


def one_sample(model: str, preset: str) -> dict[str, Any]:
    """FLOPs, seconds and memory of one volume."""
    kind = get_model(model)
    config, scale = kind.build_config(preset), 1.0
    name = "calls" if getattr(config, "sampler", None) else "ddim_steps"
    steps = getattr(config, name, None) or getattr(config, "steps", None)
    if steps:
        config, scale = kind.build_config(preset, **{name: COUNTED_STEPS}), steps / COUNTED_STEPS
    seed_everything(0)
    generator = kind(config).eval()
    counter, begun = Flops(), time.monotonic()
    with counter:
        generator.sample(Noise([0]))
    return {
        "sample_gflop": counter.total / 1e9 * scale,
        "sample_seconds": (time.monotonic() - begun) * scale,
        "sample_peak_gib": peak_gib(),
    }


PARTS = {"step": one_step, "sample": one_sample}


def in_a_process(part: str, model: str, preset: str) -> dict[str, Any]:
    """The same in a process of its own, whose peak memory is its own."""
    command = [sys.executable, __file__, "--part", part, "--models", model, "--preset", preset]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--part", choices=PARTS)
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](models[0], arguments.preset)))
        return
    path = RESULTS / f"costs-{arguments.preset}.json"
    costs = read_json(path)["models"] if path.exists() else {}
    for model in models:
        costs[model] = {
            k: v for part in PARTS for k, v in in_a_process(part, model, arguments.preset).items()
        }
        print(model, costs[model], flush=True)
        write_json(
            path,
            {
                "command": f"python benchmarks/costs.py --preset {arguments.preset}",
                "machine": machine(),
                "threads": torch.get_num_threads(),
                "versions": versions(),
                "batch_size": 1,
                "models": costs,
            },
        )


if __name__ == "__main__":
    main()
