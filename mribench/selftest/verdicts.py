"""From the scores of growing doses to what a metric notices; and the self-test's table and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mribench.metrics.score import Score
from mribench.metrics.statistics.intervals import difference
from mribench.selftest import planted

Ladder = Sequence[tuple[float, Mapping[str, Score]]]  # (dose, metric -> score), dose 0 first

FEWEST_TO_JUDGE = 32

LEGEND = (
    "Smallest dose from which on the 95 % interval of the loss difference to dose 0 lies above 0, there and at every "
    "larger dose. ~: not monotone, a larger dose scored better than the next smaller one by more than the interval "
    "of their difference. –: not computed."
)


def cells(fault: str, ladder: Ladder) -> list[dict[str, Any]]:
    """One row per dose and metric: value with interval, and the loss difference to dose 0 with its own."""
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
            rows.append({"degradation": fault, "dose": dose, "metric": metric, **short})
    return rows


def verdicts(fault: str, ladder: Ladder) -> list[dict[str, Any]]:
    """Per metric that has a score at every dose: from which dose it notices the fault (None: never), and whether
    its loss is monotone.
    """
    metrics = [name for name in ladder[0][1] if all(name in scores for _, scores in ladder)]
    return [
        {
            "degradation": fault,
            "metric": metric,
            "notices_from": notices_from([(dose, scores[metric]) for dose, scores in ladder]),
            "monotone": is_monotone([scores[metric] for _, scores in ladder]),
        }
        for metric in metrics
    ]


def notices_from(ladder: Sequence[tuple[float, Score]]) -> float | None:
    """The smallest dose such that it and every larger one are told from dose 0, which comes first."""
    base, found = ladder[0][1], None
    for dose, score in reversed(ladder[1:]):
        if difference(score, base)[1] <= 0:
            break
        found = dose
    return found


def is_monotone(scores: Sequence[Score]) -> bool:
    """No dose has a loss below that of the next smaller dose by more than the 95 % interval of their difference."""
    pairs = zip(scores[1:], scores[:-1], strict=True)
    return all(difference(larger, smaller)[2] >= 0 for larger, smaller in pairs)


def seen(
    control: str, metrics: Iterable[str], base: Mapping[str, Score], scores: Mapping[str, Score]
) -> list[dict[str, Any]]:
    """Whether each metric that declares to see a control tells it from dose 0, or misses it.

    Fewer than 32 samples that point the right way decide nothing: neither seen nor missed.
    """
    rows = []
    for metric in metrics:
        if metric in base and metric in scores:
            delta, low, high = difference(scores[metric], base[metric])
            enough = scores[metric].n["samples"] >= FEWEST_TO_JUDGE
            missed = low <= 0 and (enough or delta <= 0)
            numbers = {"difference": delta, "low": low, "high": high}
            rows.append({"control": control, "metric": metric, **numbers, "seen": low > 0, "missed": missed})
    return rows


def problems(record: Mapping[str, Any]) -> list[str]:
    """Everything that fails the self-test, one sentence each."""
    unseen = [f"{c['metric']} does not see {c['control']}" for c in record["controls"] if c["missed"]]
    failures = [f"not computed: {reason}" for reason in record["failures"]]
    return failures + unseen + planted.problems(record["planted"])


def markdown(record: Mapping[str, Any]) -> str:
    """The record as Markdown: what is noticed from which dose, planted copies, declared controls, problems."""
    n, shape = record["n"], " x ".join(str(side) for side in record["cohort"]["shape"])
    head = ", ".join(f"{count} {name}" for name, count in n.items())
    parts = [
        f"{record['cohort']['source']} volumes of {shape}: {head}; {record['extractor']}; "
        f"{record['seconds']:.0f} s",
        _dose_table(record),
        LEGEND,
        _planted_table(record["planted"]),
        _fresh_line(record["planted"]["fresh"]),
        _controls_line(record["controls"]),
    ]
    parts += (
        ["Problems:\n" + "\n".join(f"- {one}" for one in record["problems"])] if record["problems"] else []
    )
    return "\n\n".join(parts)


def _dose_table(record: Mapping[str, Any]) -> str:
    by = {(v["degradation"], v["metric"]): v for v in record["verdicts"]}
    rows = []
    for fault in record["degradations"]:
        doses = " ".join(f"{dose:g}" for dose in fault["doses"])
        what = f"{fault['title']} ({fault['unit']}{f': {doses}' if len(fault['doses']) > 1 else ''})"
        single = len(fault["doses"]) == 1
        rows.append(
            [what, *(_verdict(by.get((fault["name"], metric)), single) for metric in record["metrics"])]
        )
    return _table(["fault (doses)", *(f"`{metric}`" for metric in record["metrics"])], rows)


def _verdict(verdict: Mapping[str, Any] | None, single: bool) -> str:
    if verdict is None:
        return "–"
    dose = verdict["notices_from"]
    said = "not" if dose is None else "yes" if single else f"{dose:g}"
    return said if verdict["monotone"] or single else f"{said} ~"


def _planted_table(result: Mapping[str, Any]) -> str:
    rows = [
        [
            row["kind"],
            f"{row['found']} of {row['planted']}",
            "yes" if row["must_be_found"] else "no",
            f"{row['largest_ratio']:.2g}",
        ]
        for row in result["kinds"]
    ]
    return _table(["planted copies", "found", "must be found", "largest ratio"], rows)


def _fresh_line(fresh: Mapping[str, Any]) -> str:
    return (
        f"Fresh real volumes taken for copies: {fresh['taken_for_copies']} of {fresh['volumes']} "
        f"(smallest ratio {fresh['smallest_ratio']:.2g}; a copy is below 0.5)."
    )


def _controls_line(controls: Sequence[Mapping[str, Any]]) -> str:
    good = sum(one["seen"] for one in controls)
    open_ = [f"{c['metric']} ({c['control']})" for c in controls if not (c["seen"] or c["missed"])]
    few = f" Too few volumes to tell: {', '.join(open_)}." if open_ else ""
    return f"Declared controls told from dose 0: {good} of {len(controls)}.{few}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def as_csv(record: Mapping[str, Any]) -> str:
    """Every dose and metric as one line, with its verdict."""
    table = pd.DataFrame(record["cells"])
    table = table.merge(pd.DataFrame(record["verdicts"]), on=["degradation", "metric"], how="left")
    text: str = table.to_csv(index=False)
    return text
