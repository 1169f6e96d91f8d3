"""About an hour of one CPU core: cDPM `tiny-x0` trained on the demo cohort, sampled, scored beside the controls.

    python benchmarks/cdpm_hour.py --bench DIR          (run it again after a kill: it goes on)

Writes benchmarks/results/cdpm_hour.json, docs/cdpm-hour.png (montage) and docs/cdpm-hour-curve.png.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib.pyplot as plt
import trainings
from plausibility import seam_ratio
from trainings import ROOT

from mribench.bench.cohort import start_cohort
from mribench.bench.folder import Bench, Run, start_bench
from mribench.files import write_json

SETTINGS = {"budget": 8_000, "ema": 0.999}


def measure(bench: Bench, run: Run) -> dict:
    """Cost, heads, seams at stage borders, scores of all entrants."""
    reference = start_cohort(bench, trainings.quiet).set("reference").stack()
    measured = trainings.measure(bench, run)
    per_stage = measured["config"]["stage_slices"]
    return {
        **trainings.provenance(run, "python benchmarks/cdpm_hour.py"),
        **measured,
        "seam_ratio": seam_ratio(run.samples().stack(), reference, per_stage),
        "seam_ratio_of_real": seam_ratio(reference[::2], reference[1::2], per_stage),
        "scores": {each.name: trainings.scores(each) for each in bench.entrants()},
    }


def montage(bench: Bench, run: Run, path: Path) -> None:
    cohort = start_cohort(bench, trainings.quiet)
    rows = [("real", cohort.set("reference")[i]) for i in range(2)]
    rows += [("cDPM", run.samples()[i]) for i in range(5)]
    figure, axes = plt.subplots(len(rows), 3, figsize=(6, 2 * len(rows)))
    for cells, (title, volume) in zip(axes, rows, strict=True):
        trainings.three_views(cells, volume, cohort.grid.spacing_mm)
        cells[0].set_ylabel(title)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def curve(run: Run, path: Path) -> None:
    lines = trainings.progress_lines(run)
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.semilogy([r["seen"] for r in lines], [r["losses"]["loss"] for r in lines], ".", ms=2, alpha=0.5)
    axis.set_xlabel("volumes seen")
    axis.set_ylabel("loss of one step")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("cdpm-hour-bench"))
    bench = start_bench(parser.parse_args().bench, "demo")
    run = trainings.train(bench, "cdpm", SETTINGS, "tiny-x0")
    trainings.sample(bench, run)
    trainings.score_all(bench)
    result = measure(bench, run)
    write_json(ROOT / "benchmarks" / "results" / "cdpm_hour.json", result)
    montage(bench, run, ROOT / "docs" / "cdpm-hour.png")
    curve(run, ROOT / "docs" / "cdpm-hour-curve.png")
    print({k: v for k, v in result.items() if k not in ("heads", "config")})


if __name__ == "__main__":
    main()
