"""docs/python.md and docs/python.ipynb: every example runs, and the notebook holds what its cells show."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def notebook_module():
    spec = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "python.md").read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(blocks) == 5 and (tmp_path / "scores.png").exists() and names["page"].exists()
    printed = capsys.readouterr().out
    assert "samples=6" in printed and re.search(r"^16 mmd ", printed, re.MULTILINE)


def test_every_cell_of_the_notebook_runs_and_shows_the_kind_of_output_that_is_stored(
    tmp_path, monkeypatch, notebook_module
):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((DOCS / "python.ipynb").read_text())
    names = {}
    for number, cell in enumerate(notebook_module.code_cells(notebook), 1):
        outputs = notebook_module.run("".join(cell["source"]), names)
        assert cell["execution_count"] == number
        assert [kinds(output) for output in outputs] == [kinds(output) for output in cell["outputs"]]
    assert cell["outputs"]


def kinds(output):
    return sorted(output.get("data", {"stdout": ""}))


def test_the_notebook_is_of_the_format_that_viewers_read():
    notebook = json.loads((DOCS / "python.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    pictures = [
        base64.b64decode(output["data"]["image/png"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1 and pictures[0].startswith(b"\x89PNG")
    assert "/tmp" not in json.dumps(notebook)
