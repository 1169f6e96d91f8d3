"""About eight minutes of one CPU thread for each generator: `tiny` on the demo cohort, ranked beside the controls.

    OMP_NUM_THREADS=1 python benchmarks/eight_minutes.py --bench DIR [MODEL ...]    (run it again after a kill)
    python benchmarks/eight_minutes.py --bench DIR --summary

The first trains and samples the models named (all, if none); several may run side by side on one bench. The second
scores what there is and writes benchmarks/results/eight_minutes.json, docs/seven-models.png, docs/seven-curves.png.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib.pyplot as plt
import trainings
from trainings import ROOT

from mribench.bench.cohort import start_cohort
from mribench.bench.folder import Bench, Run, start_bench
from mribench.files import write_json
from mribench.models import MODELS

# Volumes seen in about 480 s of one thread of the machine named in the results.
BUDGETS = {
    "vae_gan": 11_000,
    "gan_gp": 18_000,
    "alpha_wgan": 10_400,
    "cce_gan": 9_600,
    "ha_gan": 9_000,
    "dpm3d": 3_600,
    "cdpm": 1_700,
}


def fill(bench: Bench, models: list[str]) -> None:
    """Train and sample."""
    for model in models:
        preset = "tiny-x0" if model == "cdpm" else "tiny"
        trainings.sample(bench, trainings.train(bench, model, {"budget": BUDGETS[model]}, preset))


def curves(runs: list[Run], path: Path) -> None:
    """Every loss of every model against volumes seen."""
    figure, axes = plt.subplots(2, 4, figsize=(14, 6))
    for axis, run in zip(axes.flat, runs, strict=False):
        lines = trainings.progress_lines(run)
        for name in lines[-1]["losses"]:
            axis.plot([r["seen"] for r in lines], [r["losses"][name] for r in lines], lw=0.7, label=name)
        axis.set_yscale("symlog", linthresh=0.01)
        axis.set_title(run.read_record().title, fontsize=10)
        axis.legend(fontsize=7)
    for axis in axes.flat[len(runs) :]:
        axis.set_axis_off()
    figure.supxlabel("volumes seen")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def pictures(bench: Bench, runs: list[Run], path: Path) -> None:
    """Two real volumes and four samples of each model, side by side in three views."""
    cohort = start_cohort(bench, trainings.quiet)
    sets = [("real", cohort.set("reference"))] + [(r.read_record().title, r.samples()) for r in runs]
    x, y, z = cohort.grid.spacing_mm
    count = 4
    figure, axes = plt.subplots(len(sets), 3 * count, figsize=(1.05 * 3 * count, 1.15 * len(sets)))
    for cells, (title, volumes) in zip(axes, sets, strict=True):
        for i in range(count):
            trainings.three_views(cells[3 * i : 3 * i + 3], volumes[i], (x, y, z))
        cells[0].set_ylabel(title, fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80)


def summary(bench: Bench) -> None:
    """Score, measure, draw."""
    runs = [bench.run(name) for name in MODELS if bench.run(name).samples_record.exists()]
    trainings.score_all(bench)
    result = {
        **trainings.provenance(runs[0], "python benchmarks/eight_minutes.py"),
        "models": {r.name: trainings.measure(bench, r) for r in runs},
        "scores": {r.name: trainings.scores(r) for r in bench.entrants()},
    }
    write_json(ROOT / "benchmarks" / "results" / "eight_minutes.json", result)
    pictures(bench, runs, ROOT / "docs" / "seven-models.png")
    curves(runs, ROOT / "docs" / "seven-curves.png")
    for name, model in result["models"].items():
        similarity = result["scores"][name]["ms_ssim"]["value"]
        print(f"{name}: {model['training_seconds']:.0f} s, {model['seen']} volumes, one head", end=" ")
        print(f"{model['share_with_one_head']:.0%}, MS-SSIM of samples {similarity:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=Path("eight-minutes-bench"))
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    arguments = parser.parse_args()
    bench = start_bench(arguments.bench, "demo")
    if arguments.summary:
        summary(bench)
    else:
        fill(bench, arguments.models or list(MODELS))


if __name__ == "__main__":
    main()
