"""docs/adding-a-metric.md: the example, added by the steps of the page, passes every check."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mribench
from mribench.metrics import METRICS, get_metric
from mribench.selftest import contract

ROOT = Path(__file__).resolve().parents[2]
PAGE, EXAMPLE = ROOT / "docs" / "adding-a-metric.md", ROOT / "docs" / "examples" / "brain_size.py"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not installed beside the tests")


@pytest.fixture
def registered(monkeypatch):
    """The example as a row of METRICS, imported from the docs."""
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    monkeypatch.setitem(METRICS, "brain_size", "brain_size:BRAIN_SIZE")
    yield
    sys.modules.pop("brain_size", None)


@pytest.fixture
def copy(tmp_path):
    """A copy of the package with the example added by the steps of the page: one file and one row."""
    shutil.copytree(
        Path(mribench.__file__).parent, tmp_path / "mribench", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(EXAMPLE, tmp_path / "mribench" / "metrics")
    row = re.search(r'^ {4}"brain_size": ".*",$', PAGE.read_text(), re.M).group(0)
    registry = tmp_path / "mribench" / "metrics" / "__init__.py"
    rows = registry.read_text().replace(f"{row}\n", "")  # it is there when somebody follows the page
    registry.write_text(rows.replace("\n}", f"\n{row}\n}}", 1))
    return tmp_path


def call(copy, *command):
    """Run a module's command line in the copy; everything that it printed is the failure's message."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=copy,
        env={"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_shows_the_file():
    assert PAGE.read_text().split("```python\n")[1].split("```")[0] == EXAMPLE.read_text()


def test_the_example_keeps_the_contract(registered):
    results = list(contract.run("brain_size"))
    assert len(results) == len(contract.METRIC_CHECKS)
    assert [problem for problem in results if problem[1]] == []


def test_the_example_is_the_mean_difference_of_sorted_sizes(registered):
    bright = np.zeros((5, 2, 2, 2), np.float32)
    for i, count in enumerate((1, 2, 4, 3, 6)):
        bright[i].flat[:count] = 0.5
    arrays = SimpleNamespace(sets={"samples": bright[:2], "reference": bright[2:4]})
    metric = get_metric("brain_size")
    value = metric.value(metric.gather(arrays), {"samples": np.arange(2), "reference": np.arange(2)})
    assert value == pytest.approx((abs(1 - 3) + abs(2 - 4)) / 2 / 8)


def test_the_example_passes_lint_where_the_page_puts_it(copy):
    call(copy, "ruff", "check", ".")
    call(copy, "ruff", "format", "--check", ".")


@pytest.mark.slow
def test_the_example_passes_the_type_check_where_the_page_puts_it(copy):
    call(copy, "mypy")
