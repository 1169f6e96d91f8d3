"""Which control each metric tells from held-out real volumes, on the demo protocol.

    python benchmarks/controls.py --bench DIR          (makes or finishes a demo bench without models)

Separated = the difference of the two losses, taken on the same reference volumes, has a 95 % interval above 0.
Prints the table of docs/metrics.md and writes benchmarks/results/controls.json.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench, versions
from mribench.commands import steps as commands
from mribench.files import read_json, write_json
from mribench.metrics import get_metric
from mribench.metrics.score import Score
from mribench.metrics.statistics.intervals import difference

ROOT = Path(__file__).resolve().parent.parent


def quiet(what: str, done: int, total: int) -> None:
    pass


def scores_of(bench: Bench) -> dict[str, dict[str, Score]]:
    cohort = commands.start_cohort(bench, quiet)
    found = {}
    for control, count in commands.possible_controls(bench, cohort):
        for _ in commands.make_control(bench, cohort, control, count, overwrite=False):
            pass
        run = bench.run(control.name)
        commands.evaluate(bench, cohort, run, weights=None, device="cpu", overwrite=False, progress=quiet)
        scores = [Score.model_validate(s) for s in read_json(run.scores)["scores"]]
        found[control.name] = {score.metric: score for score in scores}
    return found


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
        "sees": list(get_metric(metric).detects),
        "controls": cells,
    }


def markdown(rows: list[dict]) -> str:
    lines = ["| metric | target | " + " | ".join(f"`{name}`" for name in CONTROLS) + " |"]
    lines.append("|---" * (len(CONTROLS) + 2) + "|")
    for one in rows:
        target = "" if one["target"] is None else f"{one['target']:.3g}"
        cells = [
            f"{'**' if c['separated'] else ''}{c['value']:.3g}{'**' if c['separated'] else ''}"
            f"{' (declared)' if name in one['sees'] else ''}"
            for name, c in one["controls"].items()
        ]
        lines.append(f"| `{one['metric']}` | {target} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("controls-bench"))
    bench = commands.start_bench(parser.parse_args().bench, "demo", False)
    scores = scores_of(bench)
    rows = [row(metric, scores) for metric in bench.protocol.evaluation.metrics]
    write_json(
        ROOT / "benchmarks" / "results" / "controls.json",
        {"command": "python benchmarks/controls.py", "versions": versions(), "rows": rows},
    )
    print(markdown(rows))


if __name__ == "__main__":
    main()
