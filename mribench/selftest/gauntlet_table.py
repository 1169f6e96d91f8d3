"""The record of the gauntlet as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mribench.metrics import get_metric
from mribench.reports.rows import fixed, percent, significant
from mribench.selftest.gauntlet import AdversaryResult, EntrantResult, GauntletRecord, problems

LEGEND = (
    "Each adversary stands alone beside the honest entrants. Held back: not ranked, or ranked below every honest one. "
    "Bold scores are worse than those of every honest entrant."
)


def markdown(record: GauntletRecord) -> str:
    """What was compared, the table, its legend and what does not hold."""
    head = ", ".join(f"{count} {name}" for name, count in record.n.items())
    shape = " x ".join(map(str, record.shape))
    parts = [
        f"{record.source} volumes of {shape}: {head}; {record.extractor}; {record.seconds:.0f} s",
        table(record),
        LEGEND,
    ]
    if record.not_possible:
        parts.append(f"Not possible for this cohort: {', '.join(record.not_possible)}.")
    if sentences := problems(record):
        parts.append("\n".join(["Problems:", *(f"- {sentence}" for sentence in sentences)]))
    return "\n\n".join(parts)


def table(record: GauntletRecord) -> str:
    """One line an entrant, the honest ones first, with the columns of the report's table."""
    columns = [name for name in record.metrics if get_metric(name).ranked or get_metric(name).display.heading]
    head = ["entrant", "kind", "dose", "place", "P(first)", "held back", *map(_heading, columns)]
    rows = [
        [*_facts(result), *_verdict(result), *(_cell(result, metric) for metric in columns)]
        for result in (*record.honest, *record.adversaries)
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _heading(metric: str) -> str:
    display, title = get_metric(metric).display, get_metric(metric).title
    return (display.family or title) if display.gap else (display.heading or title)


def _facts(result: EntrantResult) -> Sequence[str]:
    return result.title, result.kind, result.dose


def _verdict(result: EntrantResult) -> Sequence[str]:
    """Place, probability of the first place, and whether it is held back."""
    if not isinstance(result, AdversaryResult):
        return "", "", ""
    place = "not ranked" if result.place is None else f"{result.place} of {result.ranked}"
    first = "" if result.first is None else percent(result.first)
    if result.kind == "perfect":
        return place, first, ""
    return place, first, "yes" if result.passed else "**no**" if result.required else "no (not required)"


def _cell(result: EntrantResult, metric: str) -> str:
    score = result.scores.get(metric)
    if score is None:
        return "–"
    display = get_metric(metric).display
    value = abs(score.value - (score.target or 0.0)) if display.gap else score.value
    number = round(value * display.scale, 9)  # without what rounding leaves of 0
    text = significant(number) if display.digits is None else fixed(number, display.digits)
    return f"**{text}**" if score.excess is not None and score.excess > 0 else text
