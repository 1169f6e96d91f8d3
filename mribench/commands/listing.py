"""What `mribench list` shows: models, metrics, protocols, runs, as rows of plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd


def rows(what: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of "models", "metrics", "protocols" or the "runs" of the bench in `folder`."""
    return {"models": models, "metrics": metrics, "protocols": protocols, "runs": lambda: runs(folder)}[
        what
    ]()


def models() -> list[dict[str, Any]]:
    """Every model x preset: volume size, budget, parameters per sub-network and in all, what the model is."""
    from mribench.commands.steps import parameter_count
    from mribench.models import MODELS, get_model

    found = []
    for name in MODELS:
        kind = get_model(name)
        for preset in kind.PRESETS:
            config = kind.build_config(preset)
            counts = parameter_count(name, config)
            found.append(
                {
                    "model": name,
                    "title": kind.title,
                    "preset": preset,
                    "size": config.size,
                    "batch_size": config.batch_size,
                    "budget": config.budget,
                    "parameters": sum(counts.values()),
                    "subnetworks": counts,
                    "source": kind.source,
                    "summary": kind.summary,
                }
            )
    return found


def metrics() -> list[dict[str, Any]]:
    """Every metric with its ranking family, what counts as better and which controls it must see."""
    from mribench.metrics import METRICS, get_metric

    found = [get_metric(name) for name in METRICS]
    return [
        {
            "metric": m.name,
            "title": m.title,
            "family": m.family,
            "ranked": m.ranked,
            "better": m.better,
            "detects": list(m.detects),
        }
        for m in found
    ]


def protocols() -> list[dict[str, Any]]:
    """Every shipped protocol with its sizes and digest."""
    from mribench.bench.protocol import load_protocol, shipped

    found = [load_protocol(name) for name in shipped()]
    return [
        {
            "protocol": p.name,
            "version": p.version,
            "cohort": p.cohort.source,
            "size": p.cohort.size,
            "train": p.cohort.train,
            "reference": p.cohort.reference,
            "holdout": p.cohort.holdout,
            "samples": p.evaluation.samples,
            "digest": p.digest[:12],
        }
        for p in found
    ]


def runs(folder: Path) -> list[dict[str, Any]]:
    """Every run of a bench and how far it has come."""
    from mribench.bench.folder import open_bench
    from mribench.errors import MribenchError
    from mribench.files import read_json

    found = []
    for run in open_bench(folder).runs():
        try:
            record = run.read_record()
            samples = len(read_json(run.samples_record)["files"]) if run.samples_record.exists() else 0
            row = {"kind": record["kind"], "model": record["model"], "seed": record["seed"]}
            row |= {"trained": run.weights_record.exists(), "samples": samples, "scored": run.scores.exists()}
        except (MribenchError, KeyError, TypeError) as error:
            row = {"kind": f"unreadable: {error}"}
        found.append({"run": run.name, **row})
    return found


def as_text(table: list[dict[str, Any]]) -> str:
    """Rows as an aligned table; the summaries of models stand below it, once each."""
    if not table:
        return "none yet"
    rows = [{key: _plain(value) for key, value in row.items() if key != "summary"} for row in table]
    lines = dict.fromkeys(f"{row['title']}: {row['summary']}" for row in table if "summary" in row)
    return "\n".join([pd.DataFrame(rows).fillna("").to_string(index=False), *lines])


def _plain(value: Any) -> Any:
    return " ".join(f"{key}:{part}" for key, part in value.items()) if isinstance(value, dict) else value
