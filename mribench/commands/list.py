"""mribench list: models, metrics, protocols, runs and schemas, as rows of plain values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mribench.commands.options import bench_option, json_option

if TYPE_CHECKING:
    from mribench.data.grid import Box

Rows = list[dict[str, Any]]


@click.command("list")
@click.argument("what", type=click.Choice(["models", "metrics", "protocols", "runs", "schemas"]))
@bench_option
@json_option
def list_things(what: str, folder: Path, as_json: bool) -> None:
    """List models (with presets and parameter counts), metrics, protocols, the runs of a bench, or file schemas.

    \b
    mribench list models --json
    mribench list runs --bench trial
    mribench list schemas --json
    """
    if what == "schemas" and as_json:
        from mribench.bench.bundles import BundleRecord
        from mribench.bench.records import RECORDS

        schemas = [*(kind.json_schema() for kind in RECORDS.values()), BundleRecord.json_schema()]
        click.echo(json.dumps(schemas, indent=1))
        return
    rows = list_runs(folder) if what == "runs" else _LISTS[what]()
    click.echo(json.dumps(rows, indent=1) if as_json else _as_text(rows))


def list_models() -> Rows:
    """Every model x preset: volume size, budget, parameters per sub-network and in all, what the model is."""
    from mribench.models import MODEL_REGISTRY

    rows = []
    for name, kind in MODEL_REGISTRY.usable():
        for preset in kind.PRESETS:
            config = kind.build_config(preset)
            counts = kind.count_parameters(config)
            rows.append(
                {
                    "model": name,
                    "title": kind.title,
                    "preset": preset,
                    "size": _size(config),
                    "batch_size": config.batch_size,
                    "budget": config.budget,
                    "parameters": sum(counts.values()),
                    "subnetworks": counts,
                    "source": kind.source,
                    "package": MODEL_REGISTRY.package(name),
                    "summary": kind.summary,
                }
            )
    return rows


def _size(box: Box) -> int | list[int]:
    """Voxels a side of a cube, of any other box along x, y and z."""
    return box.size if box.is_cube else list(box.sides)


def list_metrics() -> Rows:
    """Every metric, as its class declares it."""
    from mribench.metrics import METRIC_REGISTRY, METRICS

    return [
        {
            "metric": metric.name,
            "title": metric.title,
            "unit": metric.unit,
            "family": metric.family,
            "ranked": metric.ranked,
            "default": not metric.opt_in and name in METRICS,
            "better": metric.better,
            "needs": dict(metric.needs),
            "in a slab": metric.in_slab,
            "detects": list(metric.detects),
            "package": METRIC_REGISTRY.package(name),
        }
        for name, metric in METRIC_REGISTRY.usable()
    ]


def list_protocols() -> Rows:
    """Every shipped protocol with its sizes and digest."""
    from mribench.bench.protocol import load_protocol, shipped

    return [
        {
            "protocol": p.name,
            "version": p.version,
            "cohort": p.cohort.source,
            "size": _size(p.cohort),
            "train": p.cohort.train,
            "reference": p.cohort.reference,
            "holdout": p.cohort.holdout,
            "samples": p.evaluation.samples,
            "digest": p.digest[:12],
        }
        for p in map(load_protocol, shipped())
    ]


def list_runs(folder: Path) -> Rows:
    """Every run of a bench and how far it has come."""
    from mribench.bench.folder import open_bench
    from mribench.errors import MribenchError

    rows: Rows = []
    for run in open_bench(folder).runs():
        try:
            record = run.read_record()
            samples = len(run.read_samples().files) if run.samples_record.exists() else 0
            row = {"kind": record.kind, "model": record.model, "seed": record.seed}
            trained = run.weights_run.weights_record.exists()
            row |= {"trained": trained, "samples": samples, "scored": run.scores.exists()}
            if record.weights_of:
                row["weights of"] = record.weights_of
            if record.adoption:
                row["recipe"] = str(record.adoption.recipe)
        except MribenchError as error:
            row = {"kind": f"unreadable: {error}"}
        rows.append({"run": run.name, **row})
    return rows


def list_schemas() -> Rows:
    """Every kind of file that carries a schema."""
    from mribench.bench import bundles
    from mribench.bench.records import RECORDS

    files = {**RECORDS} | {f"BUNDLE.zip/{bundles.RECORD}": bundles.BundleRecord}
    return [
        {"file": file, "schema": kind.SCHEMA, "holds": str(kind.__doc__).splitlines()[0]}
        for file, kind in files.items()
    ]


_LISTS = {
    "models": list_models,
    "metrics": list_metrics,
    "protocols": list_protocols,
    "schemas": list_schemas,
}


def _as_text(rows: Rows) -> str:
    """Rows as an aligned table; the summaries of models stand below it, once each."""
    import pandas as pd

    if not rows:
        return "none yet"
    plain = [{key: _plain(value) for key, value in row.items() if key != "summary"} for row in rows]
    summaries = dict.fromkeys(f"{row['title']}: {row['summary']}" for row in rows if "summary" in row)
    return "\n".join([pd.DataFrame(plain).fillna("").to_string(index=False), *summaries])


def _plain(value: Any) -> Any:
    return " ".join(f"{key}:{part}" for key, part in value.items()) if isinstance(value, dict) else value
