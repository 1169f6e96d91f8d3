"""The cohort on disk: one uint16 array per volume, and `volumes.json` written last, which makes it a cohort."""

from __future__ import annotations

import builtins
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mribench.bench.protocol import ROLES, Protocol
from mribench.data.grid import Grid, dequantise, quantise
from mribench.data.volume_set import Progress, VolumeSet
from mribench.errors import MribenchError
from mribench.files import append_json_line, digest_json, digest_volume, read_json, write_array, write_json
from mribench.runtime import derive

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One volume to make. `made_from` identifies its inputs; `make` returns `[D,H,W]` in [0,1] and a record."""

    name: str
    roles: tuple[str, ...]
    made_from: str
    make: Callable[[], tuple[np.ndarray, dict[str, Any]]]


@dataclass(frozen=True)
class Cohort:
    """Prepared real (or simulated) volumes in their roles."""

    folder: Path
    record: dict[str, Any]
    _verified: builtins.set[str] = field(default_factory=builtins.set, repr=False, compare=False)

    @property
    def digest(self) -> str:
        return self.record["digest"]

    @property
    def source(self) -> str:
        """ "simulated" or "prepared"."""
        return self.record["source"]

    @property
    def grid(self) -> Grid:
        return Grid.model_validate(self.record["grid"])

    def set(self, role: str) -> VolumeSet:
        """The volumes of one role, in cohort order; read from disk on demand."""
        chosen = [v for v in self.record["volumes"] if role in v["roles"]]
        return VolumeSet(
            name=role,
            names=tuple(v["name"] for v in chosen),
            digests=tuple(v["digest"] for v in chosen),
            shape=self.grid.shape,
            load=lambda i: dequantise(self._checked_voxels(chosen[i])),
            affine=tuple(map(tuple, self.grid.affine.tolist())),
        )

    @cached_property
    def train_mean(self) -> np.ndarray:
        """Voxel-wise mean `[D,H,W]` of the training volumes, summed in float64."""
        volumes = self.set("train")
        total = np.zeros(volumes.shape)
        for i in range(len(volumes)):
            total += volumes[i]
        return (total / len(volumes)).astype(np.float32)

    def _checked_voxels(self, volume: dict[str, Any]) -> np.ndarray:
        """Voxels that had the recorded digest when this process first read them."""
        name, voxels = volume["name"], self._voxels(volume["name"])
        if name not in self._verified:
            if digest_volume(voxels, self.grid.affine) != volume["digest"]:
                raise MribenchError(
                    f"{self.folder / 'volumes' / name}.npy must be the volume that volumes.json records, but its "
                    "voxels differ. Restore it, or make the cohort again in a new bench."
                )
            self._verified.add(name)
        return voxels

    def _voxels(self, name: str) -> np.ndarray:
        path = self.folder / "volumes" / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise MribenchError(f"{path} must be a readable volume of the cohort, but: {error}") from error

    def altered(self) -> list[str]:
        """Names of volumes whose voxels no longer have the recorded digest (or cannot be read)."""
        names = []
        for volume in self.record["volumes"]:
            try:
                digest = digest_volume(self._voxels(volume["name"]), self.grid.affine)
            except MribenchError:
                digest = "unreadable"
            if digest != volume["digest"]:
                names.append(volume["name"])
        return names


def open_cohort(folder: Path) -> Cohort:
    """The finished cohort in that folder; raises MribenchError when there is none."""
    path = folder / "volumes.json"
    if not path.exists():
        raise MribenchError(
            f"{folder} must hold a cohort, but has no volumes.json. Run: mribench prepare SRC"
        )
    return Cohort(folder, read_json(path, "digest", "source", "grid", "volumes", "problems"))


def simulated_cohort(folder: Path, protocol: Protocol, progress: Progress) -> Cohort:
    """Make (or finish making) the embedded cohort of this protocol. Every role has its own subjects."""
    from mribench.data.simulate import RECIPE, simulate

    spec = protocol.cohort
    counts = {"train": spec.train, "reference": spec.reference, "holdout": spec.holdout}
    if spec.reference_from_train:
        counts["reference"] = 0
    roles: list[tuple[str, ...]] = [(role,) for role in ROLES for _ in range(counts[role])]
    if spec.reference_from_train:
        for i in draw_reference(protocol, spec.train):
            roles[i] = ("train", "reference")
    recipe = {"name": RECIPE, "seed": protocol.seed, "size": spec.size, "count": len(roles)}

    def task(i: int) -> Task:
        made_from = digest_json({"recipe": RECIPE, "seed": protocol.seed, "size": spec.size, "subject": i})
        return Task(f"sim-{i:05d}", roles[i], made_from, lambda: simulate(protocol.seed, i, spec.size))

    return build(folder, protocol, recipe, [task(i) for i in range(len(roles))], progress)


def draw_reference(protocol: Protocol, train: int) -> list[int]:
    """The seeded training volumes that also serve as reference (the paper's way)."""
    rng = np.random.default_rng(derive(protocol.seed, "reference"))
    return sorted(int(i) for i in rng.permutation(train)[: protocol.cohort.reference])


def build(
    folder: Path, protocol: Protocol, recipe: dict[str, Any], tasks: Sequence[Task], progress: Progress
) -> Cohort:
    """Make every volume that is missing, then write volumes.json.

    A killed build goes on where it stopped: a volume counts as done when the ledger says that it was made
    from the same inputs and its voxels still have the recorded digest.
    """
    grid = protocol.cohort.voxels
    ledger = folder / "volumes.partial.jsonl"
    done = read_ledger(ledger)
    volumes = []
    for number, task in enumerate(tasks):
        path = folder / "volumes" / f"{task.name}.npy"
        entry = done.get(task.name)
        if entry is None or entry["made_from"] != task.made_from or not intact(path, entry["digest"], grid):
            voxels, record = task.make()
            quantised = quantise(voxels)
            write_array(path, quantised)
            digest = digest_volume(quantised, grid.affine)
            entry = {"name": task.name, "made_from": task.made_from, "digest": digest, "record": record}
            append_json_line(ledger, entry)
        volumes.append(
            {
                "name": task.name,
                "roles": list(task.roles),
                "digest": entry["digest"],
                "record": entry["record"],
            }
        )
        progress("volumes", number + 1, len(tasks))
    cohort = write_cohort(folder, protocol, recipe, volumes)
    ledger.unlink(missing_ok=True)
    return cohort


def write_cohort(
    folder: Path,
    protocol: Protocol,
    recipe: dict[str, Any],
    volumes: Sequence[dict[str, Any]],
    problems: Sequence[dict[str, Any]] = (),
    inputs: str = "",
) -> Cohort:
    """Write volumes.json, which makes the arrays beside it a cohort.

    Across machines a simulated cohort is identified by its recipe, since its bytes differ between
    processors; a prepared one by its volumes. `inputs` identifies the files that a prepared one was made from.
    """
    grid, source = protocol.cohort.voxels.model_dump(mode="json"), protocol.cohort.source
    write_json(
        folder / "volumes.json",
        {
            "source": source,
            "recipe": recipe,
            "recipe_digest": digest_json(recipe),
            "protocol_digest": protocol.digest,
            "grid": grid,
            "volumes": list(volumes),
            "problems": list(problems),
            "inputs": inputs,
            "digest": digest_json([recipe if source == "simulated" else list(volumes), grid]),
        },
    )
    return open_cohort(folder)


def read_ledger(path: Path) -> dict[str, Any]:
    """Finished volumes by name; a torn last line is passed over."""
    if not path.exists():
        return {}
    entries: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # a torn last line: that volume is made again
            continue
        entries[entry["name"]] = entry
    return entries


def intact(path: Path, digest: str, grid: Grid) -> bool:
    """Whether the array on disk has the recorded digest."""
    try:
        return digest_volume(np.load(path, allow_pickle=False), grid.affine) == digest
    except (OSError, ValueError):
        return False
