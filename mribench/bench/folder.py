"""The folder that holds one protocol, its cohort and all its runs: every path, locks, what is stale and why."""

from __future__ import annotations

import logging
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mribench import __version__, processes
from mribench.bench.locks import hold
from mribench.bench.protocol import EvaluationSpec, Protocol, differences, load_protocol
from mribench.bench.records import (
    RUN_NAME,
    BenchRecord,
    RunRecord,
    SampleFile,
    SamplesRecord,
    WeightsRecord,
)
from mribench.data.nifti import read_nifti
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_file, digest_json, digest_volume
from mribench.metrics import METRIC_REGISTRY

log = logging.getLogger(__name__)

DEFAULT_PROTOCOL = "demo"
_DOOR = "-door"  # ends the name of a control that sends real volumes the way of an adopted entrant
_SECONDS_TO_CREATE = 30.0  # to wait for another process that makes the same bench


def versions() -> dict[str, str]:
    """Versions that can move a number."""
    packages = ("torch", "numpy", "scipy", "nilearn", "scikit-learn")
    return {
        "mribench": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


@dataclass(frozen=True)
class Run:
    """One entrant's folder, `BENCH/runs/NAME`."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def record(self) -> Path:
        """What it is: model, resolved config, seed, cohort digest, versions (written first)."""
        return self.folder / "run.json"

    @property
    def progress(self) -> Path:
        return self.folder / "training.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "state.pt"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def weights_record(self) -> Path:
        return self.folder / "weights.json"

    @property
    def samples_folder(self) -> Path:
        return self.folder / "samples"

    @property
    def samples_description(self) -> Path:
        """What the samples are, as a derivative of BIDS says it."""
        return self.samples_folder / "dataset_description.json"

    @property
    def samples_record(self) -> Path:
        return self.folder / "samples.json"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def nearest(self) -> Path:
        return self.folder / "nearest.json"

    def read_record(self) -> RunRecord:
        """run.json; raises MribenchError when it is missing or damaged."""
        return RunRecord.read(self.record)

    def command(self, verb: str) -> str:
        """The command line that would do `verb` ("train", "generate", "evaluate") for this run."""
        record = self.read_record()
        target = self.name
        if verb == "train":
            base = self.name.removesuffix(f"-s{record.seed}") if record.seed else self.name
            target = f"{record.model} --seed {record.seed}"
            target += f" --from {record.start.name}" if record.start else ""
            target += f" --name {base}" if base != record.model else ""
        elif verb == "generate" and record.kind == "control":
            target = "--all"
        elif record.kind == "folder" and (verb == "adopt" or (record.adoption and verb != "evaluate")):
            verb, target = "adopt", f"DIR --name {self.name}"
        elif record.kind == "folder":
            verb, target = "evaluate", f"--samples DIR --name {self.name}"
        return f"mribench {verb} {target} --bench {self.folder.parent.parent}"

    def sweep(self) -> None:
        """Remove temporary files that a killed process left; call it with the run's lock held."""
        for stray in [*self.folder.glob(".tmp-*"), *self.folder.glob("*/.tmp-*")]:
            stray.unlink(missing_ok=True)

    @property
    def weights_run(self) -> Run:
        """The run whose weights make its samples: itself, or the one that run.json names."""
        source = self.read_record().weights_of
        return self if source is None else Run(self.folder.parent / source)

    def is_trained(self) -> bool:
        """Whether the weights on disk are those that run.json asks for, whole and unaltered; reads the file."""
        home = self.weights_run
        if not (home.record.exists() and home.weights_record.exists() and home.weights.exists()):
            return False
        try:
            record = WeightsRecord.read(home.weights_record)
        except MribenchError as error:
            log.warning("%s", error)
            return False
        return record.run_digest == home.read_record().digest and record.digest == digest_file(home.weights)

    def samples_stamp(self, settings: Mapping[str, Any]) -> str:
        """Digest of what decides a trained model's samples: weights, settings, seed, other sampler settings."""
        weights = WeightsRecord.read(self.weights_run.weights_record).digest
        return digest_json({"weights": weights, "run": self.read_record().digest, "sampler": dict(settings)})

    def read_samples(self) -> SamplesRecord:
        """samples.json; raises MribenchError when it is missing or damaged."""
        try:
            return SamplesRecord.read(self.samples_record)
        except MribenchError as error:
            raise MribenchError(f"{error} Run: {self.command('generate')} --overwrite") from error

    def is_intact(self, file: SampleFile) -> bool:
        """Whether the bytes of a sample's file are those recorded."""
        path = self.samples_folder / file.name
        return path.is_file() and digest_file(path) == file.file_digest

    def is_described(self, record: SamplesRecord) -> bool:
        """Whether dataset_description.json is the one recorded; True where none is recorded."""
        path, digest = self.samples_description, record.description_digest
        return not digest or (path.is_file() and digest_file(path) == digest)

    def check_samples(self) -> None:
        """Raise MribenchError naming the first sample that is missing or not the file that was written."""
        for file in self.read_samples().files:
            if not self.is_intact(file):
                path = self.samples_folder / file.name
                fault = "its bytes differ" if path.exists() else "it is missing"
                raise MribenchError(
                    f"{path} must be the file that samples.json records, but {fault}. Run: {self.command('generate')}"
                )

    def forget_samples(self) -> None:
        """Remove the samples and their record."""
        self.samples_record.unlink(missing_ok=True)
        if self.samples_folder.exists():
            shutil.rmtree(self.samples_folder)

    def samples(self) -> VolumeSet:
        """Its volumes; each is checked against its recorded digest when it is read."""
        record = self.read_samples()
        if not record.files:
            raise MribenchError(
                f"{self.name} must have samples, but has none. Run: {self.command('generate')}"
            )
        return VolumeSet(
            name=self.name,
            names=tuple(file.name for file in record.files),
            digests=tuple(file.digest for file in record.files),
            shape=record.shape,
            load=lambda i: self._load(record.files[i]),
            slab=record.slab,
        )

    def _load(self, file: SampleFile) -> np.ndarray:
        path = self.samples_folder / file.name
        if not path.exists():
            raise MribenchError(f"{path} is recorded but missing. Run: {self.command('generate')}")
        volume = read_nifti(path)
        if digest_volume(np.round(volume.data * 65535), volume.affine) != file.digest:
            raise MribenchError(
                f"{path} must be the volume that samples.json records, but its voxels differ. "
                f"Run: {self.command('generate')} --overwrite"
            )
        return volume.data


@dataclass(frozen=True)
class Bench:
    """A bench on disk. Open one with `open_bench`, make one with `create_bench`."""

    folder: Path
    protocol: Protocol
    packages: Mapping[str, str] = field(default_factory=dict)  # as in BenchRecord

    @property
    def cohort_folder(self) -> Path:
        return self.folder / "cohort"

    @property
    def arrays(self) -> Path:
        """Features, pair matrices and nearest lists, by digest."""
        return self.folder / "arrays"

    @property
    def embedding(self) -> Path:
        return self.folder / "embedding" / "tsne.csv"

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def page(self) -> Path:
        """The report's page; the PDF printed of it stands beside it."""
        return self.report / "index.html"

    @property
    def figures(self) -> Path:
        """The folder of the figures for papers."""
        return self.report / "figures"

    def run(self, name: str) -> Run:
        """The run of that name, which need not exist; raises UsageError for a name that is no plain word."""
        if not re.fullmatch(RUN_NAME, name) or ".." in name:
            raise UsageError(
                f"A run's name must be lower-case letters, digits, '_', '-' and '.', at most 80, not {name!r}."
            )
        return Run(self.folder / "runs" / name)

    def door_control(self, run: Run) -> Run:
        """The control that sends real volumes the way of an adopted entrant; raises UsageError for a long name."""
        return self.run(run.name + _DOOR)

    def entrant_of_door(self, control: Run) -> Run | None:
        """The adopted entrant that a run is the control of; None for another run."""
        entrant = Run(control.folder.with_name(control.name.removesuffix(_DOOR)))
        if entrant.name == control.name or not entrant.record.exists():
            return None
        return entrant if entrant.read_record().adoption else None

    def existing_run(self, name: str) -> Run:
        """The run of that name; raises UsageError naming the runs there are when it does not exist."""
        run = self.run(name)
        if not run.record.exists():
            names = ", ".join(other.name for other in self.runs()) or "none yet"
            raise UsageError(f"This bench has no run {name!r}. Its runs: {names}.")
        return run

    def runs(self) -> list[Run]:
        """All runs, by name; a folder without a readable run.json is included (the report says so)."""
        parent = self.folder / "runs"
        folders = sorted(p for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        return [Run(folder) for folder in folders if re.fullmatch(RUN_NAME, folder.name)]

    def entrants(self) -> list[Run]:
        """The runs that have samples."""
        return [run for run in self.runs() if run.samples_record.exists()]

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Hold an OS lock that dies with this process; raises MribenchError when somebody else holds it."""
        with hold(self.folder, what):
            yield

    @contextmanager
    def run_lock(self, run: Run) -> Iterator[None]:
        """Hold a run's lock, with what a killed process left in its folder swept away."""
        with self.lock(f"run-{run.name}"):
            if processes.is_first():
                run.sweep()
            yield


def create_bench(folder: Path, protocol: Protocol) -> Bench:
    """Write bench.json in a new or empty-of-bench folder; opening an equal bench is no error.

    Raises UsageError when the folder holds a bench of another protocol.
    """
    path = folder / "bench.json"
    if not path.exists():
        with hold(folder, "bench", seconds=_SECONDS_TO_CREATE):
            if not path.exists():  # two commands may make it at the same moment
                record = BenchRecord(
                    protocol=protocol,
                    protocol_digest=protocol.digest,
                    versions=versions(),
                    packages=_packages(protocol.evaluation),
                )
                record.write(path)
    bench = open_bench(folder)
    if bench.protocol.digest != protocol.digest:
        lines = differences(bench.protocol.model_dump(mode="json"), protocol.model_dump(mode="json"))
        raise UsageError(
            f"{folder} already holds a bench of another protocol:\n  "
            + "\n  ".join(lines)
            + "\nUse that protocol, or another --bench DIR."
        )
    return bench


def _packages(evaluation: EvaluationSpec) -> dict[str, str]:
    """The plug-ins that a protocol asks for, and their packages."""
    from mribench.metrics.features import slices  # it loads torch, which opening a bench does not need

    asked = {f"metric {name}": METRIC_REGISTRY.package(name) for name in evaluation.metrics}
    asked[f"extractor {evaluation.extractor}"] = slices.EXTRACTOR_REGISTRY.package(evaluation.extractor)
    return {what: package for what, package in asked.items() if package}


def start_bench(folder: Path, protocol: str | None, simulated: bool = False) -> Bench:
    """Open the bench in `folder`, or make one (default protocol: demo); refuses a bench of another protocol."""
    if protocol is None and (folder / "bench.json").exists():
        return open_bench(folder)
    return create_bench(folder, load_protocol(protocol or DEFAULT_PROTOCOL, simulated=simulated))


def open_bench(folder: Path) -> Bench:
    """The bench in that folder; raises UsageError when there is none, MribenchError when it was altered."""
    path = folder / "bench.json"
    if not path.exists():
        raise UsageError(
            f"{folder} must hold a bench, but there is no bench.json. Run: mribench init --bench {folder}"
        )
    record = BenchRecord.read(path)
    if record.protocol.digest != record.protocol_digest:
        raise MribenchError(
            f"{path} was changed by hand: protocol digest expected {record.protocol_digest[:12]}, "
            f"got {record.protocol.digest[:12]}. Restore it, or start a new bench."
        )
    return Bench(folder, record.protocol, record.packages)


_HOW_TO_RAISE = "\nTo train on with a larger budget: the same command with --raise-budget"


def check_same_run(run: Run, wanted: RunRecord, verb: str) -> None:
    """Raise UsageError with "expected, got" lines when the run on disk is not the one asked for."""
    lines = differences(run.read_record().identity, wanted.identity)
    if lines:
        raise UsageError(
            f"{run.name} exists with other settings (expected = on disk, got = asked for):\n  "
            + "\n  ".join(lines)
            + f"\nTo replace it: {run.command(verb)} --overwrite (with the same other options)"
            + (_HOW_TO_RAISE if [line.split(":")[0] for line in lines] == ["config.budget"] else "")
        )


def start_run(run: Run, record: RunRecord, verb: str) -> None:
    """Write run.json, or check that the one on disk is equal; raises UsageError as `check_same_run`."""
    if run.record.exists():
        check_same_run(run, record, verb)
    else:
        record.write(run.record)
