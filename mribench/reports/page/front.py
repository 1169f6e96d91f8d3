"""The first screen: the result, who leads and who is held back as cards with pictures, and what was compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mribench.bench.folder import Bench
from mribench.data.cohort import Cohort
from mribench.reports.page.pictures import Strip
from mribench.reports.page.provenance import voxels
from mribench.reports.records import Entrant
from mribench.reports.rows import Leaderboard, Row, percent, significant

_LEADERS = 3


@dataclass(frozen=True)
class FrontCard:
    """One entrant, or the real volumes (`entrant` None), with the views of its first volume."""

    strip: Strip
    entrant: Entrant | None = None
    place: int | None = None
    result: str = ""
    held_back: str = ""


def front_cards(board: Leaderboard, strips: Mapping[str, Strip], reference: Strip | None) -> list[FrontCard]:
    """Real volumes, the first three that are ranked, and whoever is held back."""
    leaders = [row for row in board.contestants if row.place is not None][:_LEADERS]
    held_back = [row for row in board.contestants if row.held_back]
    real = [FrontCard(reference)] if reference and (leaders or held_back) else []
    return [*real, *(_card(row, strips[row.entrant.name]) for row in (*leaders, *held_back))]


def _card(row: Row, strip: Strip) -> FrontCard:
    result = ""
    if row.place is not None and row.excess is not None:
        chance = percent(row.chances[0])
        result = (
            f"The best with a probability of {chance}; differs from real volumes most in {row.decisive}: "
            f"excess {significant(row.excess)}."
        )
    return FrontCard(strip, row.entrant, row.place, result, row.unranked if row.held_back else "")


def front_warnings(board: Leaderboard) -> list[str]:
    """The warnings of the board that no card of the first screen says."""
    said = {row.notice for row in board.contestants if row.held_back}
    return [warning for warning in board.warnings if warning not in said]


def front_facts(bench: Bench, cohort: Cohort | None, entrants: Sequence[Entrant]) -> list[tuple[str, str]]:
    """Cohort, numbers of volumes, voxels, protocol, and the day of the last score."""
    protocol = bench.protocol
    source = cohort.source if cohort else protocol.cohort.source
    reference = len(cohort.set("reference")) if cohort else protocol.cohort.reference
    brains = "simulated brains, not patients" if source == "simulated" else "scans of people"
    facts = [
        ("Cohort", brains),
        ("Compared", f"{protocol.evaluation.samples} samples of each with {reference} real volumes"),
        ("Voxels", voxels(cohort.grid if cohort else protocol.cohort.voxels)),
        ("Protocol", f"{protocol.name}, version {protocol.version}"),
    ]
    days = sorted(_days(bench, entrants))
    return [*facts, ("Scored", days[-1])] if days else facts


def _days(bench: Bench, entrants: Iterable[Entrant]) -> Iterable[str]:
    """The days on which score files were last written, which no record says."""
    for entrant in entrants:
        path = bench.run(entrant.name).scores
        if path.exists():
            yield datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
