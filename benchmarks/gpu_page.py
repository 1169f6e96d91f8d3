"""The one page of benchmarks/gpu.py: device, versions and every row, with its share of the measured limits."""

from __future__ import annotations

from typing import Any

LIMIT = "products_bf16_tflops"


def page(result: dict[str, Any]) -> str:
    """Markdown of the results so far."""
    parts = result["parts"]
    rows = {name: part["rows"] for name, part in parts.items()}
    limits = rows.get("limits") or [{}]
    lines = ["# One GPU", "", f"`{result['command']}`", ""]
    lines += [f"- {key}: {value}" for row in limits for key, value in row.items()]
    for name, part in parts.items():
        if name != "limits":
            lines += ["", f"## {name} ({part['end']} after {part['seconds']:.0f} s)", ""]
            lines += _table(part["rows"], limits[0].get(LIMIT))
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]], limit: float | None) -> list[str]:
    """One table for all rows of a part; `kernels`, a profile, becomes a list below it."""
    flat = [_with_share(row, limit) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row if key != "kernels"))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"] if columns else []
    for row in flat:
        lines.append(f"| {' | '.join(_cell(row.get(column)) for column in columns)} |")
    for row in flat:
        if "kernels" in row:
            lines += ["", f"{row.get('model')}:", ""]
            lines += [f"- {k['ms']:.2f} ms, {k['calls']} calls: {k['name']}" for k in row["kernels"]]
    return lines


def _with_share(row: dict[str, Any], limit: float | None) -> dict[str, Any]:
    if limit and row.get("tflops"):
        return {**row, "share_of_limit": row["tflops"] / limit}
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
