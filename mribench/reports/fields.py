"""What each column of the leaderboard's table shows of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from mribench.metrics.score import RealBaseline, Score
from mribench.reports.gates import remarks as gate_remarks
from mribench.reports.gates import verdict as gate_verdict
from mribench.reports.grid import ABSENT, Table, TableCell, TableColumn, TableRow, plain
from mribench.reports.records import Entrant
from mribench.reports.rows import (
    TABLE_1,
    BaselineCell,
    Leaderboard,
    Row,
    percent,
    significant,
    usual_scores,
)

_LETTERS = (
    "Letters: two models that share a letter in a column do not differ there (paired jackknife tests, family-wise "
    "error 5 % after Holm); a holds the best."
)
_CHANCE = (
    "P(first): the probability of having the smallest true excess, given the errors of all scores; models stand in "
    "this order. excess: distance from the real baseline, in standard deviations of the real baseline, in the family "
    "where it is largest; 0 = like real volumes of other subjects."
)
_BASELINE = (
    "real baseline: what real volumes of other subjects score at that number of volumes, hence what a perfect "
    "generator would get."
)


@dataclass(frozen=True)
class _Field:
    """A column, how the cell of a row is made, and what the real baseline has there."""

    column: TableColumn
    cell: Callable[[Row], TableCell]
    baseline: TableCell = field(default_factory=TableCell)


def make_table(board: Leaderboard) -> Table:
    """The cells of a leaderboard, its companion scores, its ranks and its costs."""
    usual = usual_scores([row.entrant for row in board.rows])
    fields = [*_scores(board, usual), *_companions(board, usual), *_ranks(board), *_gates(board), *_COSTS]
    letters = any(cell.group for row in board.rows for cell in row.cells)
    said = ((_LETTERS, letters), (_CHANCE, board.has_chances), (_BASELINE, bool(board.real_baseline)))
    return Table(
        columns=tuple(field.column for field in fields),
        headline=board.headline,
        warnings=board.warnings,
        ranked=_with_doors(board, fields, [row for row in board.contestants if row.place is not None]),
        unranked=_with_doors(board, fields, [row for row in board.contestants if row.place is None]),
        controls=tuple(_row(row, fields) for row in board.controls if row not in board.doors),
        baseline=(_baseline_row(board, fields),),
        caption=_caption(board),
        real_ms_ssim=board.real_ms_ssim,
        explanations=tuple(sentence for sentence, there in said if there),
        remarks=board.remarks,
        footnotes=board.footnotes,
    )


def _with_doors(board: Leaderboard, fields: Sequence[_Field], rows: Sequence[Row]) -> tuple[TableRow, ...]:
    """Rows, each adopted entrant's followed by that of real volumes that went the same way."""
    entries = []
    for row in rows:
        doors = [door for door in board.doors if door.entrant.door_of == row.entrant.name]
        entries += [_row(each, fields) for each in (row, *doors)]
    return tuple(entries)


def _caption(board: Leaderboard) -> str:
    real = f", {board.real_ms_ssim} %" if board.real_ms_ssim else ""
    return (
        f"Scores with 95 % intervals. gap = distance to the real (reference) set's own MS-SSIM{real}. Best in bold "
        "among comparable models that make whole volumes; * = not comparable; controls are never ranked."
    )


def _row(row: Row, fields: Iterable[_Field]) -> TableRow:
    entrant, slab = row.entrant, row.entrant.slab
    adopted = entrant.run is not None and entrant.run.adoption is not None
    about = []
    if entrant.kind == "folder":
        about.append("volumes from outside, brought onto this grid" if adopted else "volumes from outside")
    about += [f"axial slices {slab[0]} to {slab[1] - 1} only"] if slab else []
    about += [row.together] if row.together else []
    return TableRow(
        name=entrant.name,
        label=entrant.label,
        title=row.title,
        kind=entrant.kind,
        cells=tuple(field.cell(row) for field in fields),
        counts=counts(entrant),
        about=tuple(about),
        problems=entrant.problems,
        notes=tuple(_notes(row)),
        chances=row.chances,
        place=row.place,
        unranked=row.unranked,
        together=row.together,
    )


def _baseline_row(board: Leaderboard, fields: Iterable[_Field]) -> TableRow:
    """The real baseline, which `Table.of` leaves out where it has no value."""
    baselines = [cell.real_baseline for cell in board.real_baseline if cell.real_baseline]
    how = tuple(dict.fromkeys(baseline.how for baseline in baselines))
    volumes = "/".join(str(n) for n in sorted({baseline.n for baseline in baselines}))
    return TableRow(
        name="real baseline",
        label="Real volumes of other subjects",
        title="real baseline",
        kind="real_baseline",
        cells=tuple(field.baseline for field in fields),
        counts=f"{volumes} samples",
        about=(f"real baseline, same n: {'; '.join(how)}",) if how else (),
        notes=how,
    )


def counts(entrant: Entrant) -> str:
    """ "16 samples, 24 reference": volumes per set, over all scores."""
    sides: dict[str, set[int]] = {}
    for score in entrant.scores.values():
        for side, n in score.n.items():
            sides.setdefault(side, set()).add(n)
    return ", ".join(f"{'/'.join(str(n) for n in sorted(ns))} {plain(side)}" for side, ns in sides.items())


def _notes(row: Row) -> list[str]:
    """Problems of the row, then every cell's remarks with the titles of the columns they concern."""
    about: dict[str, list[str]] = {}
    for cell in row.cells:
        for remark in (*(f"not comparable: {why}" for why in cell.why_not), *cell.notes, cell.absent):
            if remark:
                about.setdefault(remark, []).append(cell.column.title)
    held_back = [f"not ranked: {row.unranked}"] if row.unranked else []
    return [
        *row.entrant.problems,
        *held_back,
        *gate_remarks(row.entrant),
        *(f"{', '.join(titles)}: {remark}" for remark, titles in about.items()),
    ]


def _scores(board: Leaderboard, usual: Mapping[str, Score]) -> Iterator[_Field]:
    baselines = {cell.column.key: cell for cell in board.real_baseline}
    for column in board.columns:
        score, baseline = usual.get(column.metric), baselines.get(column.key, BaselineCell(column))
        shown = TableColumn(
            "paper" if column.key in TABLE_1 else "score",
            column.title,
            aim=column.aim,
            metric=column.metric,
            family=column.family_title if column.family else "",
            gap=column.gap,
            target=None if score is None or score.target is None else score.target * column.scale,
            bounds=column.bounds,
        )
        values = TableCell(*baseline.texts, values=baseline.numbers or ())
        yield _Field(shown, partial(_score_cell, board, column.key), values)


def _score_cell(board: Leaderboard, key: str, row: Row) -> TableCell:
    cell = row.cell(key)
    shown = TableCell(*cell.texts, footnotes=tuple(board.numbers(cell.remarks)))
    if cell.score is None:
        return shown
    return replace(
        shown,
        values=cell.column.numbers(cell.score),
        sort_key=cell.score.rank_key,
        best=cell.best,
        letters=cell.group,
        starred=bool(cell.why_not),
        p_value=cell.score.p_value,
    )


def _companions(board: Leaderboard, usual: Mapping[str, Score]) -> Iterator[_Field]:
    """Scores that have no column of the leaderboard."""
    shown = {column.metric for column in board.columns}
    scores = {metric: score for row in board.rows for metric, score in row.entrant.scores.items()}
    for metric, score in scores.items():
        if metric not in shown:
            title = f"{score.title} ({score.unit})" if score.unit else score.title
            theirs = usual.get(metric)
            column = TableColumn("companion", title, metric=metric, target=theirs.target if theirs else None)
            baseline = _significant(theirs.real_baseline if theirs else None)
            yield _Field(column, partial(_companion_cell, metric, theirs), baseline)


def _companion_cell(metric: str, usual: Score | None, row: Row) -> TableCell:
    score = row.entrant.scores.get(metric)
    if score is None:
        return TableCell(ABSENT)
    alike = usual is not None and usual.version == score.version and row.whole and not row.entrant.doubts
    return replace(_significant(score), sort_key=score.rank_key, starred=not alike, p_value=score.p_value)


def _significant(score: Score | RealBaseline | None) -> TableCell:
    """Three significant digits of each number, in the metric's own unit."""
    if score is None:
        return TableCell(ABSENT)
    value, low, high = (significant(x) for x in (score.value, score.low, score.high))
    return TableCell(value, low, high, (score.value, score.low, score.high))


def _ranks(board: Leaderboard) -> Iterator[_Field]:
    if board.has_chances:
        yield _Field(TableColumn("chance", "P(first)", aim="higher"), partial(_chance_cell, board))
        yield _Field(TableColumn("excess", "excess", aim="0 = real"), _excess_cell)


def _chance_cell(board: Leaderboard, row: Row) -> TableCell:
    if row.place is None:
        return TableCell(ABSENT, footnotes=tuple(board.numbers([row.unranked])) if row.unranked else ())
    return TableCell(percent(row.chances[0]), values=(row.chances[0],), sort_key=row.place, best=row.best)


def _excess_cell(row: Row) -> TableCell:
    if row.excess is None:
        return TableCell(ABSENT)
    return TableCell(f"{significant(row.excess)} ({row.decisive})", values=(row.excess,), sort_key=row.excess)


def _gates(board: Leaderboard) -> Iterator[_Field]:
    if any(row.entrant.gates for row in board.rows):
        yield _Field(TableColumn("gates", "gates"), partial(_gates_cell, board))


def _gates_cell(board: Leaderboard, row: Row) -> TableCell:
    text = gate_verdict(row.entrant)
    return TableCell(
        text or ABSENT, sort_key=text or None, footnotes=tuple(board.numbers(gate_remarks(row.entrant)))
    )


def _cost(
    title: str,
    number: Callable[[Entrant], float | None],
    text: Callable[[float], str],
    unrounded_title: str = "",
) -> _Field:
    """What a model took to make; without a text for other kinds."""

    def cell(row: Row) -> TableCell:
        value, shown = number(row.entrant), row.entrant.kind == "model"
        if value is None:
            return TableCell(ABSENT if shown else "")
        return TableCell(text(value) if shown else "", values=(value,), sort_key=value)

    return _Field(TableColumn("cost", title, unrounded_title), cell)


def _device_cell(row: Row) -> TableCell:
    device = row.entrant.devices
    return TableCell(device or (ABSENT if row.entrant.kind == "model" else ""), sort_key=device or None)


def _duration(seconds: float) -> str:
    """ "0.42 s", "35 s", "12 min", "3.4 h", "2.1 d"."""
    for unit, size in (("s", 1.0), ("min", 60.0), ("h", 3600.0)):
        if seconds < 100 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 86400:.0f} d"


def _thousands(number: float) -> str:
    """12345678 -> "12,345,678"."""
    return f"{number:,}"


def _millions(number: float) -> str:
    """12345678 -> "12.3 M"; small numbers as they are."""
    return f"{significant(number / 1e6)} M" if number >= 100_000 else _thousands(number)


_COSTS = (
    _cost("parameters", lambda entrant: entrant.parameters, _millions),
    _cost("volumes seen", lambda entrant: entrant.seen, _thousands),
    _cost("training time", lambda entrant: entrant.training_seconds, _duration, "training seconds"),
    _cost("time per volume", lambda entrant: entrant.seconds_per_volume, _duration, "seconds per volume"),
    _Field(TableColumn("cost", "device"), _device_cell),
)
