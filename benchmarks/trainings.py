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

from mribench.bench.cohort import start_cohort
from mribench.bench.controls import possible_controls
from mribench.bench.folder import Bench, Run
from mribench.bench.records import ScoresRecord, WeightsRecord
from mribench.evaluation import embed, evaluate_run
from mribench.generation import generate, make_control
from mribench.reports.page.html import write_report
from mribench.runtime import make_context
from mribench.training import plan_training
from mribench.training import train as train_plan

ROOT = Path(__file__).resolve().parent.parent


def quiet(what: str, done: int, total: int) -> None:
    """Progress: one line when a part is done."""
    if done == total:
        print(what, done, flush=True)


def train(bench: Bench, model: str, settings: dict[str, Any], preset: str = "tiny") -> Run:
    """Train a preset with these settings, or continue."""
    cohort = start_cohort(bench, quiet)
    plan = plan_training(bench, cohort, model, preset, settings, 0)
    train_plan(bench, cohort, plan, make_context("cpu"))
    print(
        plan.run.name, "trained,", round(WeightsRecord.read(plan.run.weights_record).seconds), "s", flush=True
    )
    return plan.run


def sample(bench: Bench, run: Run) -> None:
    """Make the protocol's samples."""
    generate(bench, run, make_context("cpu"))


def score_all(bench: Bench) -> None:
    """Make the controls, score every entrant, write the report."""
    cohort, context = start_cohort(bench, quiet), make_context("cpu", progress=quiet)
    for control, count in possible_controls(cohort, bench.protocol.evaluation.samples):
        make_control(bench, cohort, control, count, context)
    for entrant in bench.entrants():
        evaluate_run(bench, cohort, entrant, context)
    embed(bench, cohort, bench.entrants(), context)
    print(write_report(bench))


def scores(run: Run) -> dict[str, dict[str, Any]]:
    """metric -> value, interval, target of one entrant."""
    fields = {"value", "low", "high", "target"}
    return {score.metric: score.model_dump(include=fields) for score in ScoresRecord.read(run.scores).scores}


def measure(bench: Bench, run: Run) -> dict[str, Any]:
    """Cost and plausibility of a trained run: seconds, volumes, one-head measures, spread over voxels and volumes."""
    cohort = start_cohort(bench, quiet)
    samples, reference = run.samples().stack(), cohort.set("reference").crop(run.samples().slab)
    size, background = reference_frame(reference.stack())
    heads = [head_measures(volume, size, background) for volume in samples]
    weights, settings = WeightsRecord.read(run.weights_record), run.read_record()
    return {
        "config": settings.config,
        "parameters": settings.parameters,
        "training_seconds": weights.seconds,
        "seen": weights.seen,
        "steps": weights.step,
        "device": weights.device.model_dump() if weights.device else None,
        "share_with_one_head": float(np.mean([shows_one_head(h) for h in heads])),
        "heads": heads,
        "smallest_spread_within_a_sample": float(samples.std(axis=(1, 2, 3)).min()),
        "spread_between_samples": float(samples.std(axis=0).mean()),
        "spread_between_real": float(reference.stack().std(axis=0).mean()),
    }


def provenance(run: Run, command: str) -> dict[str, Any]:
    """Where the figures come from."""
    machine = platform.processor() or platform.machine()
    return {"command": command, "machine": machine, "versions": run.read_record().versions}


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
