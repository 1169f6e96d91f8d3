"""All gates of one entrant: copies, identical to other real volumes, repeats, orientation, joined parts, anatomy."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from mribench.errors import MribenchError, NotApplicable
from mribench.files import digest_json
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features.anatomy import DEFINITION as SEGMENTATION
from mribench.metrics.gates import anatomy, joins, orientation, pose, repeats, search
from mribench.metrics.gates.orientation import LEAST_FIT, handedness, orientations
from mribench.metrics.gates.repeats import Repeats
from mribench.metrics.gates.result import GateResult, Suspect
from mribench.metrics.gates.search import FEWEST, Matches, best_matches, described, judged, likenesses
from mribench.metrics.gates.tail import gumbel_p, holm, of_more
from mribench.metrics.gates.thresholds import GateThresholds
from mribench.metrics.regions import TRAITS, traits

log = logging.getLogger(__name__)


class _Finding(NamedTuple):
    """What one gate says; `passed` None: it cannot be judged."""

    passed: bool | None
    reason: str
    p_value: float | None = None
    suspects: Sequence[Suspect] = ()


class _Gate(NamedTuple):
    name: str
    title: str
    definition: str
    find: Callable[[_Entrant, float], _Finding]
    holds_back: bool = True


class _Entrant(NamedTuple):
    arrays: Arrays
    own: frozenset[str]
    thresholds: GateThresholds

    @property
    def names(self) -> tuple[str, ...]:
        return self.arrays.sets["samples"].names

    def people(self, *without: str) -> list[str]:
        """Sets of real people, none twice, that share no volume with the sets `without`."""
        sets, taken, chosen = self.arrays.sets, set[str](), list[str]()
        for name in without:
            taken.update(sets[name].digests if name in sets else ())
        for name in ("holdout", "reference", "train"):
            if name in sets and taken.isdisjoint(sets[name].digests):
                taken.update(sets[name].digests)
                chosen.append(name)
        return chosen


def judge(
    arrays: Arrays, thresholds: GateThresholds | None = None, *, own: Sequence[str] = ()
) -> tuple[GateResult, ...]:
    """The verdict of every gate on the samples, in a fixed order.

    `own`: sets that a control is made from by design, which are therefore not held against it. A gate that these sets
    cannot be judged by, or that fails, has `passed` None and says why. Results depend on neither threads nor device.
    """
    entrant = _Entrant(arrays, frozenset(own), thresholds or GateThresholds())
    with _one_thread():
        return tuple(_result(gate, entrant) for gate in _GATES)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _result(gate: _Gate, entrant: _Entrant) -> GateResult:
    start, level = time.perf_counter(), getattr(entrant.thresholds, gate.name)
    try:
        finding = gate.find(entrant, level)
    except MribenchError as error:
        finding = _Finding(None, f"Cannot be judged: {str(error).rstrip('.')}.")
    except Exception as error:  # a fault must not lose the scores; the trace goes to the log
        log.exception("the gate %s failed", gate.name)
        finding = _Finding(None, f"The gate failed: {type(error).__name__}: {error}")
    return GateResult(
        gate=gate.name,
        title=gate.title,
        passed=finding.passed,
        reason=finding.reason,
        level=level,
        p_value=finding.p_value,
        version=digest_json([gate.name, gate.definition, entrant.thresholds.model_dump()])[:12],
        suspects=tuple(finding.suspects),
        holds_back=gate.holds_back,
        seconds=round(time.perf_counter() - start, 3),
    )


def _copies(entrant: _Entrant, level: float) -> _Finding:
    if "train" not in entrant.arrays.sets:
        return _Finding(None, "Cannot be judged: no training volumes are given.")
    return _searched(entrant, ["train"], level)


def _identical(entrant: _Entrant, level: float) -> _Finding:
    sets, targets = entrant.arrays.sets, list[str]()
    for name in ("reference", "holdout"):
        if name in sets and sets[name].digest not in {sets[other].digest for other in targets}:
            targets.append(name)
    return _searched(entrant, [name for name in targets if name not in entrant.own], level)


def _searched(entrant: _Entrant, targets: Sequence[str], level: float) -> _Finding:
    """Samples that are copies of volumes of `targets`; equal and nearly equal voxels need no null."""
    same = [suspect for target in targets for suspect in _same_voxels(entrant, target)]
    tables, reasons, people = [], [], 0
    if not targets:
        reasons.append(f"these samples are made from {' and '.join(sorted(entrant.own))} volumes by design")
    for target in targets:
        try:
            table, count = _table(entrant, target)
        except NotApplicable as reason:
            reasons.append(str(reason).rstrip("."))
            same += _nearly_equal(entrant, target, {suspect.sample_index for suspect in same})
        else:
            tables.append(table)
            people = max(people, count)
    suspects = [*same, *_suspects(entrant, tables, level, {s.sample_index for s in same})]
    return _verdict(entrant, suspects, reasons, _smallest(tables), (" or ".join(targets), people, level))


def _verdict(
    entrant: _Entrant,
    suspects: Sequence[Suspect],
    reasons: Sequence[str],
    smallest: float | None,
    where: tuple[str, int, float],
) -> _Finding:
    targets, people, level = where
    if suspects:
        count = len({suspect.sample_index for suspect in suspects})
        reason = (
            f"{count} of {len(entrant.names)} samples match {targets} volumes more closely, in the whole volume or in "
            f"a part, than other people do ({_at(level)})."
        )
        return _Finding(False, reason, 0.0 if suspects[0].p_value == 0 else smallest, suspects)
    if reasons:
        return _Finding(None, f"Cannot be judged: {'; '.join(reasons)}.")
    reason = f"No sample matches {targets} volumes more closely than {people} other people do ({_at(level)})."
    return _Finding(True, reason, smallest)


def _at(level: float) -> str:
    return f"Holm's correction, level {level:.2%}"


def _table(entrant: _Entrant, target: str) -> tuple[_Table, int]:
    """What the search in a set says of every sample, and how many people are its null."""
    people = entrant.people(target)
    if target != "train" and _overlap(entrant, "train", target):
        raise NotApplicable(f"{target} lies inside the training set, so one cannot be told from the other")
    if not people:
        raise NotApplicable(f"no real people outside {target} show what is no copy")
    searches = [best_matches(entrant.arrays, name, target) for name in people]
    null = Matches(*(np.concatenate(each) for each in zip(*searches, strict=True)))
    matches = best_matches(entrant.arrays, "samples", target)
    verdicts = judged(matches, null)
    return (target, matches, verdicts.part, verdicts.p_values), len(null.statistic)


def _nearly_equal(entrant: _Entrant, target: str, told: set[int]) -> list[Suspect]:
    """Samples that nobody can take for another person, where the search has no null."""
    try:
        likeness, match = likenesses(entrant.arrays, target)
    except NotApplicable:
        return []
    alike = np.flatnonzero(likeness >= entrant.thresholds.near_equal).tolist()
    return [
        _suspect(entrant, i, target, int(match[i]), f"nearly the same voxels, r = {likeness[i]:.3f}")
        for i in sorted(alike, key=lambda i: (-likeness[i], i))
        if i not in told
    ]


def _overlap(entrant: _Entrant, first: str, second: str) -> bool:
    sets = entrant.arrays.sets
    return first in sets and second in sets and not set(sets[first].digests).isdisjoint(sets[second].digests)


def _same_voxels(entrant: _Entrant, target: str) -> list[Suspect]:
    samples, others = entrant.arrays.sets["samples"], entrant.arrays.sets[target]
    place = {digest: i for i, digest in enumerate(others.digests)}
    return [
        _suspect(entrant, i, target, place[digest], "same voxels", 0.0)
        for i, digest in enumerate(samples.digests)
        if digest in place
    ]


_Table = tuple[str, Matches, np.ndarray, np.ndarray]  # searched set, matches, part and p value of each sample


def _smallest(tables: Sequence[_Table]) -> float | None:
    return float(holm(np.concatenate([table[3] for table in tables])).min()) if tables else None


def _suspects(entrant: _Entrant, tables: Sequence[_Table], level: float, told: set[int]) -> list[Suspect]:
    """Samples whose p value, corrected for all samples and sets, is at most the level; the surest first."""
    if not tables:
        return []
    corrected = np.split(holm(np.concatenate([table[3] for table in tables])), len(tables))
    suspects = [
        _suspect(
            entrant,
            i,
            source,
            int(matches.match[i, part[i]]),
            described(int(part[i]), int(matches.form[i, part[i]])),
            float(p_values[i]),
        )
        for (source, matches, part, _), p_values in zip(tables, corrected, strict=True)
        for i in np.flatnonzero(p_values <= level).tolist()
        if i not in told
    ]
    return sorted(suspects, key=lambda suspect: (suspect.p_value, suspect.sample_index))


def _suspect(
    entrant: _Entrant, sample: int, source: str, match: int, how: str, p_value: float | None = None
) -> Suspect:
    return Suspect(
        sample=entrant.names[sample],
        sample_index=sample,
        source=source,
        match=entrant.arrays.sets[source].names[match],
        match_index=match,
        how=how,
        p_value=p_value,
    )


def _repeats(entrant: _Entrant, level: float) -> _Finding:
    count = len(entrant.names)
    same = _same_samples(entrant)
    people = entrant.people("train") or entrant.people()
    if count < FEWEST or sum(len(entrant.arrays.sets[name]) for name in people) < FEWEST:
        if same:
            return _Finding(False, f"{len(same)} samples have the voxels of another sample.", 0.0, same)
        return _Finding(None, f"Cannot be judged: it takes {FEWEST} samples and {FEWEST} real people.")
    comparison = Repeats(entrant.arrays)
    variety, least = comparison.variety(people), entrant.thresholds.least_variety
    matches, null = comparison.of_samples(), comparison.of_people(people, count)
    verdicts = judged(matches, null)
    size = min(count, sum(len(entrant.arrays.sets[name]) for name in people))
    table = ("samples", matches, verdicts.part, of_more(verdicts.p_values, (count - 1) / (size - 1)))
    suspects = [*same, *_suspects(entrant, [table], level, {s.sample_index for s in same})]
    p_value = 0.0 if same else _smallest([table])
    if variety < least:
        reason = f"Samples are nearly the same: their variance is {variety:.1%} of that of people (least: {least:.0%})."
        return _Finding(False, reason, p_value, suspects)
    if suspects:
        reason = f"{len(suspects)} of {count} samples are more alike than different people ({_at(level)})."
        return _Finding(False, reason, p_value, suspects)
    reason = f"No two samples are more alike than different people ({_at(level)})."
    return _Finding(True, reason, p_value)


def _same_samples(entrant: _Entrant) -> list[Suspect]:
    first: dict[str, int] = {}
    suspects = []
    for i, digest in enumerate(entrant.arrays.sets["samples"].digests):
        if first.setdefault(digest, i) != i:
            suspects.append(_suspect(entrant, i, "samples", first[digest], "same voxels", 0.0))
    return suspects


def _orientation(entrant: _Entrant, level: float) -> _Finding:
    arrays = entrant.arrays
    people = entrant.people(arrays.framing) or [arrays.framing]
    null = [orientations(arrays, name) for name in people]
    samples = orientations(arrays, "samples")
    excess, fit, sides = (
        np.concatenate([getattr(o, name) for o in null]) for name in ("excess", "fit", "handedness")
    )
    if len(excess) < FEWEST:
        return _Finding(None, f"Cannot be judged: it takes {FEWEST} real people.")
    corrected = holm(gumbel_p(excess, samples.excess))
    turned = (corrected <= level) & (samples.excess > 0) & (samples.fit > LEAST_FIT * np.median(fit))
    p_value = float(corrected.min())
    if turned.any():
        return _turned(entrant, np.flatnonzero(turned).tolist(), corrected, samples.name)
    sided = handedness(samples.handedness, sides)
    if sided.mirrored:
        return _Finding(False, "The samples are mirrored as a whole: left and right are exchanged.", p_value)
    if len(samples.fit) >= FEWEST and np.median(samples.fit) > LEAST_FIT * np.median(fit):
        shape, poses = arrays.frame.mean.shape, np.concatenate([arrays.poses(name) for name in people])
        placed = pose.displacement(arrays.poses("samples"), poses, shape)
        if placed.p_value <= level:
            return _Finding(
                False, f"The samples as a whole are {placed.what} against people.", placed.p_value
            )
    note = (
        ""
        if sided.judged
        else " Left and right cannot be judged: the mean of these volumes is too symmetric."
    )
    return _Finding(True, f"All samples lie as the mean volume does.{note}", p_value)


def _turned(entrant: _Entrant, turned: Sequence[int], p_values: np.ndarray, names: Sequence[str]) -> _Finding:
    suspects = [
        Suspect(
            sample=entrant.names[i],
            sample_index=i,
            source=entrant.arrays.framing,
            match="the mean volume",
            how=names[i],
            p_value=float(p_values[i]),
        )
        for i in sorted(turned, key=lambda i: (p_values[i], i))
    ]
    how = Counter(sorted(suspect.how for suspect in suspects)).most_common(1)[0][0]
    reason = f"{len(turned)} of {len(entrant.names)} samples lie unlike the mean volume, most often: {how}."
    return _Finding(False, reason, float(p_values.min()), suspects)


def _joins(entrant: _Entrant, level: float) -> _Finding:
    arrays = entrant.arrays
    sets = entrant.people()
    people = np.concatenate([arrays.joins(name) for name in sets])
    if len(people) < FEWEST:
        return _Finding(None, f"Cannot be judged: it takes {FEWEST} real people.")
    worst = joins.joined(arrays.joins("samples"), people, arrays.honest_joins(sets[0]), arrays.shape)
    where, least = joins.described(worst.place), entrant.thresholds.least_outlying
    if worst.p_value > level or worst.outlying < least:
        return _Finding(
            True, f"No place stands out in all samples ({_at(level)}, {least:g} SD).", worst.p_value
        )
    suspects = [
        Suspect(sample=entrant.names[i], sample_index=i, source="samples", how=f"joined at {where}")
        for i in worst.samples
    ]
    reason = f"Parts of different volumes seem joined at {where}: it stands out by {worst.outlying:.1f} SD."
    return _Finding(False, reason, worst.p_value, suspects)


def _anatomy(entrant: _Entrant, level: float) -> _Finding:
    arrays, count = entrant.arrays, len(entrant.names)
    if arrays.slab is not None:
        return _Finding(None, "Cannot be judged: it takes whole volumes.")
    people = np.zeros((0, len(TRAITS)))
    for name in entrant.people():
        if (
            len(people) < anatomy.ENOUGH
        ):  # every volume of a large training set would be segmented for nothing
            people = np.concatenate([people, traits(arrays.region_volumes(name))])
    if min(len(people), count) < FEWEST:
        return _Finding(None, f"Cannot be judged: it takes {FEWEST} samples and {FEWEST} real people.")
    found = anatomy.departures(traits(arrays.region_volumes("samples")), people, arrays.voxel_mm)
    beyond = [departure.what for departure in found if departure.p_value <= level]
    if beyond:
        return _Finding(
            False, f"Other anatomy than {len(people)} people have: {', '.join(beyond)}.", found[0].p_value
        )
    return _Finding(
        True, f"The anatomy is that of {len(people)} people within what is tolerated.", found[0].p_value
    )


_GATES = (
    _Gate("copies", "Copies of training volumes", search.DEFINITION, _copies),
    _Gate("identical", "Copies of reference or held-out volumes", search.DEFINITION, _identical),
    _Gate("repeats", "Samples that repeat each other", f"{search.DEFINITION}|{repeats.DEFINITION}", _repeats),
    _Gate("orientation", "Orientation", f"{orientation.DEFINITION}|{pose.DEFINITION}", _orientation),
    _Gate("joins", "Joined parts", joins.DEFINITION, _joins),
    _Gate("anatomy", "Anatomy", f"{SEGMENTATION}|{anatomy.DEFINITION}", _anatomy, holds_back=False),
)
