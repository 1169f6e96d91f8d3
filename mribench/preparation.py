"""Making the cohort of a bench from one's own scans, stripped and registered ones or raw ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from mribench import commands
from mribench.bench import Bench
from mribench.data.cohort import Cohort, open_cohort
from mribench.data.own_cohort import prepared_cohort
from mribench.data.raw_cohort import RawPlan, raw_cohort
from mribench.data.volume_set import Progress
from mribench.errors import UsageError

DEFAULT_OWN_PROTOCOL = "peng2023-heldout"


def prepare(
    folder: Path,
    protocol: str | None,
    source: Path | None,
    manifest: Path | None,
    overwrite: bool,
    progress: Progress,
    raw: RawPlan | None = None,
) -> tuple[Bench, Cohort, bool]:
    """Make the bench's cohort from own volumes; a finished one is kept unless `overwrite`. Returns whether it is new.

    `raw` says how raw scans are prepared, instead of `source` and `manifest` of stripped and registered ones.
    Raises UsageError for a protocol of simulated volumes, or when runs already depend on the cohort.
    """
    if protocol is None and not (folder / "bench.json").exists():
        protocol = DEFAULT_OWN_PROTOCOL
    bench = commands.start_bench(folder, protocol, simulated=False)
    if bench.protocol.cohort.source != "prepared":
        raise UsageError(
            f"Protocol {bench.protocol.name} makes simulated brains and takes no own volumes. "
            f"Choose another --bench and --protocol {DEFAULT_OWN_PROTOCOL}, peng2023 or a .toml file."
        )
    with bench.lock("cohort"):
        if (bench.cohort_folder / "volumes.json").exists():
            if not overwrite:
                return bench, open_cohort(bench.cohort_folder), False
            if bench.runs():
                raise UsageError(
                    f"{folder} has runs that were trained on its cohort. Prepare into another --bench."
                )
            shutil.rmtree(bench.cohort_folder)
        if raw is None:
            cohort = prepared_cohort(bench.cohort_folder, bench.protocol, source, manifest, progress)
        else:
            cohort = raw_cohort(bench.cohort_folder, bench.protocol, raw, progress)
        return bench, cohort, True
