"""What the report says of gates, of equal samples and of samples that are real volumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from mribench.data.cohort import Cohort
from mribench.metrics.gates.result import GateResult
from mribench.reports.records import Entrant

_ROLES = ("reference", "holdout", "train")


def failed(entrant: Entrant, *, holding_back: bool = True) -> str:
    """Why gates hold an entrant back; "" when none does, and of a control, which is never ranked.

    `holding_back=False`: why it is placed behind entrants that pass, by the gates that hold nobody back.
    """
    if entrant.kind == "control":
        return ""
    gates = [gate for gate in entrant.gates if gate.holds_back == holding_back]
    return " ".join(_sentence(gate) for gate in gates if gate.passed is False)


def _sentence(gate: GateResult) -> str:
    """ "Copies: 3 of 16 samples are ...", or "Copies: not judged: ..."."""
    judged = "not judged: " if gate.passed is None else ""
    return f"{gate.title}: {judged}{gate.reason.rstrip('.')}."


def verdict(entrant: Entrant) -> str:
    """ "passed", "failed", "passed but for anatomy", "2 of 4 not judged", or "" where a record has no gates."""
    if not entrant.gates:
        return ""
    lost = [gate for gate in entrant.gates if gate.passed is False]
    if lost:
        if any(gate.holds_back for gate in lost):
            return "failed"
        return f"passed but for {', '.join(gate.title.lower() for gate in lost)}"
    unjudged = sum(gate.passed is None for gate in entrant.gates)
    return f"{unjudged} of {len(entrant.gates)} not judged" if unjudged else "passed"


def remarks(entrant: Entrant) -> list[str]:
    """A sentence for every gate that did not pass."""
    return [_sentence(gate) for gate in entrant.gates if not gate.passed]


def without_gates(entrants: Iterable[Entrant]) -> list[str]:
    """A sentence that names the contestants whose scores are of a time before gates."""
    names = [e.name for e in entrants if e.kind != "control" and e.scores and not e.gates]
    if not names:
        return []
    return [f"No gates were judged for {', '.join(names)}. Run: mribench evaluate NAME --overwrite"]


def equal_samples(entrants: Sequence[Entrant]) -> list[str]:
    """A sentence for every two entrants that hold the same volumes, at least in part; controls only beside others."""
    warnings = []
    for a, b in combinations(entrants, 2):
        if a.kind == b.kind == "control":
            continue
        own, other = _digests(a), _digests(b)
        if own and own == other:
            once = "" if "control" in (a.kind, b.kind) else ", and they are ranked as one"
            warnings.append(f"{a.name} and {b.name} are the same samples, volume for volume{once}.")
        elif shared := len(own & other):
            warnings.append(f"{a.name} and {b.name} have {shared} samples in common, voxel for voxel.")
    return warnings


def real_samples(entrants: Iterable[Entrant], cohort: Cohort | None) -> dict[str, str]:
    """Entrant -> how many of its samples are real volumes of this cohort, voxel for voxel; controls may be."""
    real = {role: set(cohort.set(role).digests) for role in _ROLES} if cohort else {}
    reasons = {}
    for entrant in entrants:
        own = _digests(entrant)
        counts = [(len(own & digests), role) for role, digests in real.items()]
        parts = [
            f"{count} of its {len(own)} different samples are {role} volumes"
            for count, role in counts
            if count
        ]
        if parts and entrant.kind != "control":
            reasons[entrant.name] = f"{'; '.join(parts)}, voxel for voxel"
    return reasons


def _digests(entrant: Entrant) -> set[str]:
    return {file.digest for file in entrant.samples.files} if entrant.samples else set()
