"""Entrants of several bundles together: who is who, what contradicts, and one leaderboard for equal real volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from mribench.bench.bundles import Bundle
from mribench.errors import MribenchError
from mribench.metrics.score import Score
from mribench.reports.export import entrants_of
from mribench.reports.leaderboard import from_scores
from mribench.reports.records import Entrant
from mribench.reports.rows import Leaderboard, usual_scores

_TOLERANCE = 0.01  # of an interval's half width; devices differ by less, and what is less misleads nobody
_SHORT = 12  # characters of a digest that are shown


@dataclass(frozen=True)
class Joined:
    """An entrant under a name that no other has here, the name that it has at home, and the bundles it is in."""

    entrant: Entrant
    own_name: str
    sources: tuple[Bundle, ...]
    held_back: str = ""

    @property
    def is_control(self) -> bool:
        return self.entrant.kind == "control"


def check_contradictions(bundles: Sequence[Bundle]) -> None:
    """Raise MribenchError that names the field where bundles differ in scores of the same samples, or in the facts of
    one definition.
    """
    faults = [*_other_facts(bundles)]
    faults += [fault for a, b in combinations(bundles, 2) for fault in _contradictions(a, b)]
    if faults:
        raise MribenchError("These bundles contradict each other:\n  " + "\n  ".join(faults))


def _other_facts(bundles: Sequence[Bundle]) -> Iterable[str]:
    """What a definition decides must be the same in all scores under it."""
    facts: dict[tuple[str, str, str], tuple[object, str]] = {}
    for bundle in bundles:
        for entrant in bundle.record.entrants:
            for score in entrant.scores:
                sides = sorted(score.replicates)
                for field, fact in (
                    ("better", score.better),
                    ("target_sides", score.target_sides),
                    ("replicates", sides),
                ):
                    where = f"{bundle.label} ({entrant.name})"
                    first, there = facts.setdefault((score.metric, score.version, field), (fact, where))
                    if first != fact:
                        yield f"scores.{score.metric}.{field} is {first} in {there} and {fact} in {where}"


def _contradictions(a: Bundle, b: Bundle) -> Iterable[str]:
    others = {entrant.samples_digest: entrant for entrant in b.record.entrants}
    for entrant in a.record.entrants:
        other = others.get(entrant.samples_digest)
        if other is None:
            continue
        theirs = {score.metric: score for score in other.scores}
        for score in entrant.scores:
            if score.metric in theirs and (field := _differing(score, theirs[score.metric])):
                yield (
                    f"{a.label} ({entrant.name}) and {b.label} ({other.name}) have the same samples, digest "
                    f"{entrant.samples_digest[:_SHORT]}, but scores.{score.metric}.{field}"
                )


def _differing(a: Score, b: Score) -> str:
    """The field in which two scores of the same volumes under one definition differ; "" when they agree."""
    if a.version != b.version or a.digests != b.digests:
        return ""
    if a.n != b.n:
        return f"n is {a.n} in one and {b.n} in the other"
    allowed = _TOLERANCE * max(a.high - a.low, b.high - b.low) / 2 + 1e-6 * max(abs(a.value), abs(b.value))
    for field in ("value", "low", "high"):
        mine, theirs = getattr(a, field), getattr(b, field)
        if abs(mine - theirs) > allowed:
            return f"{field} is {mine:.9g} in one and {theirs:.9g} in the other"
    return ""


def joined(bundles: Sequence[Bundle]) -> list[Joined]:
    """All entrants; equal samples under one name are one entrant, other ones of that name get their bundle's label."""
    once: dict[tuple[str, str, str], Joined] = {}
    for bundle in bundles:
        held_back = {entrant.name: entrant.held_back for entrant in bundle.record.entrants}
        digests = {entrant.name: entrant.samples_digest for entrant in bundle.record.entrants}
        for entrant in entrants_of(bundle):
            key = (entrant.name, digests[entrant.name], bundle.reference_digest)
            first = once.get(key) or Joined(entrant, entrant.name, (), held_back[entrant.name])
            once[key] = replace(first, sources=(*first.sources, bundle))
    names = [entrant.own_name for entrant in once.values()]
    return [_told_apart(each) if names.count(each.own_name) > 1 else each for each in once.values()]


def _told_apart(each: Joined) -> Joined:
    return replace(each, entrant=replace(each.entrant, name=f"{each.own_name} ({each.sources[0].label})"))


def joint_board(bundles: Sequence[Bundle]) -> Leaderboard:
    """One leaderboard of bundles that share their reference volumes."""
    together = joined(bundles)
    usual = usual_scores([each.entrant for each in together])
    entrants = [_apart(each.entrant, usual) for each in together]
    held_back = {each.entrant.name: each.held_back for each in together if each.held_back}
    return from_scores(entrants, _expected(bundles), _remarks(bundles), held_back)


def _apart(entrant: Entrant, usual: Mapping[str, Score]) -> Entrant:
    """With scores against other real volumes than usual unranked: paired tests need the same ones."""
    if entrant.slab is not None:
        return entrant
    scores = {
        metric: _unless_alike(score, usual[metric])
        for metric, score in entrant.scores.items()
        if metric in usual
    }
    return replace(entrant, scores={**entrant.scores, **scores})


def _unless_alike(score: Score, usual: Score) -> Score:
    other = other_sets(score, usual)
    if not other:
        return score
    note = f"against other {' and '.join(other)} volumes than most, so not tested against the others"
    return score.model_copy(update={"ranked": False, "notes": (*score.notes, note)})


def other_sets(score: Score, usual: Score) -> list[str]:
    """Names of the sets of real volumes that are not the same in two scores."""
    sides = sorted((score.digests.keys() | usual.digests.keys()) - {"samples"})
    identities = (
        {side: (each.digests[side], each.n[side]) for side in each.digests} for each in (score, usual)
    )
    own, theirs = identities
    return [side for side in sides if own.get(side) != theirs.get(side)]


def _expected(bundles: Sequence[Bundle]) -> dict[str, int] | None:
    """The counts of a comparable score where all bundles ask for the same; else those of most scores count."""
    asked = {bundle.record.protocol.evaluation.samples for bundle in bundles}
    counts = {bundle.record.cohort.sets["reference"].count for bundle in bundles}
    return {"samples": asked.pop(), "reference": counts.pop()} if len(asked) == len(counts) == 1 else None


def _remarks(bundles: Sequence[Bundle]) -> list[str]:
    sets = [bundle.record.cohort.sets.get("holdout") for bundle in bundles]
    remarks = [
        f"{bundle.label} left out {run.name}: {run.reason}"
        for bundle in bundles
        for run in bundle.record.left_out
    ]
    if len({of.digest if of else "" for of in sets}) > 1:
        remarks.append(
            "Held-out volumes differ between the bundles: the real baseline, the unit of the excess, is that of "
            f"{bundles[0].label}."
        )
    return remarks
