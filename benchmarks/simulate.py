"""Simulated subjects: seconds each, mean pairwise MS-SSIM at 128^3, folded voxels, and a montage.

    python benchmarks/simulate.py --subjects 64         (about 5 minutes on 2 cores)

Writes benchmarks/results/simulate.json and docs/simulated-cohort.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from provenance import machine

from mribench.data import simulate as simulator
from mribench.data.anatomy import mni_anatomy
from mribench.data.grid import PAPER_FOV_MM, paper_grid
from mribench.files import atomic, write_json
from mribench.metrics.arrays.similarity import definition_for
from mribench.metrics.ms_ssim import mean_of_pairs, ms_ssim_matrix
from mribench.metrics.statistics.jackknife import leave_out, squared_error

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
SHOWN = (1, 17, 25, 30, 45, 52)
TRUTHS = ("age", "ventricle_mm", "atrophy", "strength", "brain_cm3", "gm_cm3", "wm_cm3", "csf_cm3")


def seconds_each(size: int, repeats: int) -> dict[str, float]:
    """Median wall and processor seconds of one subject, with the template already loaded."""
    walls, processors = [], []
    for index in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        simulator.simulate(SEED, index, size)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {"wall": float(np.median(walls)), "processor": float(np.median(processors))}


def folded_voxels(index: int) -> int:
    """Brain voxels at 128^3 whose map into the template, affine part included, has a Jacobian <= 0.

    Independent of the simulator's own check: one-sided differences on the output grid.
    """
    traits = simulator._draw_traits(simulator._generator(SEED, index, "traits"))
    warp = simulator._draw_warp(simulator._generator(SEED, index, "warp"), traits.ventricle_mm)
    points = simulator._template_points(simulator._finer_lattice(paper_grid(128), (1, 1, 1)), traits, warp)
    anatomy = mni_anatomy()
    brain = anatomy.lattice.sample(anatomy.brain, points, "zeros")[0].numpy() > 0.5
    x, y, z = (np.diff(points.numpy(), axis=axis)[:127, :127, :127] for axis in (2, 1, 0))
    jacobian = (x * np.cross(y, z)).sum(axis=-1)
    return int(((jacobian <= 0) & brain[:127, :127, :127]).sum())


def diversity(volumes: np.ndarray) -> dict[str, Any]:
    """Mean MS-SSIM over all pairs of `[N,128,128,128]`, with its jackknife standard error over subjects."""
    started = time.perf_counter()
    matrix, n = ms_ssim_matrix(volumes), len(volumes)
    mean = mean_of_pairs(matrix, np.arange(n))
    variance = squared_error(mean, leave_out(lambda keep: mean_of_pairs(matrix, keep), n), n)
    pairs = matrix[np.triu_indices(n, 1)]
    return {
        "definition": definition_for(128).name,
        "mean": mean,
        "standard_error": variance**0.5,
        "pairs": len(pairs),
        "sd_of_pairs": float(pairs.std()),
        "lowest": float(pairs.min()),
        "highest": float(pairs.max()),
        "seconds": time.perf_counter() - started,
    }


def spread(truths: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    columns = {name: np.array([truth[name] for truth in truths]) for name in TRUTHS}
    return {
        name: {
            "mean": float(column.mean()),
            "sd": float(column.std(ddof=1)),
            "lowest": float(column.min()),
            "highest": float(column.max()),
        }
        for name, column in columns.items()
    }


def touching(volumes: np.ndarray) -> dict[str, float]:
    """Share of subjects whose brain reaches an edge of the field of view (the lower one is cut on purpose)."""
    faces = {"top": volumes[:, -1], "posterior": volumes[:, :, 0], "anterior": volumes[:, :, -1]}
    faces |= {"left": volumes[..., 0], "right": volumes[..., -1]}
    return {name: float(face.any(axis=(1, 2)).mean()) for name, face in faces.items()}


def draw(path: Path, volumes: list[np.ndarray], truths: list[dict[str, float]]) -> None:
    """Two subjects a row: axial, coronal and sagittal slices of each, in true proportions."""
    rows = len(volumes) // 2
    figure, axes = plt.subplots(rows, 6, figsize=(12, 2 * rows), facecolor="k")
    for row, volume, truth in zip(axes.reshape(-1, 3), volumes, truths, strict=True):
        draw_views(row, volume)
        row[0].text(2, 0, f"simulated, age {truth['age']:.0f}", color="0.75", fontsize=7)
    figure.subplots_adjust(0, 0.01, 1, 1, 0, 0.02)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="k")


def draw_views(row: np.ndarray, volume: np.ndarray) -> None:
    x, y, z = PAPER_FOV_MM
    views = (volume[72], x, y), (volume[:, 64], x, z), (volume[..., 64], y, z)
    for axis, (picture, width, height) in zip(row, views, strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, origin="lower", extent=(0, width, 0, height))
        axis.set(ylim=((height - y) / 2, (height + y) / 2))
        axis.axis("off")


def measure(count: int) -> dict[str, Any]:
    started = time.perf_counter()
    simulator.simulate(SEED, 0, 32)
    first = time.perf_counter() - started
    seconds = {str(size): seconds_each(size, 9) for size in (32, 64, 128)}
    made = [simulator.simulate(SEED, index, 128) for index in range(count)]
    volumes, truths = np.stack([volume for volume, _ in made]), [truth for _, truth in made]
    draw(ROOT / "docs/simulated-cohort.png", [volumes[i] for i in SHOWN], [truths[i] for i in SHOWN])
    return {
        "recipe": simulator.RECIPE,
        "seed": SEED,
        "subjects": count,
        "seconds_a_subject": seconds,
        "seconds_first_call": first,
        "ms_ssim": diversity(volumes),
        "folded_voxels": sum(folded_voxels(index) for index in range(count)),
        "jacobian_min": min(truth["jacobian_min"] for truth in truths),
        "weakened_subjects": sum(truth["strength"] < simulator.STRENGTH for truth in truths),
        "touches_edge": touching(volumes),
        "truth": spread(truths),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=64, help=f"more than {max(SHOWN)}")
    result = measure(parser.parse_args().subjects)
    write_json(ROOT / "benchmarks/results/simulate.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
