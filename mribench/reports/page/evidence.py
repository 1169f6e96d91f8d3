"""What the bench's self-test showed of each metric: which faults it detected, and from which dose on."""

from __future__ import annotations

from collections.abc import Mapping

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.errors import MribenchError
from mribench.reports.records import said
from mribench.selftest.record import SelfTest

_RECORD = "selftest.json"
_NO_FAULT = "other_subjects"  # the self-test's dose that no metric should detect


def read_evidence(bench: Bench, cohort: Cohort | None) -> tuple[Mapping[str, str], str]:
    """Metric -> its verdicts in one sentence, and a sentence about the test or why there is none to show."""
    path = bench.folder / _RECORD
    if not path.exists():
        return {}, "This bench has no self-test. Run: mribench selftest --bench, with its folder."
    try:
        record = SelfTest.read(path)
    except MribenchError as error:
        return {}, said(error, bench.folder)
    if cohort is None or record.cohort.digest != cohort.digest:
        return {}, f"{_RECORD} is of another cohort. Run: mribench selftest --bench, with this folder."
    if record.extractor != bench.protocol.evaluation.extractor:
        return {}, f"{_RECORD} is of another feature extractor, {record.extractor}."
    counts = ", ".join(f"{count} {name}" for name, count in record.n.items())
    metrics = dict.fromkeys(verdict.metric for verdict in record.verdicts)
    about = (
        f"Self-test on this cohort ({counts}): held-out volumes with growing faults. A fault counts as detected from "
        "the smallest dose at which the 95 % intervals of it and of all larger doses lie above the clean volumes."
    )
    if record.problems:
        about += f" It failed: {'; '.join(record.problems)}."
    return {metric: _sentence(record, metric) for metric in metrics}, about


def _sentence(record: SelfTest, metric: str) -> str:
    """ "Self-test: detected blur (from 0.5 SD, voxels). Did not detect repeats."; "" without a verdict."""
    faults = {fault.name: fault for fault in record.degradations if fault.name != _NO_FAULT}
    detected, missed = [], []
    for verdict in record.verdicts:
        fault = faults.get(verdict.degradation)
        if fault is not None and verdict.metric == metric:
            if verdict.notices_from is None:
                missed.append(fault.title.lower())
            else:
                detected.append(f"{fault.title.lower()} (from {verdict.notices_from:g} {fault.unit})")
    parts = [f"detected {'; '.join(detected)}."] if detected else []
    parts += [f"{'Did' if parts else 'did'} not detect {'; '.join(missed)}."] if missed else []
    return f"Self-test: {' '.join(parts)}" if parts else ""
