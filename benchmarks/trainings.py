"""Train a model in a bench, score it beside the controls, measure its heads, draw it: shared by the scripts here."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from plausibility import head_measures, reference_frame, shows_one_head

from mribench import training
from mribench.bench.folder import Bench, Run
from mribench.commands import steps as commands
from mribench.files import read_json
from mribench.reports.page.html import write_report

ROOT = Path(__file__).resolve().parent.parent


def quiet(what: str, done: int, total: int) -> None:
    """Progress: one line when a part is done."""
    if done == total:
        print(what, done, flush=True)


def train(bench: Bench, model: str, settings: dict[str, Any]) -> Run:
    """Train `tiny` with these settings, or go on; a line of training.jsonl every second."""
    cohort = commands.start_cohort(bench, quiet)
    run, record = commands.plan_training(bench, cohort, model, "tiny", settings, 0)
    logged, budget = 0.0, record["config"]["budget"]
    for progress in commands.train(bench, cohort, run, record, device="cpu", overwrite=False):
        if progress.seconds - logged > 1 or progress.seen >= budget:
            training.append_record(run, progress)
            logged = progress.seconds
    print(run.name, "trained,", round(read_json(run.weights_record)["seconds"]), "s", flush=True)
    return run


def sample(bench: Bench, run: Run) -> None:
    """Make the protocol's samples."""
    for _ in commands.generate(bench, run, None, device="cpu", batch=8, overwrite=False):
        pass


def score_all(bench: Bench) -> None:
    """Make the controls, score every entrant, write the report."""
    cohort = commands.start_cohort(bench, quiet)
    for control, count in commands.possible_controls(bench, cohort):
        for _ in commands.make_control(bench, cohort, control, count, overwrite=False):
            pass
    runs = commands.entrants(bench)
    for each in runs:
        commands.evaluate(bench, cohort, each, weights=None, device="cpu", overwrite=False, progress=quiet)
    commands.embed(bench, cohort, runs, weights=None, device="cpu", progress=quiet)
    print(write_report(bench))


def scores(run: Run) -> dict[str, dict[str, Any]]:
    """metric -> value, interval, target of one entrant."""
    found = read_json(run.scores)["scores"]
    return {s["metric"]: {k: s[k] for k in ("value", "low", "high", "target")} for s in found}


def measure(bench: Bench, run: Run) -> dict[str, Any]:
    """Cost and plausibility of a trained run: seconds, volumes, one-head measures, spread over voxels and volumes."""
    cohort = commands.start_cohort(bench, quiet)
    samples, reference = run.samples().stack(), cohort.set("reference").crop(run.samples().slab)
    size, background = reference_frame(reference.stack())
    heads = [head_measures(volume, size, background) for volume in samples]
    record, settings = read_json(run.weights_record), read_json(run.record)
    return {
        "config": settings["config"],
        "parameters": settings["parameters"],
        "training_seconds": record["seconds"],
        "seen": record["seen"],
        "steps": record["step"],
        "device": record["device"],
        "share_with_one_head": float(np.mean([shows_one_head(h) for h in heads])),
        "heads": heads,
        "smallest_spread_within_a_sample": float(samples.std(axis=(1, 2, 3)).min()),
        "spread_between_samples": float(samples.std(axis=0).mean()),
        "spread_between_real": float(reference.stack().std(axis=0).mean()),
    }


def provenance(run: Run, command: str) -> dict[str, Any]:
    """Where the figures come from."""
    machine = platform.processor() or platform.machine()
    return {"command": command, "machine": machine, "versions": read_json(run.record)["versions"]}


def three_views(cells: Sequence[Any], volume: np.ndarray, spacing_mm: Sequence[float]) -> None:
    """Central axial, coronal and sagittal slice of `[D,H,W]` in [0,1] on three axes, true aspect, one window."""
    x, y, z = spacing_mm
    d, h, w = (n // 2 for n in volume.shape)
    views = ((volume[d], y / x), (volume[:, h], z / x), (volume[:, :, w], z / y))
    for cell, (image, aspect) in zip(cells, views, strict=True):
        cell.imshow(image, cmap="gray", vmin=0, vmax=1, origin="lower", aspect=aspect)
        cell.set_xticks([]), cell.set_yticks([])


def progress_lines(run: Run) -> list[dict[str, Any]]:
    """The lines of training.jsonl."""
    return [json.loads(line) for line in run.progress.read_text().splitlines()]
