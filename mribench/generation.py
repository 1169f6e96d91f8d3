"""Weights and seeds -> samples: volume i is a function of (run seed, i) alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mribench.bench.folder import Run, run_digest
from mribench.data.grid import Grid, from_model_range, quantise
from mribench.data.nifti import write_nifti
from mribench.data.volume_set import Slab
from mribench.errors import MribenchError
from mribench.files import digest_file, digest_json, digest_volume, read_json, write_json
from mribench.models.generator import Generator
from mribench.runtime import Noise, derive

Make = Callable[[Sequence[int]], np.ndarray]  # volume numbers -> [B,D,H,W] in [0,1]


def sampler(generator: Generator, seed: int, device: torch.device, bf16: bool = False) -> Make:
    """A function that makes the volumes of the given numbers from a loaded generator.

    `bf16` computes the networks under autocast; noise and the volume in the making stay float32.
    """
    generator.to(device).eval()

    def make(numbers: Sequence[int]) -> np.ndarray:
        noise = Noise([derive(seed, "sample", i) for i in numbers], device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return from_model_range(generator.sample(noise)[:, 0]).float().cpu().numpy()

    return make


def generate(
    run: Run,
    make: Make,
    *,
    count: int,
    batch: int,
    grid: Grid,
    slab: Slab | None,
    made_from: str,
    seed: int,
    device: dict[str, Any],
    settings: dict[str, Any] | None = None,
) -> Iterator[int]:
    """Write volumes 0..count-1 as NIfTI, yielding how many are done; makes only what is missing.

    `made_from` is the digest of what decides the voxels (weights, sampler settings, seed); a file counts as
    done when samples.json records it under the same `made_from` and its bytes are those recorded.
    """
    record = _open_record(run, made_from, seed, slab, grid)
    record |= {"device": device, "sampler": settings or {}}
    files = {f["index"]: f for f in record["files"] if f["index"] < count and _intact(run, f)}
    affine = slab_affine(grid, slab)
    yield len(files)
    for start in range(0, count, batch):
        # Always the same numbers together: rounding depends on the company, and a resumed run must not differ.
        numbers = range(start, min(start + batch, count))
        if all(number in files for number in numbers):
            continue
        begun = time.monotonic()
        volumes = make(numbers)
        seconds = (time.monotonic() - begun) / len(numbers)
        for number, volume in zip(numbers, volumes, strict=True):
            if number not in files:
                files[number] = _write(run, number, volume, affine, seconds)
        _write_record(run, record, files)
        yield len(files)


def _write(run: Run, number: int, volume: np.ndarray, affine: np.ndarray, seconds: float) -> dict[str, Any]:
    """Write one volume; returns its entry of samples.json."""
    path = run.samples_folder / f"{number:06d}.nii.gz"
    write_nifti(path, volume, affine)
    return {
        "index": number,
        "name": path.name,
        "digest": digest_volume(quantise(volume), affine),
        "file_digest": digest_file(path),
        "seconds": round(seconds, 4),
    }


def model_stamp(run: Run, settings: dict[str, Any]) -> str:
    """Digest of what decides a trained model's samples: weights, settings, seed, other sampler settings."""
    weights = read_json(run.weights_record, "digest")["digest"]
    return digest_json({"weights": weights, "run": run_digest(run), "sampler": settings})


def slab_affine(grid: Grid, slab: Slab | None) -> np.ndarray:
    """The affine of a volume that holds the axial slices `slab` of the grid."""
    affine = grid.affine
    if slab is not None:
        affine[2, 3] += slab[0] * grid.spacing_mm[2]
    return affine


def are_complete(run: Run, made_from: str, count: int) -> bool:
    """Whether samples.json records `count` volumes made from this, all intact on disk."""
    if not run.samples_record.exists():
        return False
    record = read_json(run.samples_record, "made_from", "files")
    return (
        record["made_from"] == made_from
        and len(record["files"]) == count
        and all(_intact(run, f) for f in record["files"])
    )


def check_intact(run: Run) -> None:
    """Raise MribenchError naming the first recorded sample that is missing or not the file that was written."""
    for entry in run.read_samples()["files"]:
        if not _intact(run, entry):
            path = run.samples_folder / entry["name"]
            fault = "its bytes differ" if path.exists() else "it is missing"
            raise MribenchError(
                f"{path} must be the file that samples.json records, but {fault}. Run: {run.command('generate')}"
            )


def _open_record(run: Run, made_from: str, seed: int, slab: Slab | None, grid: Grid) -> dict[str, Any]:
    if run.samples_record.exists():
        record: dict[str, Any] = read_json(run.samples_record, "made_from", "files")
        if record["made_from"] == made_from:
            return record
    depth = grid.size if slab is None else slab[1] - slab[0]
    return {
        "made_from": made_from,
        "seed": seed,
        "slab": slab,
        "shape": [depth, grid.size, grid.size],
        "files": [],
    }


def _intact(run: Run, entry: dict[str, Any]) -> bool:
    path = run.samples_folder / entry["name"]
    return path.is_file() and digest_file(path) == entry.get("file_digest")


def _write_record(run: Run, record: dict[str, Any], files: dict[int, dict[str, Any]]) -> None:
    write_json(run.samples_record, {**record, "files": [files[i] for i in sorted(files)]})
