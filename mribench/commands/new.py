"""mribench new: a package with a plug-in, to start from."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from mribench import __version__
from mribench.errors import UsageError

_NAME = re.compile(r"(?=.{1,40}$)[a-z][a-z0-9]*(_[a-z0-9]+)*")
_USES = {
    "generator": "mribench train {name} && mribench generate --all && mribench report",
    "metric": "mribench evaluate --real real/ --samples generated/",
}


@click.command()
@click.argument("kind", type=click.Choice(["generator", "metric"]))
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where the package's folder is made. [default: here]",
)
def new(kind: str, name: str, out: Path) -> None:
    """Write a package that adds a generator or a metric to mribench, with tests that pass.

    \b
    mribench new generator my_model
    mribench new metric my_distance --out ~/src
    """
    _check_name(kind, name)
    folder = out / f"mribench-{name.replace('_', '-')}"
    if folder.exists():
        raise UsageError(f"{folder} must not exist yet. Remove it, or choose another NAME or --out DIR.")
    _write(folder, _package(kind, name))
    click.echo(folder)
    click.echo(f"Next: pip install -e '{folder}[test]' && pytest {folder}", err=True)


def _check_name(kind: str, name: str) -> None:
    """Raise UsageError for a name that cannot be a module's, or that something has."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            "NAME must be words of lower-case letters and digits with '_' between them, begin with a letter and have "
            f"at most 40 characters, not {name!r}."
        )
    from mribench.bench.controls import CONTROLS
    from mribench.metrics import METRIC_REGISTRY
    from mribench.models import MODEL_REGISTRY

    registry = METRIC_REGISTRY if kind == "metric" else MODEL_REGISTRY
    if name in (*registry.names(), *(CONTROLS if kind == "generator" else ())):
        owner = registry.package(name) or "mribench"
        raise UsageError(f"{name} is taken: {owner} has it. Choose another NAME.")


def _package(kind: str, name: str) -> dict[str, str]:
    """Path below the package's folder -> text."""
    words = [word for word in name.split("_") if word]
    class_name = "".join(word.capitalize() for word in words) + kind.capitalize()
    module = f"mribench_{name}"
    facts = {
        "kind": kind,
        "name": name,
        "title": " ".join(words).capitalize(),
        "project": f"mribench-{name.replace('_', '-')}",
        "module": module,
        "class_name": class_name,
        "object": class_name if kind == "generator" else name.upper(),
        "use": _USES[kind].format(name=name),
        "version": __version__,
    }
    skeletons = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{kind}.py",
        f"tests/test_{name}.py": f"test_{kind}.py",
    }
    from importlib.resources import files
    from string import Template

    folder = files("mribench.commands") / "skeletons"
    return {
        path: Template((folder / f"{skeleton}.txt").read_text(encoding="utf-8")).substitute(facts)
        for path, skeleton in skeletons.items()
    }


def _write(folder: Path, texts: dict[str, str]) -> None:
    """Write all files to a temporary folder, then give it its name."""
    import tempfile

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as temporary:
        package = Path(temporary) / folder.name
        for path, text in texts.items():
            (package / path).parent.mkdir(parents=True, exist_ok=True)
            (package / path).write_text(text, encoding="utf-8", newline="\n")
        os.rename(package, folder)
