"""Tables of docs/gauntlet.md."""

from __future__ import annotations

from results import RESULTS, table

from mribench.selftest import gauntlet_table
from mribench.selftest.adversaries import ADVERSARIES, HONEST
from mribench.selftest.gauntlet import GauntletRecord


def _record(size: int) -> GauntletRecord:
    return GauntletRecord.read(RESULTS / f"gauntlet-{size}.json")


def adversaries() -> str:
    """Every entrant, its dose and what is wrong with it."""
    rows = [[e.title, e.kind, e.dose, e.wrong] for e in (HONEST | ADVERSARIES).values()]
    return table(["entrant", "kind", "dose", "what is wrong"], rows)


def gauntlet_32() -> str:
    """Places and scores at 32^3."""
    return "\n\n" + gauntlet_table.table(_record(32)) + "\n\n"


def cheats_at_32() -> str:
    """How many of how many cheats are not held back at 32^3."""
    cheats = [result for result in _record(32).adversaries if result.kind == "cheat"]
    return f"{sum(not result.passed for result in cheats)} of {len(cheats)}"
