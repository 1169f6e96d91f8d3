"""Scores -> leaderboard: what `mribench report` writes and `mribench evaluate` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mribench.bench.controls import CONTROLS
from mribench.bench.folder import Bench
from mribench.bench.protocol import Protocol
from mribench.data.cohort import Cohort
from mribench.files import write_text
from mribench.metrics.gates.result import GateResult
from mribench.metrics.score import Missing, Score
from mribench.metrics.scoring import OVERLAP
from mribench.metrics.statistics.jackknife import jackknife_groups
from mribench.reports import terminal
from mribench.reports.csv_tables import as_csv, as_scores_csv
from mribench.reports.fields import make_table
from mribench.reports.gates import equal_samples, real_samples, without_gates
from mribench.reports.gates import remarks as gate_remarks
from mribench.reports.latex import as_tex
from mribench.reports.markdown import as_markdown
from mribench.reports.page import words
from mribench.reports.ranking import hold_back, mark_best, rank
from mribench.reports.records import Entrant, read_cohort, read_entrants
from mribench.reports.rows import (
    Leaderboard,
    Row,
    baseline_cells,
    columns_of,
    fixed,
    make_cells,
    usual_scores,
)

__all__ = ["FILES", "Entrant", "Leaderboard", "as_text", "build", "from_bench", "from_scores", "write_tables"]

FILES = ("table.csv", "scores.csv", "table.tex", "table.md")  # beside the page


def build(bench: Bench) -> Leaderboard:
    """The leaderboard of a bench, from the files of its runs alone."""
    cohort, _ = read_cohort(bench)
    return from_bench(bench, cohort, read_entrants(bench, cohort))


def from_bench(bench: Bench, cohort: Cohort | None, entrants: Sequence[Entrant]) -> Leaderboard:
    """As `build`, from entrants already read."""
    spec = bench.protocol.cohort
    reference = len(cohort.set("reference")) if cohort else spec.reference
    expected = {"samples": bench.protocol.evaluation.samples, "reference": reference}
    absent = _absent_controls(bench.protocol, entrants)
    return from_scores(entrants, expected, absent, real_samples(entrants, cohort))


def from_scores(
    entrants: Sequence[Entrant],
    expected: Mapping[str, int] | None = None,
    remarks: Iterable[str] = (),
    held_back: Mapping[str, str] | None = None,
) -> Leaderboard:
    """The leaderboard of entrants given as scores.

    `expected` is the number of volumes per set that a comparable score has; without it, that of the scores
    under the usual definition. `held_back` maps names of entrants to the reason why they are not ranked.
    """
    entrants = [_without_torn_scores(entrant) for entrant in entrants]
    usual = usual_scores(entrants)
    expected = _usual_counts(usual) if expected is None else expected
    columns = columns_of(usual, {metric for entrant in entrants for metric in entrant.missing})
    rows = [Row(entrant, make_cells(entrant, columns, expected, usual)) for entrant in entrants]
    contestants = [row for row in rows if row.entrant.kind != "control"]
    controls = sorted((row for row in rows if row.entrant.kind == "control"), key=_control_order)
    judged = hold_back(contestants, held_back or {})
    result = rank(mark_best(judged), controls)
    headline = result.headline or _too_few(contestants)
    said = [*result.remarks, *without_gates(entrants), *remarks]
    board = Leaderboard(
        tuple(result.rows),
        tuple(controls),
        _real(usual),
        tuple(said),
        columns,
        baseline_cells(columns, usual),
        headline=headline,
        warnings=(
            *equal_samples(entrants),
            *(row.notice for row in judged if row.held_back),
            *(row.notice for row in result.rows if row.behind),
            *_started(judged),
        ),
    )
    met = [remark for row in board.rows for remark in (*_cell_remarks(row), *gate_remarks(row.entrant))]
    met += [row.unranked for row in board.rows if row.unranked]
    return replace(board, footnotes=tuple(dict.fromkeys(met)))


def _cell_remarks(row: Row) -> list[str]:
    return [remark for cell in row.cells for remark in cell.remarks]


def _started(rows: Sequence[Row]) -> list[str]:
    """Which trainings did not begin with random weights."""
    names = [row.title for row in rows if row.entrant.run and row.entrant.run.start]
    if not names:
        return []
    return [
        f"Trained on from weights that had seen other volumes before (see the cards): {', '.join(names)}."
    ]


def from_set(
    name: str, scores: Iterable[Score], missing: Iterable[Missing], gates: Iterable[GateResult] = ()
) -> Leaderboard:
    """The leaderboard of one set of samples that belongs to no bench."""
    entrant = Entrant(
        name=name,
        scores={score.metric: score for score in scores},
        missing={absent.metric: absent.reason for absent in missing},
        gates=tuple(gates),
    )
    notes = dict.fromkeys(note for score in entrant.scores.values() for note in score.notes)
    overlap = "; ".join(note for note in notes if note.endswith(OVERLAP))
    return from_scores([entrant], held_back={name: overlap} if overlap else None)


def as_text(board: Leaderboard, wide: bool = False) -> str:
    """What `mribench evaluate` prints: at most 80 columns, or every column of the table."""
    return terminal.as_text(make_table(board), wide)


def write_tables(board: Leaderboard, folder: Path) -> None:
    """Write the four `FILES`."""
    table = make_table(board)
    texts = (as_csv(table), as_scores_csv(board), as_tex(table), as_markdown(table))
    for name, text in zip(FILES, texts, strict=True):
        write_text(folder / name, text)


def _without_torn_scores(entrant: Entrant) -> Entrant:
    """A score lacking replicates has no interval and cannot be compared: it counts as damaged."""
    torn = {
        metric: f"The score in scores.json is damaged: its jackknife replicates over {', '.join(sides)} are "
        f"incomplete. Run: mribench evaluate {entrant.name} --overwrite"
        for metric, score in entrant.scores.items()
        if (sides := [side for side in score.replicates if not _replicates_fit(score, side)])
    }
    whole = {metric: score for metric, score in entrant.scores.items() if metric not in torn}
    return replace(entrant, scores=whole, missing={**entrant.missing, **torn}) if torn else entrant


def _replicates_fit(score: Score, side: str) -> bool:
    count = score.n.get(side, 0)
    return count > 1 and len(score.replicates[side]) == len(jackknife_groups(count))


def _usual_counts(usual: Mapping[str, Score]) -> dict[str, int]:
    score = usual.get("ms_ssim") or next(iter(usual.values()), None)
    return {side: n for side, n in score.n.items() if side in ("samples", "reference")} if score else {}


def _real(usual: Mapping[str, Score]) -> str:
    score = usual.get("ms_ssim")
    return fixed(100 * score.target, 2) if score and score.target is not None else ""


def _too_few(contestants: Sequence[Row]) -> str:
    """Why nothing is ranked; "" without any contestant."""
    if not contestants:
        return ""
    return words.ONE_MODEL if sum(bool(row.entrant.scores) for row in contestants) < 2 else words.NO_RANKS


def _control_order(row: Row) -> tuple[int, str]:
    names = list(CONTROLS)
    name = row.entrant.name
    return (names.index(name) if name in names else len(names)), name


def _absent_controls(protocol: Protocol, entrants: Sequence[Entrant]) -> list[str]:
    there = {entrant.name for entrant in entrants}
    absent = [control for control in CONTROLS.values() if control.name not in there]
    impossible = [c.name for c in absent if c.draws_on == "holdout" and protocol.cohort.holdout == 0]
    other = [c.name for c in absent if c.name not in impossible]
    why = f"No {' and '.join(impossible)}: protocol {protocol.name} has no held-out volumes."
    remedy = f"Controls not made yet: {', '.join(other)}. Run: mribench generate --all"
    return [*([why] if impossible else []), *([remedy] if other else [])]
