"""Where the data's modules may look: never to what is built on them."""

import ast
from pathlib import Path

import mribench

UPPER = ("bench", "commands", "evaluation", "metrics", "models", "reports", "scoring", "selftest", "training")


def test_data_imports_nothing_that_is_built_on_it():
    root = Path(mribench.__file__).parent
    files = sorted((root / "data").rglob("*.py"))
    wrong = [
        (file.name, name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mribench")
        for name in (
            [alias.name for alias in node.names]
            if node.module == "mribench"
            else [node.module.partition(".")[2].partition(".")[0]]
        )
        if name in UPPER
    ]
    assert len(files) > 15 and wrong == []
