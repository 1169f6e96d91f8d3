"""Which adversaries pass the ranking: the gauntlet on simulated brains at 32^3 or 64^3.

    OMP_NUM_THREADS=1 python benchmarks/gauntlet.py --bench DIR             64 samples at 32^3, 128 training volumes
    OMP_NUM_THREADS=1 python benchmarks/gauntlet.py --bench DIR --size 64   the same at 64^3
    OMP_NUM_THREADS=1 python benchmarks/gauntlet.py --bench DIR --unlisted  other adversaries of the same classes

A run that was stopped goes on where it stopped. Writes gauntlet-SIZE.json or gauntlet-unlisted-SIZE.json into
benchmarks/results; `seconds` are those of the last run, without the cohort. `python docs/figures.py` makes the tables
of docs/gauntlet.md from them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mribench.bench.cohort import start_cohort
from mribench.bench.folder import Bench, create_bench, open_bench
from mribench.bench.protocol import EvaluationSpec, Protocol
from mribench.data.cohort import CohortSpec
from mribench.runtime import make_context
from mribench.selftest import gauntlet, gauntlet_table
from mribench.selftest.adversaries import ADVERSARIES
from mribench.selftest.unlisted import UNLISTED

ROOT = Path(__file__).resolve().parent.parent
SEED, SAMPLES, TRAIN = 2023, 64, 128


def bench_of(folder: Path, size: int) -> Bench:
    """The bench in `folder`, or a new one there; half of its held-out volumes will be fresh."""
    if (folder / "bench.json").exists():
        return open_bench(folder)
    cohort = CohortSpec(source="simulated", size=size, train=TRAIN, reference=SAMPLES, holdout=2 * SAMPLES)
    evaluation = EvaluationSpec(samples=SAMPLES, tsne_samples=SAMPLES)
    name = f"gauntlet-{size}"
    return create_bench(
        folder, Protocol(name=name, version=1, seed=SEED, cohort=cohort, evaluation=evaluation)
    )


def progress(what: str, done: int, total: int) -> None:
    print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("gauntlet-bench"))
    parser.add_argument("--size", type=int, choices=(32, 64), default=32)
    parser.add_argument("--unlisted", action="store_true")
    options = parser.parse_args()
    bench = bench_of(options.bench, options.size)
    cohort = start_cohort(bench, progress)
    adversaries = UNLISTED if options.unlisted else ADVERSARIES
    context = make_context("cpu", progress=progress)
    record = gauntlet.run(bench, cohort, context, most=SAMPLES, adversaries=adversaries)
    which = " --unlisted" if options.unlisted else ""
    command = f"python benchmarks/gauntlet.py --size {options.size}{which}"
    name = f"gauntlet{'-unlisted' if options.unlisted else ''}-{options.size}.json"
    record.model_copy(update={"command": command}).write(ROOT / "benchmarks" / "results" / name)
    print(gauntlet_table.markdown(record))


if __name__ == "__main__":
    main()
