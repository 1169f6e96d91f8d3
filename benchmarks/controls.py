"""Which control each metric tells from held-out real volumes, on the demo protocol.

    python benchmarks/controls.py --bench DIR          (makes or finishes a demo bench without models)

Separated = the difference of the two losses, taken on the same reference volumes, has a 95 % interval above 0.
Writes benchmarks/results/controls.json; `python docs/figures.py` makes the table of docs/evidence.md from it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mribench.bench.cohort import start_cohort
from mribench.bench.controls import CONTROLS, possible_controls
from mribench.bench.folder import Bench, start_bench, versions
from mribench.bench.records import ScoresRecord
from mribench.evaluation import evaluate_run
from mribench.files import write_json
from mribench.generation import make_control
from mribench.metrics import get_metric
from mribench.metrics.score import Score
from mribench.metrics.statistics.intervals import difference
from mribench.runtime import make_context

ROOT = Path(__file__).resolve().parent.parent


def scores_of(bench: Bench) -> dict[str, dict[str, Score]]:
    """Control -> metric -> score."""
    context = make_context("cpu")
    cohort = start_cohort(bench, context.progress)
    scores = {}
    for control, count in possible_controls(cohort, bench.protocol.evaluation.samples):
        run = bench.run(control.name)
        make_control(bench, cohort, control, count, context)
        evaluate_run(bench, cohort, run, context)
        scores[control.name] = {score.metric: score for score in ScoresRecord.read(run.scores).scores}
    return scores


def row(metric: str, scores: dict[str, dict[str, Score]]) -> dict:
    real = scores["real_heldout"][metric]
    cells = {}
    for name in CONTROLS:
        score = scores[name][metric]
        low = difference(score, real)[1]
        cells[name] = {
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "separated": name != "real_heldout" and low > 0,
        }
    return {
        "metric": metric,
        "target": real.target,
        "detects": list(get_metric(metric).detects),
        "controls": cells,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("controls-bench"))
    bench = start_bench(parser.parse_args().bench, "demo")
    scores = scores_of(bench)
    rows = [row(metric, scores) for metric in bench.protocol.evaluation.metrics]
    write_json(
        ROOT / "benchmarks" / "results" / "controls.json",
        {"command": "python benchmarks/controls.py", "versions": versions(), "rows": rows},
    )


if __name__ == "__main__":
    main()
