"""The leaderboard as data: one row an entrant, one cell a column, and which cells may be compared."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mribench.metrics import METRIC_REGISTRY, METRICS, get_metric
from mribench.metrics.metric import Metric, SlabRule
from mribench.metrics.score import Display, RealBaseline, Score
from mribench.reports.records import Entrant


@dataclass(frozen=True)
class Column:
    """One column of the table. `family` is its ranking family, "" for a companion that is never ranked."""

    key: str
    title: str
    metric: str
    aim: str
    family: str = ""
    scale: float = 1.0
    digits: int | None = None  # decimals; None = three significant digits
    bounds: tuple[float, float] = (-math.inf, math.inf)  # of the quantity itself, in table units
    gap: bool = False  # shows the distance from the target instead of the value
    family_title: str = ""
    in_slab: SlabRule = "not compared"

    def numbers(self, score: Score) -> tuple[float, float, float]:
        """Value and 95 % interval in table units; an interval is cut where the quantity itself ends."""
        if self.gap:
            value, low, high = abs(score.gap), *_fold(*score.gap_interval)
        else:
            value, low, high = score.value, score.low, score.high
        return self._in_units(value, low, high)

    def baseline_numbers(
        self, real_baseline: RealBaseline, target: float | None
    ) -> tuple[float, float, float]:
        """As `numbers`, of a real baseline; that of the gap: distance from the target, whose own error is left out."""
        value, low, high = real_baseline.value, real_baseline.low, real_baseline.high
        if self.gap:
            shift = target or 0.0
            value, low, high = abs(value - shift), *_fold(low - shift, high - shift)
        return self._in_units(value, low, high)

    def _in_units(self, value: float, low: float, high: float) -> tuple[float, float, float]:
        low, high = max(low * self.scale, self.bounds[0]), min(high * self.scale, self.bounds[1])
        return value * self.scale, low, high

    def texts(self, numbers: tuple[float, float, float]) -> tuple[str, str, str]:
        """Value, low and high with the same number of decimals."""
        value, low, high = numbers
        digits = self.digits if self.digits is not None else decimals(value, (high - low) / 2)
        return fixed(value, digits), fixed(low, digits), fixed(high, digits)


# Keys of the columns of Peng et al. 2023.
TABLE_1 = ("ms_ssim", "gap", "mmd", "fid_a_central", "fid_c_central", "fid_s_central")


def columns_of(scores: Mapping[str, Score], missing: Iterable[str] = ()) -> tuple[Column, ...]:
    """The columns of a table with these scores: of mribench's own metrics that are ranked or have a heading, and of
    every plug-in's metric.

    Those of plug-ins come last, as their scores say, whether or not they are installed; one that has no score at all
    has a column of dashes when it is among the `missing` metrics.
    """
    columns: list[Column] = []
    for name in METRICS:
        metric = get_metric(name)
        shown = metric.ranked or metric.display.heading
        if shown and (not metric.opt_in or name in scores):
            columns += _columns(name, metric, metric.in_slab)
    for name in sorted({*scores, *missing} - METRICS.keys()):
        taken = {title.casefold() for column in columns for title in (column.key, column.title)}
        columns += _distinct(_plugin_columns(name, scores.get(name)), taken)
    return tuple(columns)


def _plugin_columns(name: str, score: Score | None) -> list[Column]:
    if score is None:
        return [Column(key=name, title=name, metric=name, aim="")]
    in_slab: SlabRule = "not compared"
    if not METRIC_REGISTRY.why_unusable(name):
        in_slab = get_metric(name).in_slab
    return _columns(name, score, in_slab)


def _distinct(columns: Iterable[Column], taken: Container[str]) -> Iterator[Column]:
    """A plug-in must not pass for another metric: a key or title that is taken gets the metric's name added."""
    for column in columns:
        key, title = (
            text if text.casefold() not in taken else f"{text} ({column.metric})"
            for text in (column.key, column.title)
        )
        yield replace(column, key=key, title=title)


def _columns(name: str, facts: Metric[Any] | Score, in_slab: SlabRule) -> list[Column]:
    """One for the value, and perhaps a second one for the gap."""
    display = facts.display
    family = facts.family if facts.ranked else ""
    value = Column(
        key=name,
        title=display.heading or facts.title,
        metric=name,
        aim=display.aim or facts.better,
        family=family,
        scale=display.scale,
        digits=display.digits,
        bounds=_bounds(display),
        family_title=display.family or facts.title,
        in_slab=in_slab,
    )
    gap = replace(value, key=display.gap, title=display.gap, aim="lower", gap=True)
    return [value, gap] if display.gap else [value]


def _bounds(display: Display) -> tuple[float, float]:
    low, high = display.bounds
    return -math.inf if low is None else low, math.inf if high is None else high


@dataclass(frozen=True)
class Cell:
    """One value with its interval, in table units.

    `why_not` says why it cannot be compared with the others (an asterisk), `notes` what else to know,
    `absent` why there is no value. `group` holds the letters of its tie groups ("" = not compared): two
    cells of a column share a letter unless they differ after Holm's correction.
    """

    column: Column
    score: Score | None = None
    absent: str = ""
    why_not: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    best: bool = False
    group: str = ""

    @property
    def comparable(self) -> bool:
        return self.score is not None and not self.why_not

    @property
    def ranked(self) -> bool:
        """Whether its score may count in a rank and be the best."""
        return self.comparable and self.score is not None and self.score.ranked

    @property
    def remarks(self) -> tuple[str, ...]:
        """Everything that a footnote says about this cell."""
        return (*self.why_not, *self.notes, *([self.absent] if self.absent else []))

    @property
    def text(self) -> str:
        """The value, or a dash."""
        return self.texts[0]

    @property
    def texts(self) -> tuple[str, str, str]:
        """Value, low and high with the same number of decimals."""
        if self.score is None:
            return "–", "", ""
        return self.column.texts(self.column.numbers(self.score))


@dataclass(frozen=True)
class Row:
    """One entrant. `place` and `excess` are None where it is not ranked, with `unranked` saying why.

    `behind`: why it is placed behind all entrants that pass a gate which it fails; "" where there are none.
    `excess` is the headline, and `decisive` the title of the family that it comes from.
    `chances`: the probabilities that it is the best, the second best, ... of those ranked. Several trainings of one
    model share all of these, and `together` says so.
    """

    entrant: Entrant
    cells: tuple[Cell, ...]
    place: int | None = None
    excess: float | None = None
    decisive: str = ""
    chances: tuple[float, ...] = ()
    best: bool = False
    together: str = ""
    unranked: str = ""
    behind: str = ""
    held_back: bool = False  # by a gate, or as real volumes; then `unranked` says so

    def cell(self, key: str) -> Cell:
        return next(cell for cell in self.cells if cell.column.key == key)

    @property
    def whole(self) -> bool:
        """Whether it makes whole volumes."""
        return self.entrant.slab is None

    @property
    def notice(self) -> str:
        """The sentence that says why it is held back or placed behind others; "" where it is neither."""
        if self.held_back:
            return f"Not ranked: {self.title}. {self.unranked}"
        return f"Placed behind the others: {self.title}. {self.behind}" if self.behind else ""

    @property
    def title(self) -> str:
        """The paper's name, followed by the run's where that says more."""
        entrant = self.entrant
        model = entrant.run.model if entrant.run else None
        plain_run = entrant.name in (model, entrant.label)
        if plain_run and entrant.kind != "control":
            return entrant.label
        return f"{entrant.label} ({entrant.name})"


@dataclass(frozen=True)
class BaselineCell:
    """What real volumes of other subjects score in one column; without a real baseline, empty texts."""

    column: Column
    real_baseline: RealBaseline | None = None
    target: float | None = None

    @property
    def numbers(self) -> tuple[float, float, float] | None:
        """Value and 95 % interval in table units."""
        return self.column.baseline_numbers(self.real_baseline, self.target) if self.real_baseline else None

    @property
    def texts(self) -> tuple[str, str, str]:
        return self.column.texts(self.numbers) if self.numbers else ("–", "", "")


@dataclass(frozen=True)
class Leaderboard:
    """Contestants (the ranked ones first), controls and, if any score has one, the real baseline of each column.

    `headline` is the result in one sentence, `warnings` are what a reader must know before it. `footnotes` are in
    the order in which the table meets them.
    """

    contestants: tuple[Row, ...]
    controls: tuple[Row, ...]
    real_ms_ssim: str
    remarks: tuple[str, ...]
    columns: tuple[Column, ...]
    real_baseline: tuple[BaselineCell, ...] = ()
    footnotes: tuple[str, ...] = field(default=())
    headline: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.contestants + self.controls

    @property
    def doors(self) -> tuple[Row, ...]:
        """The controls that belong to a contestant of this table: real volumes that went the way of its samples."""
        names = {row.entrant.name for row in self.contestants}
        return tuple(row for row in self.controls if row.entrant.door_of in names)

    @property
    def has_chances(self) -> bool:
        return any(row.chances for row in self.contestants)

    def numbers(self, remarks: Iterable[str]) -> list[int]:
        """Numbers of the footnotes that hold these remarks."""
        return sorted({self.footnotes.index(remark) + 1 for remark in remarks})


def make_cells(
    entrant: Entrant,
    columns: Sequence[Column],
    expected: Mapping[str, int],
    usual: Mapping[str, Score],
) -> tuple[Cell, ...]:
    """Cells of one entrant; `expected` counts of volumes, `usual` scores as usually defined."""
    return tuple(_cell(entrant, column, expected, usual.get(column.metric)) for column in columns)


def _cell(entrant: Entrant, column: Column, expected: Mapping[str, int], usual: Score | None) -> Cell:
    score = entrant.scores.get(column.metric)
    if score is None:
        # An entrant without any score has its problem written under its name, not at every dash.
        unexplained = "" if entrant.problems else "not computed"
        return Cell(column, absent=entrant.missing.get(column.metric, unexplained))
    why_not = list(entrant.doubts)
    notes = list(score.notes)
    if entrant.slab and column.in_slab != "compared":
        start, stop = entrant.slab
        why_not += notes or [f"axial slices {start} to {stop - 1} only, against real volumes cropped alike"]
        notes = []
    why_not += _other_counts(score, expected)
    if usual is not None and score.version != usual.version and not entrant.slab:
        why_not.append(other_definition(score, usual))
    return Cell(column, score, why_not=tuple(why_not), notes=tuple(notes))


def _other_counts(score: Score, expected: Mapping[str, int]) -> list[str]:
    return [
        f"{score.n[side]} {side}{'' if side == 'samples' else ' volumes'} instead of {count}"
        for side, count in expected.items()
        if side in score.n and score.n[side] != count
    ]


def other_definition(score: Score, usual: Score) -> str:
    """ "defined otherwise than the rest: extractor:a instead of b", from the two signatures."""
    own, other = (dict(part.partition(":")[::2] for part in s.signature.split("|")) for s in (score, usual))
    changed = [
        f"{key} {own.get(key, 'absent')} instead of {other.get(key, 'absent')}"
        for key in sorted(own.keys() | other.keys())
        if key != "n" and own.get(key) != other.get(key)
    ]
    return f"{score.title} is defined otherwise than for most entrants: {'; '.join(changed) or score.version}"


def baseline_cells(columns: Sequence[Column], usual: Mapping[str, Score]) -> tuple[BaselineCell, ...]:
    """The real baselines of the usual scores, one a column; () when no score has any."""
    scores = [usual.get(column.metric) for column in columns]
    if not any(score and score.real_baseline for score in scores):
        return ()
    return tuple(
        BaselineCell(column, score.real_baseline, score.target) if score else BaselineCell(column)
        for column, score in zip(columns, scores, strict=True)
    )


def usual_scores(entrants: Sequence[Entrant]) -> dict[str, Score]:
    """Per metric a score under the definition that most whole-volume entrants share; the first wins a tie."""
    whole: dict[str, list[Score]] = {}
    for entrant in entrants:
        for metric, score in entrant.scores.items():
            if entrant.slab is None and not entrant.doubts:
                whole.setdefault(metric, []).append(score)
    return {metric: _majority(scores) for metric, scores in whole.items()}


def _majority(scores: Sequence[Score]) -> Score:
    versions = [score.version for score in scores]
    return max(scores, key=lambda score: versions.count(score.version))


def decimals(value: float, half_width: float) -> int:
    """Decimals that show three significant digits of the larger of a value and its uncertainty."""
    size = max(abs(value), abs(half_width))
    return 2 if size == 0 or not math.isfinite(size) else min(6, max(0, 2 - math.floor(math.log10(size))))


def fixed(value: float, digits: int) -> str:
    """Fixed-point text without a negative zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def percent(probability: float) -> str:
    """ "61 %", "< 1 %", "> 99 %"; certainty only where every draw agreed."""
    if 0 < probability < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < probability < 1 else f"{probability:.0%}".replace("%", " %")


def significant(value: float) -> str:
    """Three significant digits; small values with an exponent."""
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else fixed(value, decimals(value, 0))


def _fold(low: float, high: float) -> tuple[float, float]:
    """The interval of |x| when x lies in [low, high]."""
    if low <= 0 <= high:
        return 0.0, max(-low, high)
    return min(abs(low), abs(high)), max(abs(low), abs(high))
