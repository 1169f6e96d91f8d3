"""The parts of benchmarks/gpu.py; each is a function that yields rows, run in a process of its own.

It also runs against an older copy of the package, so it uses nothing that every version does not have.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_trace import first_difference, waits_of

from mribench.metrics.arrays.similarity import definition_for
from mribench.models import MODELS, get_model
from mribench.models.generator import Generator
from mribench.runtime import Noise, derive, make_context, seed_everything

Row = dict[str, Any]
WASSERSTEIN = ("gan_gp", "alpha_wgan", "cce_gan")
OTHERS = ("cdpm", "vae_gan", "ha_gan", "dpm3d")
COSTS = Path(__file__).resolve().parent / "results"


class Bench:
    """What every part needs: the context, the preset, and how a model is built, stepped and timed."""

    def __init__(self, device: str, preset: str) -> None:
        self.context, self.preset = make_context(device), preset
        self.cuda = self.context.device.type == "cuda"
        path = COSTS / f"costs-{preset}.json"
        self.costs = json.loads(path.read_text())["models"] if path.exists() else {}

    def wait(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def build(self, model: str, preset: str | None = None, **overrides: Any) -> Generator:
        kind = get_model(model)
        seed_everything(0)
        return kind(kind.build_config(preset or self.preset, **overrides)).to(self.context.device).train()

    def batches(self, generator: Generator) -> Callable[[], torch.Tensor]:
        """Random voxels, the same at every call."""
        c, drawing = generator.config, torch.Generator().manual_seed(1)
        batch = torch.rand(c.batch_size, 1, c.size, c.size, c.size, generator=drawing) * 2 - 1
        batch = batch.to(self.context.device)
        return lambda: batch

    def precision(self, bf16: bool) -> AbstractContextManager[Any]:
        """That of a training; a copy of the package that has no `mixed_precision` uses autocast alone."""
        context = self.context
        if bf16 and hasattr(context, "mixed_precision"):
            return context.mixed_precision()
        return torch.autocast(context.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False)

    def step(
        self, generator: Generator, batch: Callable[[], torch.Tensor], number: int, bf16: bool = True
    ) -> None:
        seed_everything(derive(0, "step", number))
        with self.precision(bf16):
            generator.training_step(batch)

    def timed(
        self,
        model: str,
        generator: Generator,
        steps: int = 5,
        warm: int = 2,
        bf16: bool = True,
        **labels: Any,
    ) -> Row:
        """Median seconds of a step, peak memory, and FLOP/s from the counted FLOPs of costs-PRESET.json."""
        batch = self.batches(generator)
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        begun = self.wait()
        for number in range(warm):
            self.step(generator, batch, number, bf16)
        first = self.wait() - begun
        seconds = []
        for number in range(steps):
            begun = self.wait()
            self.step(generator, batch, warm + number, bf16)
            seconds.append(self.wait() - begun)
        median = statistics.median(seconds)
        flop = self.costs.get(model, {}).get("training_step_gflop", 0) * generator.config.batch_size / 1e3
        return {
            "model": model,
            **labels,
            "batch": generator.config.batch_size,
            "seconds": median,
            "slowest": max(seconds),
            "tflop": flop,
            "tflops": flop / median,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if self.cuda else None,
            "warming_seconds": first,
        }


def limits(bench: Bench) -> Iterator[Row]:
    """Device, versions, and two measured ceilings."""
    row: Row = {"torch": torch.__version__, "device": "cpu"}
    if bench.cuda:
        made = torch.cuda.get_device_properties(0)
        row |= {
            "device": made.name,
            "memory_gib": made.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
        x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        row["products_bf16_tflops"] = 2 * 8192**3 / _median(bench, lambda: x @ x) / 1e12
        source = torch.randn(2**30, device="cuda")
        target = torch.empty_like(source)
        row["copy_tb_per_second"] = 8 * 2**30 / _median(bench, lambda: target.copy_(source)) / 1e12
    yield row


def _median(bench: Bench, run: Callable[[], Any], repeats: int = 10) -> float:
    for _ in range(3):
        run()
    seconds = []
    for _ in range(repeats):
        begun = bench.wait()
        run()
        seconds.append(bench.wait() - begun)
    return statistics.median(seconds)


def wasserstein(bench: Bench) -> Iterator[Row]:
    """Steps of the three models with gradient penalties."""
    for model in WASSERSTEIN:
        yield bench.timed(model, bench.build(model), steps=4)


def steps(bench: Bench) -> Iterator[Row]:
    """Steps of the other four."""
    for model in OTHERS:
        yield bench.timed(model, bench.build(model))


def before(bench: Bench) -> Iterator[Row]:
    """Few steps of every model by another copy of the package."""
    for model in (*WASSERSTEIN, *OTHERS):
        yield bench.timed(model, bench.build(model), steps=2, warm=1)


def fp32(bench: Bench) -> Iterator[Row]:
    """The same in float32."""
    for model in (*OTHERS, *WASSERSTEIN):
        yield bench.timed(model, bench.build(model), steps=2, warm=1, bf16=False)


def compiled(bench: Bench) -> Iterator[Row]:
    """The networks of the diffusion models by torch.compile."""
    for model in ("cdpm", "dpm3d"):
        generator = bench.build(model)
        made = torch.compile(generator.net)

        def forward(*given: torch.Tensor, made: Any = made) -> torch.Tensor:
            if len(given) > 6:
                torch._dynamo.mark_dynamic(given[6], 0)
            return made(*given)

        generator.net = Redirect(generator.net, forward)
        yield bench.timed(model, generator, how="compiled")


class Redirect(torch.nn.Module):
    """A network whose forward is another function."""

    def __init__(self, net: torch.nn.Module, forward: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.net, self.forward = net, forward


def _channels_last(generator: Generator) -> None:
    deep = any(isinstance(m, torch.nn.Conv3d) for m in generator.modules())
    layout = torch.channels_last_3d if deep else torch.channels_last
    for parameter in generator.parameters():
        if parameter.dim() == (5 if deep else 4):
            parameter.data = parameter.data.to(memory_format=layout)


def _choosing(_: Generator) -> None:
    torch.backends.cudnn.benchmark = True


def _any_kernel(_: Generator) -> None:
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


VARIANTS = {"channels_last": _channels_last, "any kernel": _any_kernel, "chosen by trial": _choosing}


def variants(bench: Bench) -> Iterator[Row]:
    """Layouts and choices of kernels, each on top of the last but for the first."""
    for model in ("gan_gp", "cdpm", "vae_gan"):
        for name in ("channels_last", "any kernel"):
            generator = bench.build(model)
            VARIANTS[name](generator)
            yield bench.timed(model, generator, steps=3, how=name)
            torch.use_deterministic_algorithms(True, warn_only=True)


def twice(bench: Bench) -> Iterator[Row]:
    """Whether two trainings of two steps are equal, where they first differ, and waits for the device in a step."""
    for model in (*WASSERSTEIN, *OTHERS):
        sums = []
        for _ in range(2):
            generator = bench.build(model)
            batch = bench.batches(generator)
            for number in range(2):
                bench.step(generator, batch, number)
            sums.append([float(p.detach().double().sum()) for p in generator.parameters()])
        row: Row = {"model": model, "equal": sums[0] == sums[1]}
        row["waits"] = waits_of(lambda g=generator, b=batch: bench.step(g, b, 2))
        if not row["equal"]:
            row["first_difference"] = first_difference(lambda m=model: _one_step(bench, m))
        yield row


def _one_step(bench: Bench, model: str) -> Callable[[], None]:
    generator = bench.build(model)
    batch = bench.batches(generator)
    return lambda: bench.step(generator, batch, 0)


def volumes(bench: Bench) -> Iterator[Row]:
    """Samples; the diffusion models with few network calls, and the time for 20 calls a stage."""
    for model, calls, batch in (
        ("cdpm", 2, 1),
        ("cdpm", 2, 4),
        ("cdpm", 2, 8),
        ("dpm3d", 5, 4),
        ("ha_gan", 0, 8),
    ):
        generator = bench.build(model, **({"sampler": "dpmpp", "calls": calls} if calls else {})).eval()

        def make(generator: Generator = generator, batch: int = batch) -> None:
            with torch.inference_mode(), bench.precision(True):
                generator.sample(Noise(range(batch), bench.context.device))

        seconds = _median(bench, make, 2)
        yield {
            "model": model,
            "batch": batch,
            "calls_a_stage": calls,
            "seconds_a_volume": seconds / batch,
            "at_20_calls": seconds / batch * 20 / calls if calls else None,
        }


def pairs(bench: Bench) -> Iterator[Row]:
    """MS-SSIM of pairs whose volumes are on the device, and its distance from the CPU's kernels."""
    side = 128 if bench.cuda else 32
    definition = definition_for(side)
    drawn = torch.rand(40, side, side, side, generator=torch.Generator().manual_seed(0))
    drawn = F.interpolate(drawn[:, None, ::4, ::4, ::4], (side,) * 3, mode="trilinear")[:, 0] + 0.02 * drawn
    prepared = definition.prepare(drawn.to(bench.context.device))
    rows, columns = (tuple(t[a:b] for t in prepared) for a, b in ((0, 32), (32, 40)))
    scores = definition.compare(rows, columns)
    seconds = _median(bench, lambda: definition.compare(rows, columns), 5)
    own = definition.prepare(drawn[31:33])
    exact = definition.compare(tuple(t[:1] for t in own), tuple(t[1:] for t in own))
    yield {
        "side": side,
        "pairs": scores.numel(),
        "microseconds_a_pair": 1e6 * seconds / scores.numel(),
        "from_cpu": float((scores[31, 0].cpu() - exact[0, 0]).abs()),
    }


def tiny(bench: Bench) -> Iterator[Row]:
    """Steps a second of the presets that are bound by launches."""
    for model in MODELS:
        row = bench.timed(model, bench.build(model, "tiny"), steps=30, warm=5)
        yield {"model": model, "seconds": row["seconds"], "steps_a_second": 1 / row["seconds"]}


def profiles(bench: Bench) -> Iterator[Row]:
    """The kernels that take most of a step."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if bench.cuda:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    for model in ("gan_gp", "cdpm", "vae_gan"):
        generator = bench.build(model)
        batch = bench.batches(generator)
        for number in range(2):
            bench.step(generator, batch, number)
        begun = bench.wait()
        with torch.profiler.profile(activities=kinds) as profile:
            bench.step(generator, batch, 2)
            seconds = bench.wait() - begun
        events = [e for e in profile.key_averages() if not bench.cuda or e.device_type.name == "CUDA"]
        spent = (lambda e: e.self_device_time_total) if bench.cuda else (lambda e: e.self_cpu_time_total)
        events.sort(key=spent, reverse=True)
        kernels = [{"name": e.key[:110], "ms": spent(e) / 1e3, "calls": e.count} for e in events[:22]]
        total = sum(spent(e) for e in events) / 1e3
        yield {"model": model, "seconds": seconds, "kernels_ms": total, "kernels": kernels}


PARTS = {
    part.__name__: part
    for part in (
        limits, wasserstein, steps, compiled, twice, volumes, variants, pairs, tiny, profiles, fp32, before
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("saved", type=Path)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    for row in PARTS[arguments.part](Bench(arguments.device, arguments.preset)):
        with open(arguments.saved, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
