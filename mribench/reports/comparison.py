"""What is comparable between laboratories and why not, paired tests across them, what changed between two reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from mribench.bench.bundles import Bundle
from mribench.bench.protocol import differences
from mribench.metrics.score import Score
from mribench.metrics.statistics.comparison import holm, p_value
from mribench.metrics.statistics.intervals import difference
from mribench.reports.gates import verdict
from mribench.reports.joint import Joined, check_contradictions, joined, joint_board, other_sets
from mribench.reports.records import Entrant
from mribench.reports.rows import Leaderboard, other_definition

_SHORT = 12


@dataclass(frozen=True)
class Aspect:
    """One thing that the sources have in common or not: `values` in the order of the sources, and what follows."""

    title: str
    values: tuple[str, ...]
    consequence: str

    @property
    def equal(self) -> bool:
        return len(set(self.values)) == 1


@dataclass(frozen=True)
class Group:
    """Entrants whose scores in one metric may be compared; `why_apart` says what tells them from the largest group."""

    metric: str
    title: str
    entrants: tuple[str, ...]
    why_apart: str


@dataclass(frozen=True)
class PairedTest:
    """Two entrants of different sources in one metric. `difference` of the rank keys: negative = the first is better.

    `p_holm` is corrected over all pairs of the group, those within one source too, as on a common leaderboard.
    """

    metric: str
    title: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Change:
    """Something that is not the same in two reports."""

    subject: str
    what: str
    before: str
    after: str
    remark: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison says. `boards`: a leaderboard for each reference that several sources share."""

    sources: tuple[Bundle, ...]
    aspects: tuple[Aspect, ...]
    groups: tuple[Group, ...]
    tests: tuple[PairedTest, ...]
    changes: tuple[Change, ...]
    boards: tuple[tuple[str, Leaderboard], ...]  # reference digest, leaderboard

    def as_json(self) -> dict[str, Any]:
        """Plain values; of a source its label and digests, of a leaderboard the result and the places."""
        return {
            "sources": [_source(source) for source in self.sources],
            "aspects": [{**asdict(aspect), "equal": aspect.equal} for aspect in self.aspects],
            "groups": [asdict(group) for group in self.groups],
            "tests": [asdict(test) for test in self.tests],
            "changes": [asdict(change) for change in self.changes],
            "leaderboards": [
                {
                    "reference_digest": digest,
                    "result": board.headline,
                    "places": {row.entrant.name: row.place for row in board.contestants},
                }
                for digest, board in self.boards
            ],
        }


def _source(source: Bundle) -> dict[str, str]:
    record = source.record
    return {
        "label": source.label,
        "protocol": record.protocol.name,
        "protocol_digest": record.protocol_digest,
        "reference_digest": source.reference_digest,
        "cohort_digest": record.cohort.digest,
    }


def compare(sources: Sequence[Bundle]) -> Comparison:
    """Compare bundles; raises MribenchError naming the field when they contradict each other."""
    check_contradictions(sources)
    together = joined(sources)
    digests = dict.fromkeys(source.reference_digest for source in sources)
    sharing = {digest: [s for s in sources if s.reference_digest == digest] for digest in digests}
    metrics = list(dict.fromkeys(metric for each in together for metric in each.entrant.scores))
    tests = [test for metric in metrics for test in _tests(metric, together)]
    return Comparison(
        sources=tuple(sources),
        aspects=tuple(_aspects(sources)),
        groups=tuple(group for metric in metrics for group in _groups(metric, together)),
        tests=tuple(tests),
        changes=tuple(_changes(*sources)) if len(sources) == 2 else (),
        boards=tuple((digest, joint_board(of)) for digest, of in sharing.items() if len(of) > 1),
    )


def _aspects(sources: Sequence[Bundle]) -> Iterator[Aspect]:
    records = [source.record for source in sources]

    def aspect(title: str, values: Sequence[object], consequence: str) -> Aspect:
        return Aspect(title, tuple(map(str, values)), consequence)

    protocols = [f"{r.protocol.name} {r.protocol.version}, {r.protocol_digest[:_SHORT]}" for r in records]
    yield aspect("protocol", protocols, "Scores are compared where definition and real volumes are the same.")
    for role, consequence in (
        ("reference", "No paired test: differences could be those of the reference volumes."),
        ("train", "Scores that use training volumes (memorisation) are not compared."),
        ("holdout", "Scores that use held-out volumes are not compared; real baselines differ."),
    ):
        sets = [record.cohort.sets.get(role) for record in records]
        values = [f"{of.count} volumes, {of.digest[:_SHORT]}" if of else "none" for of in sets]
        yield aspect(f"{role} volumes", values, consequence)
    grids = [r.cohort.grid.described() for r in records]
    yield aspect("grid", grids, "No score is compared.")
    yield aspect(
        "cohort", [r.cohort.source for r in records], "Simulated volumes say nothing about patients."
    )
    samples = [r.protocol.evaluation.samples for r in records]
    yield aspect(
        "samples asked", samples, "Scores of other numbers of samples are not compared: most depend on it."
    )
    extractors = [r.protocol.evaluation.extractor for r in records]
    yield aspect("feature extractor", extractors, "Scores from features have other definitions.")
    names = list(dict.fromkeys(name for record in records for name in record.versions))
    for name in names:
        numbers = [record.versions.get(name, "–") for record in records]
        if name == "mribench" or len(set(numbers)) > 1:
            yield aspect(
                f"version of {name}",
                numbers,
                "Last digits may differ; definitions have versions of their own.",
            )


def _key(score: Score) -> tuple[object, ...]:
    """Equal for scores that may be compared: definition, real volumes, number of samples."""
    real = sorted(
        (side, digest, score.n[side]) for side, digest in score.digests.items() if side != "samples"
    )
    return score.version, tuple(real), score.n["samples"]


def _comparable(metric: str, entrants: Sequence[Joined]) -> list[list[Joined]]:
    """Groups of entrants that may be compared in a metric, the largest first."""
    groups: dict[tuple[object, ...], list[Joined]] = {}
    for each in entrants:
        if metric in each.entrant.scores:
            doubted = (each.entrant.name,) if each.entrant.doubts else ()
            groups.setdefault((*_key(each.entrant.scores[metric]), *doubted), []).append(each)
    return sorted(groups.values(), key=len, reverse=True)


def _groups(metric: str, entrants: Sequence[Joined]) -> Iterator[Group]:
    groups = _comparable(metric, entrants)
    usual = groups[0][0].entrant
    for number, group in enumerate(groups):
        names = tuple(each.entrant.name for each in group)
        why = _why_apart(group[0].entrant, usual, metric) if number else ""
        yield Group(metric, usual.scores[metric].title, names, why)


def _why_apart(entrant: Entrant, usual: Entrant, metric: str) -> str:
    """In which respects a score is not comparable with the usual one."""
    score, other = entrant.scores[metric], usual.scores[metric]
    reasons = [*entrant.doubts, *(f"the largest group: {doubt}" for doubt in usual.doubts)]
    if entrant.slab != usual.slab:
        slab = entrant.slab or usual.slab or (0, 0)
        reasons.append(
            f"{'' if entrant.slab else 'the largest group: '}axial slices {slab[0]} to {slab[1] - 1} only"
        )
    elif sets := other_sets(score, other):
        reasons += [
            f"other {side} volumes ({score.digests.get(side, 'none')[:_SHORT]} instead of "
            f"{other.digests.get(side, 'none')[:_SHORT]})"
            for side in sets
        ]
    if score.n["samples"] != other.n["samples"]:
        reasons.append(f"{score.n['samples']} samples instead of {other.n['samples']}")
    if score.version != other.version and entrant.slab == usual.slab:
        reasons.append(other_definition(score, other))
    return "; ".join(reasons)


def _tests(metric: str, entrants: Sequence[Joined]) -> Iterator[PairedTest]:
    """Paired tests between contestants of different sources, in every group of comparable scores."""
    for group in _comparable(metric, entrants):
        contestants = [each for each in group if not each.is_control]
        pairs = list(combinations(contestants, 2))
        scores = [(a.entrant.scores[metric], b.entrant.scores[metric]) for a, b in pairs]
        p = [p_value(*pair) for pair in scores]
        for (a, b), pair, single, corrected in zip(pairs, scores, p, holm(p), strict=True):
            labels = [{source.label for source in each.sources} for each in (a, b)]
            if labels[0].isdisjoint(labels[1]):
                names, ends = (a.entrant.name, b.entrant.name), difference(*pair)
                yield PairedTest(metric, pair[0].title, *names, *ends, single, corrected)


def _changes(before: Bundle, after: Bundle) -> Iterator[Change]:
    """What differs between two reports, of entrants by their name."""
    for line in differences(
        before.record.protocol.model_dump(mode="json"), after.record.protocol.model_dump(mode="json")
    ):
        field, _, values = line.partition(": expected ")
        old, _, new = values.partition(", got ")
        yield Change("protocol", field, old, new)
    first, second = ({e.entrant.name: e.entrant for e in joined([bundle])} for bundle in (before, after))
    for name in dict.fromkeys([*first, *second]):
        if name not in second:
            yield Change(name, "entrant", "present", "absent")
        elif name not in first:
            yield Change(name, "entrant", "absent", "present")
        else:
            yield from _entrant_changes(first[name], second[name])
    places = [{row.entrant.name: row.place for row in joint_board([b]).contestants} for b in (before, after)]
    for name in places[0]:
        if name in places[1] and places[0][name] != places[1][name]:
            yield Change(name, "place", *(str(p[name] or "not ranked") for p in places))


def _entrant_changes(a: Entrant, b: Entrant) -> Iterator[Change]:
    samples = [next(iter(entrant.scores.values())).digests["samples"][:_SHORT] for entrant in (a, b)]
    facts = (
        ("samples", *samples),
        ("settings", *(_settings(entrant) for entrant in (a, b))),
        ("volumes seen", str(a.seen), str(b.seen)),
        ("gates", verdict(a), verdict(b)),
    )
    yield from (Change(a.name, what, old, new) for what, old, new in facts if old != new)
    for metric in dict.fromkeys([*a.scores, *b.scores]):
        old, new = a.scores.get(metric), b.scores.get(metric)
        if old is None or new is None:
            texts = ("absent" if score is None else f"{score.value:.6g}" for score in (old, new))
            yield Change(a.name, metric, *texts)
        elif old.value != new.value or _key(old) != _key(new):
            remark = _why_apart(b, a, metric) if _key(old) != _key(new) else ""
            yield Change(a.name, old.title, f"{old.value:.6g}", f"{new.value:.6g}", remark)


def _settings(entrant: Entrant) -> str:
    run, samples = entrant.run, entrant.samples
    settings = {**(run.config if run else {}), **(samples.sampler if samples else {})}
    seed = run.seed if run else None
    return ", ".join(f"{key}={value}" for key, value in sorted({**settings, "seed": seed}.items()))
