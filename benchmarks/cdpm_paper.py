"""Cost of cDPM: seconds and peak memory of training steps and of one volume, fp32 and bf16.

    python benchmarks/cdpm_paper.py --part train      200 training steps, batch 3, 20 slices of 128 x 128
    python benchmarks/cdpm_paper.py --part sample     one volume in 13 stages at DDIM-50; 25 ancestral steps
    python benchmarks/cdpm_paper.py --part resume --bench DIR    600 volumes; kill it, call it again

On a CUDA device the preset is `paper`; without one the same script runs `tiny` on the CPU, and says so. The bound
printed beside a figure is arithmetic: 2.71 TFLOP a call of 20 slices (forward), three times that a training step.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from mribench import training
from mribench.bench.cohort import start_cohort
from mribench.bench.folder import start_bench, versions
from mribench.bench.records import TrainingStep
from mribench.files import write_json
from mribench.models.cdpm import CDPM
from mribench.runtime import Noise, derive, make_context, seed_everything

ROOT = Path(__file__).resolve().parent.parent
PFLOP_STEP = 3 * 3 * 2.710e-3  # batch 3, forward and backward, 20 slices at 128 x 128


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_gib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def model(device: torch.device, **overrides) -> CDPM:
    seed_everything(0)
    return CDPM(CDPM.build_config("paper" if device.type == "cuda" else "tiny-x0", **overrides)).to(device)


def train(device: torch.device, steps: int, bf16: bool) -> dict:
    net = model(device)
    size = net.config.size
    batch = torch.rand(net.config.batch_size, 1, size, size, size, device=device) * 2 - 1
    times = []
    for step in range(steps):
        seed_everything(derive(0, "step", step))
        synchronise(device)
        begun = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = net.training_step(lambda: batch)
        synchronise(device)
        times.append(time.perf_counter() - begun)
    seconds = sorted(times[steps // 10 :])[len(times[steps // 10 :]) // 2]
    return {
        "steps": steps,
        "precision": "bf16" if bf16 else "fp32",
        "median_seconds_a_step": seconds,
        "peak_gib": peak_gib(device),
        "sustained_tflops": 1000 * PFLOP_STEP / seconds if device.type == "cuda" else None,
        "last_loss": float(losses["loss"]),
        "hours_for_200000_steps": seconds * 200_000 / 3600 if device.type == "cuda" else None,
    }


def sample(device: torch.device) -> dict:
    ddim = 50 if device.type == "cuda" else 8
    net = model(device, ddim_steps=ddim).eval()
    begun = time.perf_counter()
    net.sample(Noise([1], device))
    synchronise(device)
    whole = time.perf_counter() - begun
    ancestral = model(device, ddim_steps=None, steps=25).eval()
    begun = time.perf_counter()
    ancestral.sample(Noise([1], device))
    synchronise(device)
    short = time.perf_counter() - begun
    return {
        "ddim_steps": ddim,
        "seconds_a_volume": whole,
        "seconds_of_25_ancestral_steps_in_every_stage": short,
        "seconds_a_volume_at_1000_steps_extrapolated": short * 1000 / 25,
        "peak_gib": peak_gib(device),
    }


PROTOCOL = """
name = "resume"
version = 1
seed = 0
[cohort]
source = "simulated"
size = {size}
train = 4
reference = 2
holdout = 0
[evaluation]
samples = 2
tsne_samples = 2
"""


def resume(device: torch.device, folder: Path) -> dict:
    """A real run through the loop on four volumes; says at which step this call began."""
    size, preset = (128, "paper") if device.type == "cuda" else (32, "tiny")
    folder.mkdir(parents=True, exist_ok=True)
    protocol = folder / "resume.toml"
    protocol.write_text(PROTOCOL.format(size=size))
    bench, context = start_bench(folder / "bench", str(protocol)), make_context(device.type)
    cohort = start_cohort(bench, context.progress)
    plan = training.plan_training(bench, cohort, "cdpm", preset, {"budget": 600}, 0)
    steps: list[TrainingStep] = []
    training.train(bench, cohort, plan, context, on_step=steps.append)
    return {
        "first_step_of_this_call": steps[0].step if steps else None,
        "last_step": steps[-1].step if steps else None,
        "weights": plan.run.weights.exists(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["train", "sample", "resume"], required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--bench", type=Path, default=Path("resume-bench"))
    arguments = parser.parse_args()
    context = make_context("auto")
    device = context.device
    if arguments.part == "train":
        results = [train(device, arguments.steps, bf16) for bf16 in (False, True)]
    else:
        results = [sample(device) if arguments.part == "sample" else resume(device, arguments.bench)]
    record = {
        "command": f"python benchmarks/cdpm_paper.py --part {arguments.part} --steps {arguments.steps}",
        "preset": "paper" if device.type == "cuda" else "tiny (no CUDA device: the GPU is unmeasured)",
        "device": context.described().model_dump(),
        "versions": versions(),
        "results": results,
    }
    print(record)
    write_json(ROOT / "benchmarks" / "results" / f"cdpm_{device.type}_{arguments.part}.json", record)


if __name__ == "__main__":
    main()
