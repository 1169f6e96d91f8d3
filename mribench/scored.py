"""The result of an evaluation: scores, what is missing, regions and gates; as a table, JSON, HTML or figure."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mribench.bench.records import ScoresRecord
from mribench.metrics.gates.result import GateResult
from mribench.metrics.regions import RegionRow
from mribench.metrics.score import Missing, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_VALUE, _BASELINE, _TARGET = "#1f5fa8", "#cfe6d3", "#2a7f3f"
_ROW_INCHES, _WIDTH_INCHES = 0.62, 6.4


@dataclass(frozen=True)
class Evaluation:
    """The scores of one set of samples, the metrics that have none, rows per region of anatomy, and the gates."""

    scores: list[Score]
    missing: list[Missing]
    regions: tuple[RegionRow, ...] = ()
    gates: tuple[GateResult, ...] = ()
    name: str = "samples"

    @property
    def failures(self) -> list[str]:
        """What failed, apart from metrics that these sets cannot have; everything when there is no score at all."""
        return [f"{m.metric}: {m.reason}" for m in self.missing if not m.by_design or not self.scores]

    def score(self, metric: str) -> Score:
        """The score of a metric; raises KeyError when it has none."""
        return {score.metric: score for score in self.scores}[metric]

    def to_frame(self) -> pd.DataFrame:
        """A row per metric: value with its 95 % interval, real baseline, p, numbers of volumes, signature.

        Metrics without a score come last, with the reason in `notes`.
        """
        rows = [_row(score) for score in self.scores]
        rows += [{"metric": absent.metric, "notes": absent.reason} for absent in self.missing]
        return pd.DataFrame(rows, columns=_COLUMNS).set_index("metric")

    def record(self) -> ScoresRecord:
        """Everything, as a scores.json holds it."""
        return ScoresRecord(
            entrant=self.name,
            scores=tuple(self.scores),
            missing=tuple(self.missing),
            regions=self.regions,
            gates=self.gates,
        )

    def to_json(self) -> str:
        """Everything, as a scores.json without its digest: `mribench.Evaluation.from_json` reads it."""
        return json.dumps(self.record().as_json(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """What `to_json` or a scores.json says; raises MribenchError for anything else."""
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        return cls.of(ScoresRecord.from_json(value, "The text"))

    @classmethod
    def of(cls, record: ScoresRecord) -> Evaluation:
        """What a scores.json says."""
        return cls(list(record.scores), list(record.missing), record.regions, record.gates, record.entrant)

    def _repr_html_(self) -> str:
        """What a notebook shows: the scores, then what failed a gate and what has no score."""
        lines = [f"Gate {gate.gate} failed: {gate.reason}" for gate in self.gates if gate.passed is False]
        lines += [f"No {absent.metric}: {absent.reason}" for absent in self.missing]
        shown = pd.DataFrame([_shown(score) for score in self.scores])
        table = shown.to_html(index=False, border=0) if self.scores else ""
        return table + "".join(f"<p>{html.escape(line)}</p>" for line in lines)

    def figure(self) -> Figure:
        """A matplotlib figure: each score with its 95 % interval, on the interval of the real baseline."""
        from matplotlib.figure import Figure

        count = max(1, len(self.scores))
        figure = Figure(figsize=(_WIDTH_INCHES, 0.3 + _ROW_INCHES * count), layout="constrained")
        for axes, score in zip(figure.subplots(count, 1, squeeze=False)[:, 0], self.scores, strict=False):
            _draw(axes, score)
        return figure


_COLUMNS = [
    "metric", "title", "value", "low", "high", "better", "target", "ranked", "p_value", "real_baseline",
    "real_baseline_low", "real_baseline_high", "unit", "n", "version", "signature", "notes",
]  # fmt: skip


def _row(score: Score) -> dict[str, object]:
    baseline = score.real_baseline
    row: dict[str, object] = score.model_dump(include=set(_COLUMNS) - {"real_baseline", "n", "notes"})
    row |= {"n": " ".join(f"{side}={n}" for side, n in score.n.items()), "notes": "; ".join(score.notes)}
    if baseline:
        row |= {
            "real_baseline": baseline.value,
            "real_baseline_low": baseline.low,
            "real_baseline_high": baseline.high,
        }
    return row


def _shown(score: Score) -> dict[str, str]:
    baseline, aim, target = score.real_baseline, score.display.aim or score.better, f"{score.target or 0:.4g}"
    return {
        "Metric": f"{score.title} ({score.unit})" if score.unit else score.title,
        "Value": f"{score.value:.4g}",
        "95 % interval": f"[{score.low:.4g}, {score.high:.4g}]",
        "Better": aim if score.target is None or target in aim else f"{aim} ({target})",
        "Real baseline": f"{baseline.value:.4g} [{baseline.low:.4g}, {baseline.high:.4g}]"
        if baseline
        else "",
        "Volumes": ", ".join(f"{n} {side}" for side, n in score.n.items()),
    }


def _draw(axes: Axes, score: Score) -> None:
    baseline = score.real_baseline
    if baseline:
        axes.axvspan(baseline.low, baseline.high, color=_BASELINE, linewidth=0)
        axes.axvline(baseline.value, color=_TARGET, linewidth=1, linestyle="--")
    if score.target is not None:
        axes.axvline(score.target, color=_TARGET, linewidth=1.2)
    axes.plot((score.low, score.high), (0, 0), color=_VALUE, linewidth=1.8, solid_capstyle="butt")
    axes.plot(score.value, 0, "o", color=_VALUE, markersize=5)
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_title(score.title, fontsize=8.5, loc="left").set_parse_math(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
