"""Run the cells of docs/python.ipynb in an empty folder and store what they show.

python docs/notebook.py
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

NOTEBOOK = Path(__file__).with_name("python.ipynb")
Output = dict[str, Any]


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells with code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> list[Output]:
    """What a cell prints and the value of its last expression, as a notebook stores them; lines with % are left out."""
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    tree, value = ast.parse("\n".join(lines)), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    text = printed.getvalue()
    outputs = [{"output_type": "stream", "name": "stdout", "text": text.splitlines(True)}] if text else []
    return outputs if value is None else [*outputs, _result(value)]


def _result(value: Any) -> Output:
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(True)}
    if isinstance(value, Figure):
        file = io.BytesIO()
        value.savefig(file, format="png", dpi=80, metadata={"Software": None})
        data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["<Figure>"]}
    elif hasattr(value, "_repr_html_"):
        data = {
            "text/html": value._repr_html_().splitlines(True),
            "text/plain": [f"<{type(value).__name__}>"],
        }
    return {"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": data}


def main() -> None:
    """Rewrite the notebook with the outputs of its cells."""
    notebook = json.loads(NOTEBOOK.read_text())
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number, cell in enumerate(code_cells(notebook), 1):
            cell["outputs"], cell["execution_count"] = run("".join(cell["source"]), names), number
            for output in cell["outputs"]:
                if output["output_type"] == "execute_result":
                    output["execution_count"] = number
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
