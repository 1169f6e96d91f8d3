"""docs/adding-a-model.md: the example, added by the steps of the page, passes every check."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mribench
from mribench.commands import list as list_command
from mribench.models import MODELS
from mribench.selftest import contract

ROOT = Path(__file__).resolve().parents[2]
PAGE, EXAMPLE = ROOT / "docs" / "adding-a-model.md", ROOT / "docs" / "examples" / "ppca.py"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not installed beside the tests")


@pytest.fixture
def registered(monkeypatch):
    """The example as a row of MODELS, imported from the docs."""
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    monkeypatch.setitem(MODELS, "ppca", "ppca:PPCA")
    yield
    sys.modules.pop("ppca", None)


def test_the_page_shows_the_file():
    assert PAGE.read_text().split("```python\n")[1].split("```")[0] == EXAMPLE.read_text()


def test_the_example_keeps_the_contract(registered):
    results = list(contract.run("ppca", size=16))
    assert len(results) == len(contract.GENERATOR_CHECKS)
    assert [problem for problem in results if problem[1]] == []


def test_list_models_shows_what_the_class_says(registered):
    (row,) = (row for row in list_command.list_models() if row["model"] == "ppca")
    assert (row["title"], row["source"]) == ("PPCA", "Tipping and Bishop 1999")
    assert list_command._as_text([row]).endswith(f"\nPPCA: {row['summary']}")


@pytest.fixture
def copy(tmp_path):
    """A copy of the package with the example added by the steps of the page: one file and one row."""
    shutil.copytree(
        Path(mribench.__file__).parent, tmp_path / "mribench", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(EXAMPLE, tmp_path / "mribench" / "models")
    row = re.search(r'^ {4}"ppca": ".*",$', PAGE.read_text(), re.M).group(0)
    registry = tmp_path / "mribench" / "models" / "__init__.py"
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
    return done.stdout


def test_the_example_passes_lint_where_the_page_puts_it(copy):
    call(copy, "ruff", "check", ".")
    call(copy, "ruff", "format", "--check", ".")


def test_the_command_line_knows_the_example(copy):
    command = "import sys; from mribench.cli import main; main(sys.argv[1:])"
    (copy / "run.py").write_text(command)
    printed = call(copy, "run", "check", "ppca")
    assert printed.count("ok ") == len(contract.GENERATOR_CHECKS)


@pytest.mark.slow
def test_the_example_passes_the_type_check_where_the_page_puts_it(copy):
    call(copy, "mypy")


@pytest.mark.slow
def test_the_example_beats_noise_and_the_mean_volume_in_two_minutes(tmp_path, monkeypatch, registered):
    """By FID of all three views, on the demo protocol; the benchmark measures the same."""
    from mribench.bench.controls import CONTROLS
    from mribench.commands import steps
    from mribench.files import read_json

    def quiet(what, done, total):
        pass

    bench = steps.start_bench(tmp_path / "bench", "demo", False)
    cohort = steps.start_cohort(bench, quiet)
    run, record = steps.plan_training(bench, cohort, "ppca", None, {}, 0)
    for _ in steps.train(bench, cohort, run, record, device="cpu", overwrite=False):
        pass
    for _ in steps.generate(bench, run, None, device="cpu", batch=8, overwrite=False):
        pass
    for control in ("noise", "mean_volume"):
        for _ in steps.make_control(bench, cohort, CONTROLS[control], 16, overwrite=False):
            pass
    fid = {}
    for name in ("ppca", "noise", "mean_volume"):
        entrant = bench.run(name)
        steps.evaluate(bench, cohort, entrant, weights=None, device="cpu", overwrite=False, progress=quiet)
        scores = {score["metric"]: score["value"] for score in read_json(entrant.scores)["scores"]}
        fid[name] = [scores[f"fid_{view}"] for view in "acs"]
    assert all(a < b < c for a, b, c in zip(fid["ppca"], fid["mean_volume"], fid["noise"], strict=True)), fid
    assert read_json(run.weights_record)["seconds"] < 120
