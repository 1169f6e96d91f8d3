"""Is everything on disk still what was recorded?"""

from __future__ import annotations

from mribench.bench.folder import Bench, Run
from mribench.data.cohort import open_cohort
from mribench.data.volume_set import Progress
from mribench.errors import MribenchError


def verify(bench: Bench, progress: Progress) -> list[str]:
    """Re-hash the cohort, weights and samples; returns one sentence per thing that is not as recorded."""
    problems = []
    if (bench.cohort_folder / "volumes.json").exists():
        names = open_cohort(bench.cohort_folder).altered()
        problems += [f"cohort volume {name} is not what volumes.json records" for name in names]
    runs = bench.runs()
    for done, run in enumerate(runs):
        progress("runs", done + 1, len(runs))
        problems += _verify_run(run)
    return problems


def _verify_run(run: Run) -> list[str]:
    try:
        problems = []
        if run.weights_record.exists() and not run.is_trained():
            problems.append(f"{run.name}: the weights are not what weights.json and run.json record")
        if run.samples_record.exists():
            samples = run.samples()
            for i in range(len(samples)):
                try:
                    samples[i]
                except MribenchError as error:
                    problems.append(f"{run.name}: {error}")
        return problems
    except MribenchError as error:
        return [f"{run.name}: {error}"]
