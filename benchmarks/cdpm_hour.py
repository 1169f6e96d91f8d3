"""About an hour of one CPU core: cDPM `tiny` trained on the demo cohort, sampled, scored beside the controls.

    python benchmarks/cdpm_hour.py --bench DIR          (run it again after a kill: it goes on)

Writes benchmarks/results/cdpm_hour.json, docs/cdpm-hour.png (montage) and docs/cdpm-hour-curve.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from plausibility import head_measures, reference_frame, seam_ratio, shows_one_head

from mribench import commands, training
from mribench.bench import Bench, Run
from mribench.files import read_json, write_json
from mribench.reports.html import write_report

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"budget": 8_000, "ema": 0.999}


def quiet(what: str, done: int, total: int) -> None:
    if done == total:
        print(what, done, flush=True)


def train(bench: Bench) -> Run:
    cohort = commands.start_cohort(bench, quiet)
    run, record = commands.plan_training(bench, cohort, "cdpm", "tiny", SETTINGS, 0)
    logged = 0
    for progress in commands.train(bench, cohort, run, record, device="cpu", overwrite=False):
        if progress.step >= logged + 20 or progress.seen >= SETTINGS["budget"]:
            training.append_record(run, progress)
            logged = progress.step
            print(progress, flush=True)
    return run


def score(bench: Bench, run: Run) -> None:
    cohort = commands.start_cohort(bench, quiet)
    for _ in commands.generate(bench, run, None, device="cpu", batch=8, overwrite=False):
        pass
    for control, count in commands.possible_controls(bench, cohort):
        for _ in commands.make_control(bench, cohort, control, count, overwrite=False):
            pass
    runs = commands.entrants(bench)
    for each in runs:
        commands.evaluate(bench, cohort, each, weights=None, device="cpu", overwrite=False, progress=quiet)
    commands.embed(bench, cohort, runs, weights=None, device="cpu", progress=quiet)
    print(write_report(bench))


def measure(bench: Bench, run: Run) -> dict:
    reference = commands.start_cohort(bench, quiet).set("reference").stack()
    samples = run.samples().stack()
    size, background = reference_frame(reference)
    heads = [head_measures(volume, size, background) for volume in samples]
    scores = {
        each.name: {
            s["metric"]: {k: s[k] for k in ("value", "low", "high", "target")}
            for s in read_json(each.scores)["scores"]
        }
        for each in commands.entrants(bench)
    }
    record = read_json(run.weights_record)
    return {
        "command": "python benchmarks/cdpm_hour.py",
        "machine": platform.processor() or platform.machine(),
        "versions": read_json(run.record)["versions"],
        "config": read_json(run.record)["config"],
        "training_seconds": record["seconds"],
        "seen": record["seen"],
        "device": record["device"],
        "share_with_one_head": float(np.mean([shows_one_head(h) for h in heads])),
        "heads": heads,
        "seam_ratio": seam_ratio(samples, reference, read_json(run.record)["config"]["stage_slices"]),
        "seam_ratio_of_real": seam_ratio(reference[::2], reference[1::2], 8),
        "scores": scores,
    }


def montage(bench: Bench, run: Run, path: Path) -> None:
    cohort = commands.start_cohort(bench, quiet)
    rows = [("real", cohort.set("reference")[i]) for i in range(2)]
    rows += [("cDPM", run.samples()[i]) for i in range(5)]
    x, y, z = cohort.grid.spacing_mm
    figure, axes = plt.subplots(len(rows), 3, figsize=(6, 2 * len(rows)))
    for cells, (title, v) in zip(axes, rows, strict=True):
        n = len(v) // 2
        views = ((v[n], y / x), (v[:, n], z / x), (v[:, :, n], z / y))
        for cell, (image, aspect) in zip(cells, views, strict=True):
            cell.imshow(image, cmap="gray", vmin=0, vmax=1, origin="lower", aspect=aspect)
            cell.set_xticks([]), cell.set_yticks([])
        cells[0].set_ylabel(title)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def curve(run: Run, path: Path) -> None:
    lines = [json.loads(line) for line in run.progress.read_text().splitlines()]
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.semilogy([r["seen"] for r in lines], [r["losses"]["loss"] for r in lines], ".", ms=2, alpha=0.5)
    axis.set_xlabel("volumes seen")
    axis.set_ylabel("loss of one step")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("cdpm-hour-bench"))
    bench = commands.start_bench(parser.parse_args().bench, "demo", False)
    run = train(bench)
    score(bench, run)
    result = measure(bench, run)
    write_json(ROOT / "benchmarks" / "results" / "cdpm_hour.json", result)
    montage(bench, run, ROOT / "docs" / "cdpm-hour.png")
    curve(run, ROOT / "docs" / "cdpm-hour-curve.png")
    print({k: v for k, v in result.items() if k not in ("heads", "config")})


if __name__ == "__main__":
    main()
