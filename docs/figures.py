"""Fill in the measured figures of README.md and docs/*.md from benchmarks/results/*.json.

    python docs/figures.py             rewrite every marked place
    python docs/figures.py --check     change nothing; name every stale place and exit with 1

A marked place is `<!--= EXPRESSION -->text<!--/-->`. EXPRESSION is the name of a function of docs/tables.py, or a path
into a results file, perhaps a factor, and a format: `pairs/brain/ours_ms/median .1f`, `selftest/seconds clock` (7 min
50 s), `coverage/permutation/*/level/mmd * 100 .1f` (`*` stands for all entries; the text is their range).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import tables

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"<!--= (?P<expression>[^>]+?) -->(?P<text>.*?)<!--/-->", re.DOTALL)
FIGURE = re.compile(r"(?P<path>\S+/.+?)(?: \* (?P<factor>[\d.]+))? (?P<format>\S+)")


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(expression: str) -> str:
    """The text that `expression` stands for; raises ValueError when it names nothing."""
    if callable(table := getattr(tables, expression, None)):
        return table()
    figure = FIGURE.fullmatch(expression)
    if figure is None:
        raise ValueError(f"{expression!r} must be a function of docs/tables.py or 'FILE/KEY/... FORMAT'.")
    values = tables.result(figure["path"])
    if figure["format"] == "clock":
        return tables.clock(*values)
    return tables.span([value * float(figure["factor"] or 1) for value in values], figure["format"])


def fill(page: str) -> tuple[str, list[str]]:
    """The text of a page with every marked place filled in, and the expressions whose text was another."""
    stale = []

    def place(match: re.Match[str]) -> str:
        text = text_of(match["expression"])
        if text != match["text"]:
            stale.append(match["expression"])
        return f"<!--= {match['expression']} -->{text}<!--/-->"

    return PLACE.sub(place, page), stale


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill in the measured figures of the docs.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 when a place is stale"
    )
    check = parser.parse_args().check
    count = 0
    for path in pages():
        text, stale = fill(path.read_text())
        count += len(stale)
        for expression in stale:
            print(f"{path.relative_to(ROOT)}: {expression}", "is stale" if check else "was filled in")
        if stale and not check:
            path.write_text(text)
    if check and count:
        raise SystemExit("Run `python docs/figures.py`.")


if __name__ == "__main__":
    main()
