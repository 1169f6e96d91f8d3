"""How much of the fine detail a sampler keeps, whatever the network: amplitude per band of spatial frequency.

    python benchmarks/samplers.py [--volumes 6]        (two minutes of one thread)

The power of simulated 128³ brains around their mean, per Fourier coefficient, gives a Gaussian whose perfect denoiser
is known. Every sampler is run with that denoiser; what comes out, over what should, is the amplitude kept. Writes
benchmarks/results/samplers.json and docs/samplers.png.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from provenance import machine

from mribench.data.simulate import simulate
from mribench.files import write_json
from mribench.models.diffusion import Diffusion, linear_betas
from mribench.models.solvers import karras_levels, level_count, solve
from mribench.runtime import Noise

ROOT = Path(__file__).resolve().parent.parent
SIZE, SEED = 128, 31
BANDS = ((1, 8), (8, 16), (16, 32), (32, 48), (48, 64))  # cycles per field of view
CALLS = (8, 12, 20, 35, 50)
TITLES = {
    "schedule": "DDIM on the schedule's own times",
    "ddim": "DDIM on Karras's levels",
    "heun": "Heun",
    "dpmpp_2s": "DPM-Solver++ 2S",
    "dpmpp": "DPM-Solver++ 2M",
}


def band_variances(count: int) -> list[float]:
    """Mean variance of a Fourier coefficient (orthonormal, volumes in [-1,1]) in each band."""
    volumes = np.stack([2 * np.asarray(simulate(SEED, i, SIZE)[0]) - 1 for i in range(count)])
    spectrum = np.abs(np.fft.fftn(volumes - volumes.mean(0), axes=(1, 2, 3), norm="ortho")) ** 2
    power = spectrum.sum(0) / (count - 1)
    axis = np.fft.fftfreq(SIZE, 1 / SIZE)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return [float(power[(radius >= low) & (radius < high)].mean()) for low, high in BANDS]


def kept(sampler: str, calls: int, variances: list[float]) -> list[float]:
    """Standard deviation of what the sampler makes over the right one, per band; every sampler here is linear."""
    variance = torch.tensor(variances)
    noise, again = Noise([0]), Noise([0])
    process = Diffusion(linear_betas(1000), "x0")
    if sampler == "schedule":

        def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            a = process.signal[t].float()[:, None]
            return a.sqrt() * variance / (a * variance + 1 - a) * x

        process.estimate = lambda x, output, t: output  # type: ignore[method-assign]  # nothing to clip
        made = process.sample(predict, noise, variance.shape, ddim_steps=calls, eta=0.0, variance="large")
    else:
        ends = (float(((1 - a) / a).sqrt()) for a in (process.signal[-1], process.signal[0]))
        levels = karras_levels(*ends, level_count(sampler, calls))
        made = solve(
            sampler, lambda z, s: variance / (variance + s**2) * z, noise, variance.shape, levels, 0.0
        )
    return (made[0] / again.normal(len(variance))[0] / variance.sqrt()).tolist()


def plot(rows: dict[str, dict[str, list[float]]], path: Path) -> None:
    figure, axes = plt.subplots(1, len(CALLS), figsize=(14, 3.2), sharey=True)
    for axis, calls in zip(axes, CALLS, strict=True):
        for sampler, title in TITLES.items():
            axis.plot(range(len(BANDS)), rows[sampler][str(calls)], "o-", ms=4, label=title)
        axis.axhline(1, color="black", lw=0.6)
        axis.set_xticks(range(len(BANDS)), [f"{low}-{high}" for low, high in BANDS], fontsize=7)
        axis.set_title(f"{calls} calls", fontsize=10)
        axis.set_ylim(0, 1.3)
    axes[0].set_ylabel("amplitude kept")
    axes[0].legend(fontsize=6, loc="lower left")
    figure.supxlabel("cycles per field of view", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", type=int, default=6)
    count = parser.parse_args().volumes
    variances = band_variances(count)
    rows = {
        sampler: {str(calls): [round(x, 4) for x in kept(sampler, calls, variances)] for calls in CALLS}
        for sampler in TITLES
    }
    result = {
        "origin": "benchmarks/samplers.py",
        "volumes": count,
        "seed": SEED,
        "bands": BANDS,
        "standard_deviation": [round(v**0.5, 4) for v in variances],
        "kept": rows,
        "machine": machine(),
    }
    write_json(ROOT / "benchmarks" / "results" / "samplers.json", result)
    plot(rows, ROOT / "docs" / "samplers.png")
    for sampler, by_calls in rows.items():
        print(sampler, by_calls)


if __name__ == "__main__":
    main()
