"""The example in docs/adding-a-metric.md is complete and keeps the contract."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mribench.metrics import METRICS
from mribench.selftest import contract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-metric.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the docs are not installed beside the tests")
def test_the_example_keeps_the_contract(tmp_path, monkeypatch):
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "brain_size_of_the_docs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METRICS, "brain_size", "brain_size_of_the_docs:BRAIN_SIZE")
    results = list(contract.run("brain_size"))
    assert len(results) == len(contract.METRIC_CHECKS)
    assert [problem for problem in results if problem[1]] == []
    sys.modules.pop("brain_size_of_the_docs")
