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


def gauntlet_64() -> str:
    """Places and scores at 64^3."""
    return "\n\n" + gauntlet_table.table(_record(64)) + "\n\n"


def held_back() -> str:
    """Per size and kind, how many of how many adversaries are held back, by a gate or by the ranks."""
    rows = []
    for size in (32, 64):
        for kind in ("cheat", "defect", "minority"):
            of_kind = [result for result in _record(size).adversaries if result.kind == kind]
            unranked = sum(result.passed and result.place is None for result in of_kind)
            below = sum(result.passed and result.place is not None for result in of_kind)
            missed = ", ".join(result.title for result in of_kind if not result.passed)
            rows.append([f"{size}³", kind, str(len(of_kind)), str(unranked), str(below), missed or "–"])
    return table(
        ["size", "kind", "adversaries", "not ranked", "below every honest one", "not held back"], rows
    )


def unlisted_missed() -> str:
    """How many of how many unlisted adversaries are not held back at 64^3, and which."""
    results = GauntletRecord.read(RESULTS / "gauntlet-unlisted-64.json").adversaries
    missed = [result.title for result in results if not result.passed]
    return f"{len(missed)} of {len(results)} ({', '.join(missed)})"
