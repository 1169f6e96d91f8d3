"""Pages of bundles: a comparison of several, and a site of leaderboards. Files without scripts or requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from mribench.bench.bundles import REFERENCE, VIEWS, Bundle
from mribench.files import digest_json, write_sums, write_text
from mribench.reports.comparison import Comparison, Group
from mribench.reports.fields import counts, make_table
from mribench.reports.gates import verdict
from mribench.reports.grid import Table
from mribench.reports.joint import Joined, check_contradictions, joined, joint_board
from mribench.reports.page import templating, words
from mribench.reports.page.figures import Picture, image_uri
from mribench.reports.rows import Leaderboard, significant

_SHORT = 12
_Facts = list[tuple[str, str]]


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the page of a comparison."""
    labels = " and ".join(source.label for source in comparison.sources)
    pairs = groupby(comparison.tests, key=lambda test: (test.metric, test.title))
    page = templating.page(
        "comparison.html.j2",
        title=f"Comparison of {labels}",
        style=_style(comparison.sources),
        words=words,
        warnings=_warnings(comparison.sources),
        verdict=_verdict(comparison),
        comparison=comparison,
        groups=_lines(comparison.groups),
        two=len(comparison.sources) == 2,
        boards=[(digest, _table(board)) for digest, board in comparison.boards],
        tests=[(metric, title, list(lines)) for (metric, title), lines in pairs],
    )
    write_text(path, page)


_Line = tuple[
    tuple[str, ...], list[str], list[tuple[str, list[str]]]
]  # entrants, metrics, reasons with metrics


def _lines(groups: Sequence[Group]) -> list[_Line]:
    """The groups of all metrics, those of the same entrants together; larger ones first."""
    lines: dict[tuple[str, ...], tuple[list[str], dict[str, list[str]]]] = {}
    for group in groups:
        metrics, reasons = lines.setdefault(tuple(sorted(group.entrants)), ([], {}))
        metrics.append(group.title)
        if group.why_apart:
            reasons.setdefault(group.why_apart, []).append(group.title)
    ordered = sorted(lines.items(), key=lambda item: -len(item[0]))
    return [(entrants, metrics, list(reasons.items())) for entrants, (metrics, reasons) in ordered]


def _style(bundles: Sequence[Bundle]) -> templating.Markup:
    return templating.style_sheet("travel.css.j2", bundles[0].record.cohort.grid)


def _warnings(bundles: Sequence[Bundle]) -> list[str]:
    records = [bundle.record for bundle in bundles]
    warnings = [words.SIMULATED] if any(r.cohort.source == "simulated" for r in records) else []
    copying = any(r.protocol.cohort.reference_from_train for r in records)
    return [*warnings, *([words.REWARDS_COPYING] if copying else [])]


def _verdict(comparison: Comparison) -> str:
    metrics = len({group.metric for group in comparison.groups})
    tested = {test.metric for test in comparison.tests}
    differ = sum(test.p_holm < 0.05 for test in comparison.tests)
    if not tested:
        return f"Of {metrics} metrics, none is comparable between models of different sources."
    return (
        f"{len(tested)} of {metrics} metrics are comparable between models of different sources; "
        f"{differ} of {len(comparison.tests)} pairs differ at a family-wise error of 5 % in each metric."
    )


def _table(board: Leaderboard) -> Table:
    """The table, with what decides the places in the first columns."""
    return make_table(board).in_order("chance", "excess", "gates", "paper", "score", "cost")


@dataclass(frozen=True)
class _Page:
    """One leaderboard of the site."""

    file: str
    protocol: str
    reference: str
    labels: tuple[str, ...]
    result: str


def write_site(bundles: Sequence[Bundle], folder: Path) -> Path:
    """Write index.html and, for several protocols or references, a page of each; returns the path of index.html.

    Raises MribenchError when bundles contradict each other.
    """
    check_contradictions(bundles)
    groups: dict[tuple[str, str], list[Bundle]] = {}
    for bundle in bundles:
        groups.setdefault((bundle.record.protocol_digest, bundle.reference_digest), []).append(bundle)
    several = len(groups) > 1
    pages = []
    for key, group in groups.items():
        protocol = group[0].record.protocol
        file = f"{protocol.name}-{digest_json(key)[:8]}.html" if several else "index.html"
        board = joint_board(group)
        write_text(folder / file, _board_page(group, board, several))
        count = group[0].record.cohort.sets["reference"].count
        reference = f"{count} volumes, {key[1][:_SHORT]}"
        labels = tuple(bundle.label for bundle in group)
        pages.append(_Page(file, f"{protocol.name} {protocol.version}", reference, labels, board.headline))
    if several:
        title, style = "Leaderboards of brain-MRI generators", _style(bundles)
        index = templating.page("shared_index.html.j2", title=title, style=style, words=words, pages=pages)
        write_text(folder / "index.html", index)
    write_sums(folder, sorted({"index.html", *(page.file for page in pages)}))
    return folder / "index.html"


def _board_page(bundles: Sequence[Bundle], board: Leaderboard, several: bool) -> str:
    order = {row.entrant.name: number for number, row in enumerate(board.rows)}
    together = sorted(joined(bundles), key=lambda each: order[each.entrant.name])
    protocol = bundles[0].record.protocol
    return templating.page(
        "shared_board.html.j2",
        title=f"Leaderboard: {protocol.name} {protocol.version}",
        style=_style(bundles),
        words=words,
        several=several,
        warnings=_warnings(bundles),
        table=_table(board),
        pictures=list(_pictures(bundles, together)),
        cards=[(each.entrant.label, each.entrant.name, _card(each)) for each in together],
        rules=_rules(bundles[0]),
        sources=[(bundle.label, _about(bundle)) for bundle in bundles],
    )


def _pictures(
    bundles: Sequence[Bundle], together: Sequence[Joined]
) -> Iterator[tuple[str, str, list[Picture]]]:
    """Label, name and views: a reference volume where a bundle has one, then every entrant that has pictures."""
    shown = [("Reference", REFERENCE, bundle) for bundle in bundles if bundle.views(REFERENCE)][:1]
    sets = [(label, label, bundle.views(name)) for label, name, bundle in shown]
    sets += [
        (each.entrant.label, each.entrant.name, each.sources[0].views(each.own_name)) for each in together
    ]
    for label, name, levels in sets:
        if levels:
            views = zip(VIEWS, levels, strict=False)
            yield label, name, [_picture(grey, f"{label}, {view} view") for view, grey in views]


def _picture(levels: np.ndarray, alt: str) -> Picture:
    return Picture(image_uri(levels, lossless=True), alt, levels.shape[1], levels.shape[0])


def _card(each: Joined) -> _Facts:
    entrant, run = each.entrant, each.entrant.run
    seconds, per_volume = entrant.training_seconds, entrant.seconds_per_volume
    facts = [
        ("From", ", ".join(bundle.label for bundle in each.sources)),
        ("Kind", entrant.kind),
        ("What it is", entrant.what),
        ("Model", (run.model or "") if run else ""),
        ("Plug-in", run.package if run else ""),
        ("Preset", (run.preset or "") if run else ""),
        ("Seed", str(run.seed) if run and run.seed is not None else ""),
        ("Settings", ", ".join(f"{key}: {value}" for key, value in run.config.items()) if run else ""),
        ("Volumes seen", f"{entrant.seen:,}" if entrant.seen is not None else ""),
        ("Training", f"{seconds:,.0f} s" if seconds is not None else ""),
        ("Parameters", f"{entrant.parameters:,}" if entrant.parameters else ""),
        ("Sampling", f"{significant(per_volume)} s per volume" if per_volume is not None else ""),
        ("Device", entrant.devices),
        ("Gates", verdict(entrant)),
        *((gate.title, gate.reason) for gate in entrant.gates if not gate.passed),
        ("Scored with", counts(entrant)),
        ("Samples digest", next(iter(entrant.scores.values())).digests["samples"]),
        ("Weights digest", entrant.weights.digest if entrant.weights else ""),
        *((f"No {metric}", reason) for metric, reason in entrant.missing.items()),
        *((score.title, score.signature) for score in entrant.scores.values()),
    ]
    return [(what, value) for what, value in facts if value]


def _rules(bundle: Bundle) -> _Facts:
    record, grid = bundle.record, bundle.record.cohort.grid
    return [
        ("Protocol", f"{record.protocol.name}, version {record.protocol.version}"),
        ("Protocol digest", record.protocol_digest),
        ("Reference", f"{record.cohort.sets['reference'].count} volumes, digest {bundle.reference_digest}"),
        ("Volumes", grid.described()),
        ("Samples", str(record.protocol.evaluation.samples)),
        ("Feature extractor", record.protocol.evaluation.extractor),
    ]


def _about(bundle: Bundle) -> _Facts:
    record = bundle.record
    sets = ", ".join(f"{of.count} {role} ({of.digest[:_SHORT]})" for role, of in record.cohort.sets.items())
    return [
        ("Cohort", f"{record.cohort.source}, digest {record.cohort.digest}"),
        ("Roles", sets),
        ("Versions", ", ".join(f"{name} {number}" for name, number in record.versions.items())),
        *((f"Left out: {run.name}", run.reason) for run in record.left_out),
    ]
