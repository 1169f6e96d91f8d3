"""The folder that holds one protocol, its cohort and all its runs: every path, locks, what is stale and why."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from mribench import __version__
from mribench.bench.protocol import Protocol, differences
from mribench.data.nifti import read_nifti
from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_json, digest_volume, read_json, write_json

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,79}")


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
    def samples_record(self) -> Path:
        return self.folder / "samples.json"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def nearest(self) -> Path:
        return self.folder / "nearest.json"

    def read_record(self) -> dict[str, Any]:
        """run.json; raises MribenchError when it is missing or torn."""
        return read_json(self.record, "kind", "model", "config", "seed", "cohort_digest")

    def command(self, verb: str) -> str:
        """The command line that would do `verb` ("train", "generate", "evaluate") for this run."""
        record = self.read_record()
        target = self.name
        if verb == "train":
            target = f"{record['model']} --seed {record['seed']}"
        elif verb == "generate" and record["kind"] == "control":
            target = "--all"
        elif record["kind"] == "folder":
            verb, target = "evaluate", f"--samples DIR --name {self.name}"
        return f"mribench {verb} {target} --bench {self.folder.parent.parent}"

    def sweep(self) -> None:
        """Remove temporary files that a killed process left; call it with the run's lock held."""
        for stray in [*self.folder.glob(".tmp-*"), *self.folder.glob("*/.tmp-*")]:
            stray.unlink(missing_ok=True)

    def read_samples(self) -> dict[str, Any]:
        """samples.json; raises MribenchError when it is missing, torn or not what `generate` writes."""
        record: dict[str, Any] = read_json(self.samples_record, "made_from", "files", "shape", "slab")
        files, shape, slab = record["files"], record["shape"], record["slab"]
        if not (
            isinstance(files, list)
            and all(isinstance(f, dict) and {"name", "digest"} <= f.keys() for f in files)
            and all(isinstance(f[key], str) for f in files for key in ("name", "digest"))
            and _whole_numbers(shape, 3)
            and (slab is None or _whole_numbers(slab, 2))
        ):
            raise MribenchError(
                f"{self.samples_record} must record files with name and digest, shape and slab, but does not. "
                f"Run: {self.command('generate')} --overwrite"
            )
        return record

    def samples(self) -> VolumeSet:
        """Its volumes; each is checked against its recorded digest when read."""
        record = self.read_samples()
        files = record["files"]
        if not files:
            raise MribenchError(
                f"{self.name} must have samples, but has none. Run: {self.command('generate')}"
            )
        if strays := [f["name"] for f in files if Path(f["name"]).name != f["name"]]:
            raise MribenchError(
                f"{self.samples_record} must name files in samples/, but names {strays[0]!r}. "
                f"Run: {self.command('generate')} --overwrite"
            )

        def load(i: int) -> np.ndarray:
            path = self.samples_folder / files[i]["name"]
            if not path.exists():
                raise MribenchError(f"{path} is recorded but missing. Run: {self.command('generate')}")
            volume = read_nifti(path)
            if digest_volume(np.round(volume.data * 65535), volume.affine) != files[i]["digest"]:
                raise MribenchError(
                    f"{path} must be the volume that samples.json records, but its voxels differ. "
                    f"Run: {self.command('generate')} --overwrite"
                )
            return volume.data

        slab = tuple(record["slab"]) if record["slab"] else None
        return VolumeSet(
            name=self.name,
            names=tuple(f["name"] for f in files),
            digests=tuple(f["digest"] for f in files),
            shape=tuple(record["shape"]),
            load=load,
            slab=slab,
        )


def _whole_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(x) is int for x in value)


@dataclass(frozen=True)
class Bench:
    """A bench on disk. Open one with `open_bench`, make one with `create_bench`."""

    folder: Path
    protocol: Protocol

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

    def run(self, name: str) -> Run:
        """The run of that name, which need not exist; raises UsageError for a name that is no plain word."""
        if not RUN_NAME.fullmatch(name) or ".." in name:
            raise UsageError(
                f"A run's name must be lower-case letters, digits, '_', '-' and '.', at most 80, not {name!r}."
            )
        return Run(self.folder / "runs" / name)

    def existing_run(self, name: str) -> Run:
        """The run of that name; raises UsageError naming the runs there are when it does not exist."""
        run = self.run(name)
        if not run.record.exists():
            known = ", ".join(one.name for one in self.runs()) or "none yet"
            raise UsageError(f"This bench has no run {name!r}. Its runs: {known}.")
        return run

    def runs(self) -> list[Run]:
        """All runs, by name; a folder without a readable run.json is included (the report says so)."""
        parent = self.folder / "runs"
        folders = sorted(p for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        return [Run(folder) for folder in folders if RUN_NAME.fullmatch(folder.name)]

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Hold an OS lock that dies with this process; raises MribenchError when somebody else holds it."""
        path = self.folder / "locks" / f"{what}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            with lock.acquire(timeout=0):
                yield
        except filelock.Timeout as error:
            raise MribenchError(
                f"{what} of {self.folder} must be worked on by one process at a time, and another is at it now. "
                "Wait for it or stop it, then run the same command again."
            ) from error

    @contextmanager
    def run_lock(self, run: Run) -> Iterator[None]:
        """Hold a run's lock, with what a killed process left in its folder swept away."""
        with self.lock(f"run-{run.name}"):
            run.sweep()
            yield


def create_bench(folder: Path, protocol: Protocol) -> Bench:
    """Write bench.json in a new or empty-of-bench folder; opening an equal bench is no error.

    Raises UsageError when the folder holds a bench of another protocol.
    """
    if (folder / "bench.json").exists():
        bench = open_bench(folder)
        if bench.protocol.digest != protocol.digest:
            lines = differences(bench.protocol.model_dump(mode="json"), protocol.model_dump(mode="json"))
            raise UsageError(
                f"{folder} already holds a bench of another protocol:\n  "
                + "\n  ".join(lines)
                + "\nUse that protocol, or another --bench DIR."
            )
        return bench
    record = {
        "protocol": protocol.model_dump(mode="json"),
        "protocol_digest": protocol.digest,
        "versions": versions(),
    }
    write_json(folder / "bench.json", record)
    return Bench(folder, protocol)


def open_bench(folder: Path) -> Bench:
    """The bench in that folder; raises UsageError when there is none, MribenchError when it was altered."""
    path = folder / "bench.json"
    if not path.exists():
        raise UsageError(
            f"{folder} must hold a bench, but there is no bench.json. Run: mribench init --bench {folder}"
        )
    record = read_json(path, "protocol", "protocol_digest")
    try:
        protocol = Protocol.model_validate(record["protocol"])
        recorded = record["protocol_digest"]
    except (KeyError, TypeError, ValueError) as error:
        raise MribenchError(f"{path} must hold a valid protocol, but: {error}") from error
    if protocol.digest != recorded:
        raise MribenchError(
            f"{path} was changed by hand: protocol digest expected {recorded[:12]}, got {protocol.digest[:12]}. "
            "Restore it, or start a new bench."
        )
    return Bench(folder, protocol)


def identity(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a run.json that decides the weights: compared when a command is run again."""
    return {key: record.get(key) for key in ("kind", "model", "config", "seed", "cohort_digest")}


def check_same_run(run: Run, wanted: dict[str, Any], verb: str) -> None:
    """Raise UsageError with "expected, got" lines when the run on disk is not the one asked for."""
    found = identity(run.read_record())
    lines = differences(found, identity(wanted))
    if lines:
        raise UsageError(
            f"{run.name} exists with other settings (expected = on disk, got = asked for):\n  "
            + "\n  ".join(lines)
            + f"\nTo replace it: {run.command(verb)} --overwrite (with the same other options)"
        )


def run_digest(run: Run) -> str:
    """Digest of what decides a run's weights."""
    return digest_json(identity(run.read_record()))
