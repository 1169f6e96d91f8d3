"""The example in docs/adding-a-model.md is complete and keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from mribench.models import MODELS
from mribench.selftest import contract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-model.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the docs are not installed beside the tests")
def test_the_example_keeps_the_contract(tmp_path, monkeypatch):
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "linear_vae_of_the_docs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MODELS, "linear_vae", "linear_vae_of_the_docs:LinearVAE")
    results = list(contract.run("linear_vae", size=16))
    assert len(results) == len(contract.GENERATOR_CHECKS)
    assert [problem for problem in results if problem[1]] == []
