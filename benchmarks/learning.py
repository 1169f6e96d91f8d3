"""Which recipes learn: every model's `tiny` with other settings on one simulated cohort, scored by one protocol.

    python benchmarks/learning.py --bench DIR [MODEL ...]               (run it again after a kill: it goes on)
    python benchmarks/learning.py --bench DIR --shipped [MODEL ...]     what benchmarks/pretrain.py has trained there

The cohort is that of benchmarks/pretrain.toml; the candidates are those of benchmarks/candidates.py. Writes
benchmarks/results/learning.json (a row a trial, with seconds and settings) and docs/learning.png.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib.pyplot as plt
import numpy as np
import torch
from candidates import CANDIDATES, RUNG_1
from pretrain import BUDGETS
from provenance import machine
from trainings import three_views

from mribench.bench.cohort import start_cohort
from mribench.bench.folder import Bench, Run, open_bench, start_bench
from mribench.bench.records import ScoresRecord, WeightsRecord
from mribench.data.volume_set import Slab
from mribench.evaluation import evaluate
from mribench.files import read_json, write_json
from mribench.generation import generate
from mribench.models import MODELS
from mribench.runtime import make_context
from mribench.training import plan_training, train

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "learning.json"
PROTOCOL = ROOT / "benchmarks" / "pretrain.toml"
METRICS = ("ms_ssim", "mmd", "fid_a", "fid_c", "fid_s", "copy_rate")


def quiet(what: str, done: int, total: int) -> None:
    """No progress: one line a trial is enough."""


def neighbour_difference(volumes: np.ndarray, real: np.ndarray) -> list[float]:
    """Mean |difference of neighbouring slices| of `[N,D,H,W]` over that of real volumes, along D, H and W."""
    return [
        float(np.abs(np.diff(volumes, axis=a)).mean() / np.abs(np.diff(real, axis=a)).mean())
        for a in (1, 2, 3)
    ]


def measure(
    bench: Bench, volumes: np.ndarray, slab: Slab | None, metrics: tuple[str, ...] = METRICS
) -> dict[str, Any]:
    """Scores of `[N,D,H,W]` against the bench's reference, spread over voxels and neighbouring slices over real."""
    cohort = start_cohort(bench, quiet)
    reference = cohort.set("reference").crop(slab)
    real = reference.stack()
    train = cohort.set("train").crop(slab)
    result = evaluate(
        volumes, reference, train, metrics=metrics, cache=bench.arrays, context=make_context("cpu")
    )
    nearest, second = nearest_distances(volumes, train.stack())
    return {
        **{score.metric: round(score.value, 4) for score in result.scores},
        "spread": round(float(volumes.std(axis=0).mean() / real.std(axis=0).mean()), 3),
        "neighbours": [round(value, 3) for value in neighbour_difference(volumes, real)],
        "smallest_distance_ratio": round(float((nearest / second).min()), 3),
    }


def nearest_distances(volumes: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances of each volume to the nearest and the second nearest training volume."""
    distance = torch.cdist(torch.from_numpy(volumes).flatten(1), torch.from_numpy(train).flatten(1))
    two = distance.topk(2, largest=False).values.numpy()
    return two[:, 0], two[:, 1]


def trial(bench: Bench, model: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train, sample and measure one candidate, or read what was measured."""
    path = bench.folder / "trials" / f"{name}.json"
    if path.exists():
        return read_json(path)
    cohort, context = start_cohort(bench, quiet), make_context("cpu")
    plan = replace(plan_training(bench, cohort, model, "tiny", settings, 0), run=bench.run(name))
    begun = time.process_time()
    outcome = train(bench, cohort, plan, context)
    trained = time.process_time()
    generate(bench, plan.run, context)
    row = row_of(bench, plan.run) | {
        "model": model,
        "settings": settings,
        "sampling_cpu_seconds": round(time.process_time() - trained),
    }
    if outcome == "done":  # else it was trained by another process
        row["cpu_seconds"] = round(trained - begun)
    path.parent.mkdir(exist_ok=True)
    write_json(path, row)
    print(name, row, flush=True)
    return row


def row_of(bench: Bench, run: Run) -> dict[str, Any]:
    """What was measured of a sampled run."""
    weights, samples = WeightsRecord.read(run.weights_record), run.samples()
    return {
        "seen": weights.seen,
        "steps": weights.step,
        "seconds": round(weights.seconds),
        **measure(bench, samples.stack(), samples.slab),
    }


def controls(bench: Bench) -> dict[str, Any]:
    """What real volumes of other subjects, and the mean training volume, reach."""
    path = bench.folder / "trials" / "controls.json"
    if not path.exists():
        cohort, count = start_cohort(bench, quiet), bench.protocol.evaluation.samples
        mean = np.repeat(cohort.set("train").stack().mean(0, keepdims=True), count, axis=0)
        held_out = cohort.set("holdout").stack()[:count]
        path.parent.mkdir(exist_ok=True)
        write_json(
            path, {"real_heldout": measure(bench, held_out, None), "mean_volume": measure(bench, mean, None)}
        )
    return read_json(path)


def demo_scores(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of a demo's entrants: "scratch", "pretrained" or "control" -> name -> metric -> value."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for run in open_bench(folder).entrants():
        record = run.read_record()
        if not run.scores.exists() or run.name not in (*MODELS, "real_heldout", "mean_volume"):
            continue
        kind = "control" if record.kind == "control" else record.start.name if record.start else "scratch"
        values = {score.metric: round(score.value, 4) for score in ScoresRecord.read(run.scores).scores}
        rows.setdefault(kind, {})[run.name] = {name: values[name] for name in METRICS if name in values}
    return rows


def picture(bench: Bench, path: Path) -> None:
    """Four real volumes, and four samples of every model that benchmarks/pretrain.py has trained."""
    cohort = start_cohort(bench, quiet)
    sets = [("real", cohort.set("reference"))]
    sets += [(run.name, run.samples()) for run in bench.entrants() if run.name in MODELS]
    count = 4
    figure, axes = plt.subplots(len(sets), 3 * count, figsize=(1.05 * 3 * count, 1.1 * len(sets)))
    for cells, (title, volumes) in zip(axes, sets, strict=True):
        for i in range(count):
            three_views(cells[3 * i : 3 * i + 3], volumes[i], cohort.grid.spacing_mm)
        cells[0].set_ylabel(title, fontsize=6)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=Path("learning-bench"))
    parser.add_argument("--shipped", action="store_true", help="measure what benchmarks/pretrain.py trained")
    parser.add_argument(
        "--demo", type=Path, action="append", default=[], help="bench of a demo, for its scores"
    )
    parser.add_argument("models", nargs="*", metavar="MODEL")
    arguments = parser.parse_args()
    bench = start_bench(arguments.bench, str(PROTOCOL))
    rows = {"controls": controls(bench)}
    if arguments.shipped:
        for model in arguments.models or list(BUDGETS):
            if bench.run(model).is_trained():
                trial(bench, model, model, {"budget": BUDGETS[model]})
    else:
        for model in arguments.models or list(CANDIDATES):
            for name, settings in CANDIDATES[model].items():
                trial(bench, model, f"{model}-{name}", {"budget": RUNG_1[model], **settings})
    for path in sorted((bench.folder / "trials").glob("*.json")):
        rows[path.stem] = read_json(path)
    picture(bench, ROOT / "docs" / "learning.png")
    result = {"origin": "benchmarks/learning.py", "machine": machine(), "trials": rows}
    result["demo"] = read_json(RESULT).get("demo", {}) if RESULT.exists() else {}
    for folder in arguments.demo:
        result["demo"].update(demo_scores(folder))
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
