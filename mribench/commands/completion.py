"""What a shell offers for an argument: names of models, metrics and runs. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import click


def model_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Generators, of plug-ins too."""
    from mribench.models import MODEL_REGISTRY

    return _beginning(incomplete, MODEL_REGISTRY.names())


def checkable_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Generators and metrics, of plug-ins too."""
    from mribench.metrics import METRIC_REGISTRY
    from mribench.models import MODEL_REGISTRY

    return _beginning(incomplete, [*MODEL_REGISTRY.names(), *METRIC_REGISTRY.names()])


def run_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Runs of the bench that --bench names, or of the usual one."""
    bench = next(option for option in context.command.params if option.name == "folder")
    folder = Path(str(context.params.get("folder") or bench.get_default(context)))
    return _beginning(incomplete, sorted(record.parent.name for record in folder.glob("runs/*/run.json")))


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
