"""The cohort of a bench: opened, or made where the protocol asks for simulated volumes."""

from __future__ import annotations

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort, open_cohort
from mribench.data.prepare.simulated import simulated_cohort
from mribench.data.volume_set import Progress
from mribench.errors import UsageError


def start_cohort(bench: Bench, progress: Progress) -> Cohort:
    """The bench's cohort; a simulated one is made if it is absent, a prepared one must be there already."""
    record = bench.cohort_folder / "volumes.json"
    if record.exists():
        return open_cohort(bench.cohort_folder)
    if bench.protocol.cohort.source != "simulated":
        raise UsageError(
            f"Protocol {bench.protocol.name} needs your own volumes, and this bench has none yet. "
            f"Run: mribench prepare SRC --bench {bench.folder} "
            "(or start another bench with --simulated to try it on simulated brains)."
        )
    with bench.lock("cohort"):
        if record.exists():  # another command has just finished it
            return open_cohort(bench.cohort_folder)
        return simulated_cohort(bench.cohort_folder, bench.protocol.cohort_plan, progress)
