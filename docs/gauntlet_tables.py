"""Tables of docs/gauntlet.md."""

from __future__ import annotations

from collections.abc import Iterable

from results import RESULTS, table

from mribench.selftest import gauntlet_table
from mribench.selftest.adversaries import ADVERSARIES, HONEST
from mribench.selftest.entrants import Adversary
from mribench.selftest.gauntlet import GauntletRecord
from mribench.selftest.unlisted import UNLISTED


def _record(size: int) -> GauntletRecord:
    return GauntletRecord.read(RESULTS / f"gauntlet-{size}.json")


def _entrants(entrants: Iterable[Adversary]) -> str:
    rows = [[e.title, e.kind, e.dose, e.wrong] for e in entrants]
    return table(["entrant", "kind", "dose", "what is wrong"], rows)


def adversaries() -> str:
    """Every listed entrant, its dose and what is wrong with it."""
    return _entrants((HONEST | ADVERSARIES).values())


def unlisted() -> str:
    """Every adversary that is not listed, its dose and what is wrong with it."""
    return _entrants(UNLISTED.values())


def gauntlet_32() -> str:
    """Places and scores at 32^3."""
    return "\n\n" + gauntlet_table.table(_record(32)) + "\n\n"


def cheats_at_32() -> str:
    """How many of how many cheats are not held back at 32^3."""
    cheats = [result for result in _record(32).adversaries if result.kind == "cheat"]
    return f"{sum(not result.passed for result in cheats)} of {len(cheats)}"
