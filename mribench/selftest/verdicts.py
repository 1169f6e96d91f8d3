"""From the scores of growing doses to what a metric detects; and the self-test's table and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from mribench.metrics.score import Score
from mribench.metrics.statistics.intervals import difference
from mribench.selftest import planted
from mribench.selftest.record import (
    ControlResult,
    DoseScore,
    FreshVolumes,
    PlantedResult,
    SelfTest,
    Verdict,
)

_Ladder = Sequence[tuple[float, Mapping[str, Score]]]  # (dose, metric -> score), dose 0 first

_FEWEST_TO_JUDGE = 32

LEGEND = (
    "Smallest dose from which on the 95 % interval of the rank key's difference to dose 0 lies above 0, there and at "
    "every larger dose. ~: not monotone, a larger dose scored better than the next smaller one by more than the "
    "interval of their difference. –: not computed."
)


def cells(fault: str, ladder: _Ladder) -> list[DoseScore]:
    """One per dose and metric; numbers have six significant digits."""
    base = ladder[0][1]
    rows = []
    for dose, scores in ladder:
        for metric, score in scores.items():
            numbers = {"value": score.value, "low": score.low, "high": score.high}
            if metric in base:
                names = ("difference", "difference_low", "difference_high")
                numbers |= dict(zip(names, difference(score, base[metric]), strict=True))
            if score.p_value is not None:
                numbers["p_value"] = score.p_value
            short = {name: float(f"{number:.6g}") for name, number in numbers.items()}
            rows.append(DoseScore(degradation=fault, dose=dose, metric=metric, **short))
    return rows


def verdicts(fault: str, ladder: _Ladder) -> list[Verdict]:
    """Of every metric that has a score at every dose."""
    metrics = [name for name in ladder[0][1] if all(name in scores for _, scores in ladder)]
    return [
        Verdict(
            degradation=fault,
            metric=metric,
            notices_from=_notices_from([(dose, scores[metric]) for dose, scores in ladder]),
            monotone=_is_monotone([scores[metric] for _, scores in ladder]),
        )
        for metric in metrics
    ]


def _notices_from(ladder: Sequence[tuple[float, Score]]) -> float | None:
    """The smallest dose such that it and every larger dose are worse than dose 0, which comes first."""
    base, smallest = ladder[0][1], None
    for dose, score in reversed(ladder[1:]):
        if difference(score, base)[1] <= 0:
            break
        smallest = dose
    return smallest


def _is_monotone(scores: Sequence[Score]) -> bool:
    """No dose is better than the next smaller dose by more than the 95 % interval of their difference."""
    pairs = zip(scores[1:], scores[:-1], strict=True)
    return all(difference(larger, smaller)[2] >= 0 for larger, smaller in pairs)


def control_results(
    control: str, metrics: Iterable[str], base: Mapping[str, Score], scores: Mapping[str, Score]
) -> list[ControlResult]:
    """Whether each of the metrics, which declare to detect a control, separates it from dose 0, or misses it.

    Fewer than 32 samples with a difference in the right direction decide nothing: neither seen nor missed.
    """
    results = []
    for metric in metrics:
        if metric in base and metric in scores:
            delta, low, high = difference(scores[metric], base[metric])
            enough = scores[metric].n["samples"] >= _FEWEST_TO_JUDGE
            missed = low <= 0 and (enough or delta <= 0)
            results.append(
                ControlResult(
                    control=control,
                    metric=metric,
                    difference=delta,
                    low=low,
                    high=high,
                    seen=low > 0,
                    missed=missed,
                )
            )
    return results


def problems(
    controls: Iterable[ControlResult], failures: Iterable[str], planting: PlantedResult
) -> list[str]:
    """Everything that fails the self-test, one sentence each."""
    missed = [f"{result.metric} does not detect {result.control}" for result in controls if result.missed]
    return [f"not computed: {reason}" for reason in failures] + missed + planted.problems(planting)


def markdown(record: SelfTest) -> str:
    """The record as Markdown: what is noticed from which dose, planted copies, declared controls, problems."""
    shape = " x ".join(str(side) for side in record.cohort.shape)
    head = ", ".join(f"{count} {name}" for name, count in record.n.items())
    parts = [
        f"{record.cohort.source} volumes of {shape}: {head}; {record.extractor}; {record.seconds:.0f} s",
        _dose_table(record),
        LEGEND,
        _planted_table(record.planted),
        _fresh_line(record.planted.fresh),
        _controls_line(record.controls),
    ]
    if record.problems:
        parts.append("Problems:\n" + "\n".join(f"- {problem}" for problem in record.problems))
    return "\n\n".join(parts)


def _dose_table(record: SelfTest) -> str:
    by = {(verdict.degradation, verdict.metric): verdict for verdict in record.verdicts}
    rows = []
    for fault in record.degradations:
        single = len(fault.doses) == 1
        doses = "" if single else ": " + " ".join(f"{dose:g}" for dose in fault.doses)
        cells = [_verdict(by.get((fault.name, metric)), single) for metric in record.metrics]
        rows.append([f"{fault.title} ({fault.unit}{doses})", *cells])
    return _table(["fault (doses)", *(f"`{metric}`" for metric in record.metrics)], rows)


def _verdict(verdict: Verdict | None, single: bool) -> str:
    if verdict is None:
        return "–"
    dose = verdict.notices_from
    text = "not" if dose is None else "yes" if single else f"{dose:g}"
    return text if verdict.monotone or single else f"{text} ~"


def _planted_table(result: PlantedResult) -> str:
    rows = [
        [
            row.kind,
            f"{row.found} of {row.planted}",
            "yes" if row.must_be_found else "no",
            f"{row.largest_ratio:.2g}",
        ]
        for row in result.kinds
    ]
    return _table(["planted copies", "found", "must be found", "largest ratio"], rows)


def _fresh_line(fresh: FreshVolumes) -> str:
    return (
        f"Fresh real volumes taken for copies: {fresh.taken_for_copies} of {fresh.volumes} "
        f"(smallest ratio {fresh.smallest_ratio:.2g}; a copy is below 0.5)."
    )


def _controls_line(controls: Sequence[ControlResult]) -> str:
    good = sum(result.seen for result in controls)
    undecided = [f"{c.metric} ({c.control})" for c in controls if not (c.seen or c.missed)]
    few = f" Too few volumes to decide: {', '.join(undecided)}." if undecided else ""
    return f"Declared controls separated from dose 0: {good} of {len(controls)}.{few}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def as_csv(record: SelfTest) -> str:
    """Every dose and metric as one line, with its verdict."""
    scores, results = (
        pd.DataFrame([row.model_dump() for row in rows]) for rows in (record.cells, record.verdicts)
    )
    text: str = scores.merge(results, on=["degradation", "metric"], how="left").to_csv(index=False)
    return text
