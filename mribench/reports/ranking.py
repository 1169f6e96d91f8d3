"""Best cells and tie groups of every column, the places by the headline, and the result in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mribench.files import digest_json
from mribench.metrics.score import Score
from mribench.metrics.statistics.comparison import differing, tie_letters
from mribench.metrics.statistics.headline import Headlines, headlines, rank_chances
from mribench.reports.gates import failed
from mribench.reports.rows import Cell, Column, Row, percent

_WINS = 0.95  # probability of being the best, and of being better than the mean volume, that a winner has at least
_NAMED = 0.05  # a smaller probability of being the best is not mentioned
_MEAN_VOLUME = "mean_volume"

_Families = Mapping[str, Sequence[Column]]  # ranking family -> its columns


class Result(NamedTuple):
    """Rows in the order of the table, the result in one sentence ("" = nothing ranked), and what the ranks lack."""

    rows: list[Row]
    headline: str
    remarks: list[str]


def _families(rows: Sequence[Row]) -> _Families:
    """In the order of the columns. A gap is a second view of a score and stays out."""
    families: dict[str, list[Column]] = {}
    for cell in rows[0].cells if rows else ():
        if cell.column.family and not cell.column.gap:
            families.setdefault(cell.column.family, []).append(cell.column)
    return families


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark, per ranked column, the best cell and the tie groups of the rows that are not held back.

    Alone nobody is best, and neither where all score exactly the same.
    """
    marks: dict[str, dict[str, Cell]] = {row.entrant.name: {} for row in rows}
    columns = [cell.column for cell in rows[0].cells] if rows else []
    for column in (column for column in columns if column.family):
        cells = {row.entrant.name: row.cell(column.key) for row in rows if row.whole and not row.unranked}
        for name, cell in _compared(cells).items():
            marks[name][column.key] = cell
    return [
        replace(row, cells=tuple(marks[row.entrant.name].get(c.column.key, c) for c in row.cells))
        for row in rows
    ]


def _compared(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Those of a column's cells whose scores are ranked, marked; none when fewer than two."""
    scores = {name: cell.score for name, cell in cells.items() if cell.ranked and cell.score}
    if len(scores) < 2:
        return {}
    rank_keys = [score.rank_key for score in scores.values()]
    letters = tie_letters(rank_keys, differing(list(scores.values())))
    alike = len(set(rank_keys)) == 1
    return {
        name: replace(cells[name], group=letters[i], best=rank_keys[i] == min(rank_keys) and not alike)
        for i, name in enumerate(scores)
    }


def hold_back(rows: Sequence[Row], reasons: Mapping[str, str]) -> list[Row]:
    """Rows with the reason why they are not ranked: that given for the entrant's name, or a failed gate."""
    said = [reasons.get(row.entrant.name) or failed(row.entrant) for row in rows]
    return [
        replace(row, unranked=reason, held_back=bool(reason)) for row, reason in zip(rows, said, strict=True)
    ]


def rank(rows: Sequence[Row], controls: Sequence[Row] = ()) -> Result:
    """Rank all rows that are not held back; `controls` give the mean volume, which a winner must beat.

    A family counts when more than half of the whole-volume models have all its scores comparably; an entrant that
    lacks a family that counts is not ranked, because a mean over fewer families is another number.
    """
    candidates = [
        row for row in rows if row.whole and row.entrant.scores and not (row.entrant.doubts or row.unranked)
    ]
    families = _families(rows)
    counting = {
        family: columns
        for family, columns in families.items()
        if 2 * sum(_has(row, columns) for row in candidates) > len(candidates)
    }
    ranked = [row for row in candidates if counting and all(_has(row, c) for c in counting.values())]
    entrants = _entrants(ranked)
    if len(entrants) < 2:
        return Result(sorted(rows, key=_order), "", [])
    placed, headline = _placed(entrants, counting, [c for c in controls if _measured(c, counting)])
    names = {row.entrant.name for row in placed}
    rest = [_without_place(row, counting) for row in rows if row.entrant.name not in names]
    left_out = [_title(columns) for family, columns in families.items() if family not in counting]
    remark = f"Not part of the ranking, because most models lack it: {', '.join(left_out)}."
    return Result(sorted([*placed, *rest], key=_order), headline, [remark] if left_out else [])


def _measured(control: Row, counting: _Families) -> bool:
    return control.entrant.name == _MEAN_VOLUME and all(_has(control, c) for c in counting.values())


class _Entrant(NamedTuple):
    """Rows that are ranked as one: equal samples, and trainings of one model that differ in the seed."""

    rows: list[Row]
    runs: list[Row]  # of equal samples only the first

    @property
    def title(self) -> str:
        return (
            self.runs[0].title if len(self.runs) == 1 else f"{self.runs[0].entrant.label} ({self.trainings})"
        )

    @property
    def trainings(self) -> str:
        return f"{len(self.runs)} trainings"

    @property
    def together(self) -> str:
        names = ", ".join(row.entrant.name for row in self.rows)
        if len(self.rows) == 1:
            return ""
        return f"{self.trainings if len(self.runs) > 1 else 'the same samples'}, ranked as one: {names}"

    @property
    def behind(self) -> str:
        """Why it is placed behind those whose runs all pass."""
        return " ".join(dict.fromkeys(failed(row.entrant, holding_back=False) for row in self.rows)).strip()


def _entrants(rows: Sequence[Row]) -> list[_Entrant]:
    entrants: dict[str, _Entrant] = {}
    samples: dict[str, str] = {}  # of equal samples, the entrant of the first
    for row in rows:
        files = row.entrant.samples.files if row.entrant.samples else ()
        digest = digest_json(sorted(file.digest for file in files)) if files else row.entrant.name
        again = digest in samples
        entrant = entrants.setdefault(samples.setdefault(digest, _training(row)), _Entrant([], []))
        entrant.rows.append(row)
        if not again:
            entrant.runs.append(row)
    return list(entrants.values())


def _training(row: Row) -> str:
    """Equal for the runs of one model with the same settings on the same cohort, whatever their seeds."""
    run, samples = row.entrant.run, row.entrant.samples
    if run is None or run.kind != "model":
        return row.entrant.name
    return digest_json([run.recipe, samples.sampler if samples else {}])


def _placed(
    entrants: list[_Entrant], counting: _Families, mean_volume: Sequence[Row]
) -> tuple[list[Row], str]:
    """The rows with their places, and the result. The likeliest to be the best comes first.

    Entrants that fail a gate which holds nobody back come after all others; of a board where all fail, none does.
    """
    metrics = [[column.metric for column in columns] for columns in counting.values()]
    titles = [_title(columns) for columns in counting.values()]
    runs = [[row.entrant.scores for row in entrant.runs] for entrant in entrants]
    headline = headlines(runs, metrics)
    behind = [entrant.behind for entrant in entrants]
    sound = [not reason for reason in behind]
    chances = _chances(headline, np.array(sound))
    order = sorted(
        range(len(entrants)), key=lambda k: (not sound[k], -_rounded(chances[k, 0]), headline.values[k])
    )
    beats = _beats_mean_volume(runs, metrics, mean_volume, order[0])
    wins = min(_rounded(chances[order[0], 0]), beats) >= _WINS
    placed = [
        replace(
            row,
            place=place,
            excess=float(headline.values[k]),
            decisive=titles[headline.families[k]],
            chances=tuple(float(p) for p in chances[k]),
            best=wins and place == 1,
            together=entrants[k].together,
            behind=behind[k] if any(sound) else "",
        )
        for place, k in enumerate(order, 1)
        for row in entrants[k].rows
    ]
    odds = [(entrants[k].title, float(chances[k, 0])) for k in order]
    return placed, _result(odds, beats)


def _chances(headline: Headlines, sound: np.ndarray) -> np.ndarray:
    """`[K,K]` probabilities of all places; those that are not sound have the last ones."""
    if sound.all() or not sound.any():
        return rank_chances(headline)
    chances = np.zeros((len(sound), len(sound)))
    taken = 0
    for group in (np.flatnonzero(sound), np.flatnonzero(~sound)):
        places = slice(taken, taken + len(group))
        chances[group, places] = rank_chances(headline.of(group)) if len(group) > 1 else 1.0
        taken += len(group)
    return chances


def _rounded(chance: float) -> float:
    """As it is shown."""
    return round(float(chance), 2)


def _beats_mean_volume(
    runs: list[list[Mapping[str, Score]]], metrics: list[list[str]], mean_volume: Sequence[Row], first: int
) -> float:
    """The probability that the first entrant is better than the control; 1 where there is no such control."""
    if not mean_volume:
        return 1.0
    together: Headlines = headlines([*runs, [mean_volume[0].entrant.scores]], metrics)
    return _rounded(together.better(first, len(runs)))


def _result(odds: Sequence[tuple[str, float]], beats: float) -> str:
    """The result in one sentence, from the entrants' titles and probabilities, the likeliest first."""
    (name, chance), among = odds[0], f"among {len(odds)} ranked models"
    if beats < _WINS:
        return (
            f"No winner {among}: {name}, the likeliest to be the best ({percent(chance)}), is not better than the "
            f"control {_MEAN_VOLUME} (probability of being better: {percent(beats)}; {percent(_WINS)} needed)."
        )
    if _rounded(chance) >= _WINS:
        return f"Winner {among}: {name}, the best with a probability of {percent(chance)}."
    named = ", ".join(f"{title} {percent(p)}" for title, p in odds if p >= _NAMED)
    return f"No winner {among}: none is the best with a probability of {percent(_WINS)}. P(first): {named}."


def _title(columns: Sequence[Column]) -> str:
    return columns[0].family_title


def _has(row: Row, columns: Sequence[Column]) -> bool:
    return all(row.cell(column.key).ranked for column in columns)


def _without_place(row: Row, counting: _Families) -> Row:
    """With the reason, unless it is held back or has no scores, which is said elsewhere."""
    if row.unranked or not row.entrant.scores:
        return row
    lacking = [_title(columns) for columns in counting.values() if not _has(row, columns)]
    reasons = row.entrant.doubts or ([f"no comparable {', '.join(lacking)}"] if lacking else ["not ranked"])
    return replace(row, unranked="; ".join(reasons))


def _order(row: Row) -> tuple[int, int, str]:
    """Ranked, then scored, then without any score; by name within."""
    group = 0 if row.place is not None else 1 if row.entrant.scores else 2
    return group, row.place or 0, row.entrant.name
