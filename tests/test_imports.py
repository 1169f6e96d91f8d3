"""Who imports whom: no circle, every arrow points down, and what the command line lists loads no network library."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import mribench

PACKAGE = Path(mribench.__file__).parent
FORBIDDEN = {
    "data": {"metrics", "bench", "reports", "commands"},
    "metrics": {"bench", "reports", "commands"},
    "models": {"metrics", "bench", "reports", "commands"},
    "bench": {"reports", "commands"},
    "reports": {"commands"},
}


def modules():
    """Name -> file of every module of the package."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("mribench", *path.relative_to(PACKAGE).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(source, names):
    """Modules of the package that a source imports, at the top or within functions, but for TYPE_CHECKING alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {name if name in names else node.module for name in whole}
    return imported & set(names)


@pytest.fixture(scope="module")
def graph():
    names = modules()
    return {name: imports_of(path.read_text(), names) - {name} for name, path in names.items()}


def room(name):
    return [*name.split("."), ""][1]


def test_imports_are_found_in_every_form():
    names = {"mribench.a", "mribench.b", "mribench.c", "mribench.d"}
    source = (
        "import mribench.a\nfrom mribench import b\ndef f():\n    from mribench.c import x\n"
        "if TYPE_CHECKING:\n    import mribench.d\nelse:\n    import mribench.other\n"
    )
    assert imports_of(source, names) == {"mribench.a", "mribench.b", "mribench.c"}


def test_there_is_no_circle(graph):
    assert len(graph) > 100
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_every_arrow_points_down(graph):
    upward = {
        (importer, imported)
        for importer, targets in graph.items()
        for imported in targets
        if room(imported) in FORBIDDEN.get(room(importer), ())
    }
    assert upward == set()


@pytest.mark.parametrize(
    "statement",
    [
        "import mribench.metrics.score",
        "from mribench.bench.protocol import load_protocol; load_protocol('demo')",
        "from mribench.commands.list import list_metrics; assert len(list_metrics()) > 15",
    ],
)
def test_reading_scores_and_listing_metrics_load_neither_torch_nor_numba(statement):
    code = f"{statement}; import sys; sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
