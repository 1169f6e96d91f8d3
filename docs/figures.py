"""Fill in the measured figures of README.md and docs/*.md from benchmarks/results/*.json.

    python docs/figures.py             rewrite every marked place
    python docs/figures.py --check     change nothing; name every stale place and exit with 1

A marked place is `<!--= EXPRESSION -->text<!--/-->`. EXPRESSION is the name of a function of docs/*_tables.py, or a
path into a results file, perhaps a factor, and a format: `pairs/brain/ours_ms/median .1f`, `selftest/seconds clock`
(7 min 50 s), `coverage/permutation/*/level/mmd * 100 .1f` (`*` stands for all entries; the text is their range).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import anatomy_tables
import cost_tables
import evidence_tables
import fault_tables
import gate_tables
import gauntlet_tables
import learning_tables
import ranking_tables
import results

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"<!--= (?P<expression>[^>]+?) -->(?P<text>.*?)<!--/-->", re.DOTALL)
FIGURE = re.compile(r"(?P<path>\S+/.+?)(?: \* (?P<factor>[\d.]+))? (?P<format>\S+)")
FUNCTIONS = {
    name: value
    for module in (
        anatomy_tables,
        cost_tables,
        evidence_tables,
        fault_tables,
        gate_tables,
        gauntlet_tables,
        learning_tables,
        ranking_tables,
    )
    for name, value in vars(module).items()
    if getattr(value, "__module__", "") == module.__name__
}


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(expression: str) -> str:
    """The text that `expression` stands for; raises ValueError when it names nothing."""
    if expression in FUNCTIONS:
        return FUNCTIONS[expression]()
    figure = FIGURE.fullmatch(expression)
    if figure is None:
        raise ValueError("it must be a function of docs/*_tables.py or 'FILE/KEY/... FORMAT'")
    try:
        values = results.at(figure["path"])
    except (LookupError, OSError) as error:
        raise ValueError(f"benchmarks/results has no such value ({error!r})") from error
    if figure["format"] == "clock":
        return results.clock(*values)
    factor = figure["factor"]
    return results.span([value * float(factor) if factor else value for value in values], figure["format"])


def fill(page: str) -> tuple[str, list[str], list[str]]:
    """The text of a page with every marked place filled in, the expressions whose text was another, and faults."""
    stale, faults = [], []

    def place(match: re.Match[str]) -> str:
        expression = match["expression"]
        try:
            text = text_of(expression)
        except ValueError as error:
            faults.append(f"{expression}: {error}")
            return match[0]
        if text != match["text"]:
            stale.append(expression)
        return f"<!--= {expression} -->{text}<!--/-->"

    return PLACE.sub(place, page), stale, faults


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill in the measured figures of the docs.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 when a place is stale"
    )
    check = parser.parse_args().check
    failed = False
    for path in pages():
        text, stale, faults = fill(path.read_text())
        name = path.relative_to(ROOT)
        for expression in stale:
            print(
                f"{name}: {expression}",
                "is stale; run `python docs/figures.py`" if check else "was filled in",
            )
        for fault in faults:
            print(f"{name}: {fault}")
        failed |= bool(faults or (check and stale))
        if stale and not check:
            path.write_text(text)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
