"""What the example of docs/adding-a-model.md reaches on the demo cohort, beside the controls noise and mean_volume.

    OMP_NUM_THREADS=1 python benchmarks/newcomer.py --bench DIR        (makes a demo bench; run it again after a kill)

Trains preset `tiny` from a fresh bench, makes the protocol's samples, scores the three entrants and writes
benchmarks/results/newcomer.json: seconds of training and sampling, FID of the central slices with intervals.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import trainings
from trainings import ROOT

from mribench.bench.cohort import start_cohort
from mribench.bench.controls import CONTROLS
from mribench.bench.folder import start_bench
from mribench.bench.records import WeightsRecord
from mribench.evaluation import evaluate_run
from mribench.files import write_json
from mribench.generation import make_control
from mribench.models import MODELS
from mribench.runtime import make_context

NAME, CLASS = "ppca", "ppca:PPCA"
FIDS = ("fid_a", "fid_c", "fid_s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=Path("newcomer-bench"))
    sys.path.insert(0, str(ROOT / "docs" / "examples"))
    MODELS[NAME] = CLASS
    context = make_context("cpu", progress=trainings.quiet)
    bench = start_bench(parser.parse_args().bench, "demo")
    cohort = start_cohort(bench, context.progress)
    run = trainings.train(bench, NAME, {})
    begun = time.monotonic()
    trainings.sample(bench, run)
    sampling = time.monotonic() - begun
    entrants = [run]
    for control in (CONTROLS["noise"], CONTROLS["mean_volume"]):
        make_control(bench, cohort, control, bench.protocol.evaluation.samples, context)
        entrants.append(bench.run(control.name))
    for entrant in entrants:
        evaluate_run(bench, cohort, entrant, context)
    weights = WeightsRecord.read(run.weights_record)
    scores = {entrant.name: trainings.scores(entrant) for entrant in entrants}
    result = {
        **trainings.provenance(run, "python benchmarks/newcomer.py"),
        "threads": weights.device.threads if weights.device else None,
        "training_seconds": weights.seconds,
        "sampling_seconds": sampling,
        "volumes_seen": weights.seen,
        "lines": len((ROOT / "docs" / "examples" / "ppca.py").read_text().splitlines()),
        "fid": {name: {fid: values[fid] for fid in FIDS} for name, values in scores.items()},
    }
    write_json(ROOT / "benchmarks" / "results" / "newcomer.json", result)
    for name, values in result["fid"].items():
        print(name, *(f"{fid} {values[fid]['value']:.1f}" for fid in FIDS))
    print(f"{result['training_seconds']:.1f} s of training, {result['sampling_seconds']:.1f} s of sampling")


if __name__ == "__main__":
    main()
