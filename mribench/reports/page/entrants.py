"""Everything that the page has of one entrant, in parts that a link can point at."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from mribench.reports.page.board import Mark
from mribench.reports.page.pictures import Gallery, Group, Strip
from mribench.reports.page.provenance import Card
from mribench.reports.page.regions import forests
from mribench.reports.rows import Leaderboard, Row

_TAKEN = ("note-", "metric-", "show-", "slice-", "h-")  # beginnings of other ids


@dataclass(frozen=True)
class EntrantView:
    """One entrant's parts; None where its kind has none. `place` is the id that links point at."""

    place: str
    row: Row
    card: Card
    marks: Mapping[str, Mark]  # metric -> its mark
    samples: tuple[Strip, ...]
    copies: Group | None
    anatomy: Group | None
    profile: Group | None
    tsne: Group | None
    training: Group | None

    @property
    def panels(self) -> list[tuple[str, str, Group]]:
        """(id, heading, plot or its reason) of the parts that are one plot."""
        parts = (
            ("anatomy", "Anatomy", self.anatomy),
            ("profile", "Slice profile", self.profile),
            ("tsne", "t-SNE", self.tsne),
            ("training", "Training", self.training),
        )
        return [(part, title, group) for part, title, group in parts if group is not None]


def place_of(name: str, taken: Container[str]) -> str:
    """The id of an entrant: its name, unless that is the id of something else."""
    return f"entrant/{name}" if name in taken or name.startswith(_TAKEN) else name


def entrant_views(
    board: Leaderboard,
    gallery: Gallery,
    cards: Sequence[Card],
    marks: Mapping[str, Mapping[str, Mark]],
    taken: Container[str],
) -> tuple[list[EntrantView], list[str]]:
    """A view of every row of the board, and the reasons why all of them lack a part."""
    entrants = [row.entrant for row in board.rows]
    contestants = [row.entrant for row in board.contestants]
    anatomy, no_anatomy = forests(entrants)
    profiles, no_profiles = gallery.profiles(entrants)
    tsne, no_tsne = gallery.embedding(entrants)
    copies = [entrant for entrant in entrants if entrant.name == "train_copy"]
    parts = [
        _by_name(groups)
        for groups in (
            gallery.neighbours([*contestants, *copies]),
            anatomy,
            profiles,
            tsne,
            gallery.curves(contestants),
        )
    ]
    strips = {group.entrant.name: group.strips for group in gallery.five(contestants)}
    views = [
        EntrantView(
            place_of(name, taken),
            row,
            card,
            marks.get(name, {}),
            strips.get(name, ()),
            *(groups.get(name) for groups in parts),
        )
        for row, card in zip(board.rows, cards, strict=True)
        for name in (row.entrant.name,)
    ]
    reasons = [(no_anatomy, "Anatomy"), (no_profiles, "Slice profiles"), (no_tsne, "t-SNE")]
    return views, [f"{part}: {reason}" for reason, part in reasons if reason and views]


def _by_name(groups: Sequence[Group]) -> dict[str, Group]:
    return {group.entrant.name: group for group in groups}
