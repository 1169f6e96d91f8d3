"""Is every file of a bench still what was recorded, and what makes it good again where it is not?"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench, Run
from mribench.bench.records import (
    RECORDS,
    EmbeddingRecord,
    NearestRecord,
    RunRecord,
    SamplesRecord,
    ScoresRecord,
)
from mribench.data.cohort import Cohort, is_intact, open_cohort, volume_path
from mribench.data.volume_set import Progress
from mribench.errors import MribenchError
from mribench.files import SUMS, check_seal, differing, digest_file, is_proven, read_json_lines

# What makes a damaged file good again: to remove it, to leave out its damaged lines, or a step; "" = nothing here can.
Remedy = Literal["remove", "lines", "cohort", "train", "generate", "evaluate", "report", "selftest", ""]

_FILES = (  # what commands write into a bench, besides records, samples and volumes
    "cohort/ledger.jsonl", "cohort/quality.html", "arrays/*.npy", "arrays/*.lock", "runs/*/training.jsonl",
    "runs/*/samples/dataset_description.json",
    "runs/*/checkpoint/state.pt", "runs/*/weights.safetensors", "embedding/tsne.csv", "report/index.html",
    "report/index.pdf", "report/figures/*",
    "report/table.*", "report/scores.csv", "locks/*", "selftest.*", SUMS, f"cohort/{SUMS}", f"report/{SUMS}",
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """A file of a bench, what is wrong with it, what makes it good again, and the run that it belongs to."""

    path: Path
    fault: str
    remedy: Remedy = ""
    run: Run | None = None

    def __str__(self) -> str:
        return self.fault if str(self.path) in self.fault else f"{self.path}: {self.fault}"


@dataclass(frozen=True)
class Findings:
    """`damages`; and as paths in the bench: `busy` runs, files without a digest, files that no command wrote."""

    damages: list[Damage]
    busy: list[str]
    unproven: list[str]
    strangers: list[str]


def verify(bench: Bench, progress: Progress) -> Findings:
    """Read every file of a bench and compare it with its digest; a run that is being worked on is left out."""
    damages, busy = [*_of_cohort(bench), *_of_arrays(bench), *_of_tables(bench)], []
    runs = bench.runs()
    for done, run in enumerate(runs):
        progress("runs", done, len(runs))
        with ExitStack() as stack:
            try:
                stack.enter_context(bench.run_lock(run))
            except MribenchError:
                busy.append(run.name)
                continue
            except OSError:  # a bench that may only be read is verified without locks
                pass
            damages += _of_run(bench, run)
    progress("runs", len(runs), len(runs))
    files = sorted(path for path in bench.folder.rglob("*") if path.is_file())
    return Findings(damages, busy, list(_unproven(bench, files)), list(_strangers(bench, files)))


def _tried(read: Callable[[], object], path: Path, remedy: Remedy, run: Run | None = None) -> list[Damage]:
    """The damage of a file that may be absent, from what reading it raises."""
    try:
        if path.exists():
            read()
    except (MribenchError, OSError, UnicodeDecodeError) as error:
        return [Damage(path, str(error), remedy, run)]
    return []


def _of_lines(path: Path, run: Run | None = None) -> list[Damage]:
    damaged = read_json_lines(path)[1] if path.exists() else 0
    return [Damage(path, f"{damaged} lines are torn or damaged", "lines", run)] if damaged else []


def _of_cohort(bench: Bench) -> Iterator[Damage]:
    folder = bench.cohort_folder
    simulated = bench.protocol.cohort.source == "simulated"
    remedy: Remedy = "cohort" if simulated else ""
    record = folder / "volumes.json"
    damaged = _tried(lambda: open_cohort(folder), record, remedy)
    yield from damaged
    yield from _of_lines(folder / "ledger.jsonl")
    if damaged or not record.exists():
        return
    advice = "" if simulated else ". Run the same mribench prepare again: it makes this volume anew"
    for name, digest in _volumes(open_cohort(folder)):
        if not is_intact(folder, name, digest, bench.protocol.cohort.voxels):
            fault = f"cohort volume {name} is not what volumes.json records{advice}"
            yield Damage(volume_path(folder, name), fault, remedy)


def _volumes(cohort: Cohort) -> Iterator[tuple[str, str]]:
    """Name and digest of every volume that volumes.json knows, used or left out."""
    yield from ((volume.name, volume.digest) for volume in cohort.record.volumes)
    yield from ((scan.record.id, scan.record.digest) for scan in cohort.record.problems if scan.record)


def _of_arrays(bench: Bench) -> Iterator[Damage]:
    for path in sorted(bench.arrays.rglob("*.npy")):
        yield from _tried(lambda path=path: check_seal(path), path, "remove")  # type: ignore[misc]


def _of_tables(bench: Bench) -> Iterator[Damage]:
    """The t-SNE, the report, and the pages and tables that a `SHA256SUMS` beside them lists."""
    record = bench.embedding.with_suffix(".json")
    damaged = _tried(lambda: EmbeddingRecord.read(record), record, "report")
    if not damaged and record.exists():
        wanted = EmbeddingRecord.read(record).table_digest
        if wanted and (not bench.embedding.exists() or digest_file(bench.embedding) != wanted):
            damaged = [Damage(bench.embedding, "it is not the table that tsne.json records", "report")]
    yield from damaged
    selftest = bench.folder / "selftest.json"
    yield from _tried(lambda: is_proven(selftest), selftest, "")
    remedies: dict[Path, Remedy] = {
        bench.report: "report",
        bench.figures: "report",
        bench.cohort_folder: "cohort",
        bench.folder: "selftest",
    }
    for folder, remedy in remedies.items():
        if (folder / SUMS).exists():
            fault = f"it is not what {SUMS} beside it lists"
            yield from (Damage(folder / name, fault, remedy) for name in differing(folder))


def _of_run(bench: Bench, run: Run) -> Iterator[Damage]:
    control = run.name in CONTROLS or _is_door(bench, run)
    unknown = _tried(lambda: RunRecord.read(run.record), run.record, "generate" if control else "", run)
    yield from unknown
    if not run.record.exists():
        yield Damage(run.record, "it is missing, so that it is unknown what made this run", "", run)
    elif not unknown:
        yield from _of_training(run)
        yield from _of_samples(run, "" if run.read_record().kind == "folder" else "generate")
    yield from _of_lines(run.progress, run)
    yield from _tried(lambda: ScoresRecord.read(run.scores), run.scores, "evaluate", run)
    yield from _tried(lambda: NearestRecord.read(run.nearest), run.nearest, "evaluate", run)


def _is_door(bench: Bench, run: Run) -> bool:
    try:
        return bench.entrant_of_door(run) is not None
    except MribenchError:  # the entrant's own damage
        return False


def _of_training(run: Run) -> Iterator[Damage]:
    home = run.weights_run
    if not home.record.exists():
        yield Damage(
            run.record, f"the run {home.name}, whose weights it samples, is not in this bench", "", run
        )
        return
    if home is not run:
        return
    trained = run.is_trained()
    checkpoint = _tried(lambda: check_seal(run.checkpoint), run.checkpoint, "remove" if trained else "", run)
    if run.weights_record.exists() and not trained:
        whole = run.checkpoint.exists() and not checkpoint
        advice = "" if whole else f". Restore them from a copy, or run: {run.command('train')} --overwrite"
        fault = f"{run.name}: the weights are not what weights.json and run.json record{advice}"
        yield Damage(run.weights, fault, "train" if whole else "", run)
    yield from checkpoint


def _of_samples(run: Run, remedy: Remedy) -> Iterator[Damage]:
    damaged = _tried(lambda: SamplesRecord.read(run.samples_record), run.samples_record, remedy, run)
    yield from damaged
    if damaged or not run.samples_record.exists():
        return
    record = run.read_samples()
    if not run.is_described(record):
        yield Damage(run.samples_description, "it is not what samples.json records", remedy, run)
    files = record.files
    for number, file in enumerate(files):
        path = run.samples_folder / file.name
        try:
            run.samples()[number]
        except MribenchError as error:
            yield Damage(path, f"{run.name}: {error}", remedy, run)
            continue
        if file.file_digest and not run.is_intact(file):
            yield Damage(path, "its bytes are not those that samples.json records", remedy, run)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


_RECORD_PATTERNS = tuple(file.replace("NAME", "*") for file in RECORDS)


def _unproven(bench: Bench, files: list[Path]) -> Iterator[str]:
    """Records, arrays and checkpoints that carry no digest."""
    for path in files:
        name = path.relative_to(bench.folder).as_posix()
        try:
            if _matches(name, (*_RECORD_PATTERNS, "selftest.json")):
                proven = is_proven(path)
            elif _matches(name, ("arrays/*.npy", "runs/*/checkpoint/state.pt")):
                proven = check_seal(path)
            else:
                continue
        except MribenchError:
            continue  # a damage already
        if not proven:
            yield name


def _strangers(bench: Bench, files: list[Path]) -> Iterator[str]:
    listed: set[Path] = set()
    for run in bench.runs():
        try:
            listed |= {run.samples_folder / file.name for file in run.read_samples().files}
        except MribenchError:
            listed |= set(run.samples_folder.glob("*"))
    try:
        cohort = open_cohort(bench.cohort_folder)
        listed |= {volume_path(cohort.folder, name) for name, _ in _volumes(cohort)}
    except MribenchError:
        listed |= set((bench.cohort_folder / "volumes").glob("*"))
    for path in files:
        name = path.relative_to(bench.folder).as_posix()
        if path not in listed and not _matches(name, (*_RECORD_PATTERNS, *_FILES)):
            yield name
