"""Making the cohort of a bench from one's own scans, stripped and registered ones or raw ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from mribench.bench.folder import Bench, start_bench
from mribench.bench.protocol import differences
from mribench.data.cohort import Cohort, open_cohort
from mribench.data.prepare.own_cohort import prepared_cohort
from mribench.data.prepare.raw_cohort import RawPlan, raw_cohort
from mribench.data.prepare.scans import digest_inputs, discover
from mribench.data.prepare.stripped import Recipe
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

    `raw` says how raw scans are prepared, instead of `source` and `manifest` of stripped and registered ones; with
    `overwrite` it makes anew only the volumes that must differ. Raises UsageError for a protocol of simulated
    volumes, when the finished cohort is another than what is asked for, or when runs already depend on it.
    """
    if raw is not None:
        source, manifest = raw.source, raw.manifest
    if source is not None and manifest is not None:
        raise UsageError(
            f"prepare takes SRC or --manifest, but both are given: {source}, {manifest}. Leave one out."
        )
    if not (folder / "bench.json").exists():
        protocol = protocol or DEFAULT_OWN_PROTOCOL
        discover(
            source, manifest, registered=_registered(raw)
        )  # nothing to prepare must leave no bench behind
    bench = start_bench(folder, protocol, simulated=False)
    if bench.protocol.cohort.source != "prepared":
        raise UsageError(
            f"Protocol {bench.protocol.name} makes simulated brains and takes no own volumes. "
            f"Choose another --bench and --protocol {DEFAULT_OWN_PROTOCOL}, peng2023 or a .toml file."
        )
    with bench.lock("cohort"):
        if (bench.cohort_folder / "volumes.json").exists():
            if not overwrite:
                cohort = open_cohort(bench.cohort_folder)
                _check_same(cohort, source, manifest, raw)
                return bench, cohort, False
            if bench.runs():
                raise UsageError(
                    f"{folder} has runs that were trained on its cohort. Prepare into another --bench."
                )
            if raw is None:
                shutil.rmtree(bench.cohort_folder)
            else:
                (bench.cohort_folder / "volumes.json").unlink()
        if raw is None:
            cohort = prepared_cohort(bench.cohort_folder, bench.protocol, source, manifest, progress)
        else:
            cohort = raw_cohort(bench.cohort_folder, bench.protocol, raw, progress)
        return bench, cohort, True


def _registered(raw: RawPlan | None) -> bool:
    return raw is None or raw.recipe.registration is None


def _check_same(cohort: Cohort, source: Path | None, manifest: Path | None, raw: RawPlan | None) -> None:
    """Raise UsageError, naming what differs, unless the finished cohort is what would be made now."""
    made = {key: value for key, value in cohort.record["recipe"].items() if key != "versions"}
    asked = (raw.recipe if raw else Recipe()).model_dump(mode="json")
    ways = "choose another --bench, or add --overwrite"
    if made.get("name") != asked["name"]:
        kinds = "raw scans (prepare --raw)", "scans that were stripped and registered before (without --raw)"
        holds, wanted = kinds if raw is None else kinds[::-1]
        raise UsageError(f"The cohort in {cohort.folder} is of {holds}, but this asks for {wanted}: {ways}.")
    found = differences(made, asked)
    inputs = cohort.record.get("inputs")
    if inputs and (source or manifest):
        scans = discover(source, manifest, registered=_registered(raw))
        if digest_inputs(scans, raw.masks if raw else None) != inputs:
            found.append("other scans, masks or labels than it was made from")
    if found:
        cost = " (scans that are finished are judged anew and not made anew)" if raw else ""
        raise UsageError(
            f"The cohort in {cohort.folder} is finished, but this asks for another: {'; '.join(found)}. To have "
            f"that, {ways}{cost}."
        )
