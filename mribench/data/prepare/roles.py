"""Subjects to roles: seeded, each source in proportion, no subject in two of train, reference and held-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mribench.data.cohort import CohortPlan
from mribench.errors import UsageError
from mribench.runtime import derive


def assign_roles(subjects: Sequence[tuple[str, str]], plan: CohortPlan) -> dict[str, tuple[str, ...]]:
    """The roles of each subject of the (subject, source) pairs; `train` gets all that the others leave.

    Raises UsageError for too few subjects.
    """
    spec = plan.spec
    counts: dict[str, int | None] = {"holdout": spec.holdout}
    if not spec.reference_from_train:
        counts["reference"] = spec.reference
    role_of = split_subjects(subjects, {**counts, "train": None}, plan.seed)
    roles: dict[str, tuple[str, ...]] = {subject: (role,) for subject, role in role_of.items()}
    if spec.reference_from_train:
        train = [pair for pair in subjects if role_of.get(pair[0]) == "train"]
        seed = derive(plan.seed, "reference of train")
        for subject in split_subjects(train, {"reference": spec.reference}, seed):
            roles[subject] = ("train", "reference")
    return roles


def split_subjects(
    subjects: Sequence[tuple[str, str]], counts: Mapping[str, int | None], seed: int
) -> dict[str, str]:
    """Give each role `counts[role]` of the (subject, source) pairs; None, for one role, means all the rest.

    Every role gets each source in proportion to within about one subject. The result depends on the pairs and
    the seed, not on their order; subjects that no role needs are absent. Raises UsageError for too few subjects.
    """
    _check_counts([subject for subject, _ in subjects], counts)
    ordered = _interleaved(subjects, seed)
    spare = len(ordered) - sum(count or 0 for count in counts.values())
    sizes = [spare if count is None else count for count in counts.values()]
    roles = [role for role, size in zip(counts, sizes, strict=True) for _ in range(size)]
    return dict(zip(ordered, roles, strict=False))


def _check_counts(names: Sequence[str], counts: Mapping[str, int | None]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"Every subject must be given once, but {', '.join(repeated[:10])} repeat.")
    needed = sum(count or 0 for count in counts.values()) + sum(count is None for count in counts.values())
    if len(names) < needed:
        wanted = ", ".join(f"{role} {'all' if n is None else n}" for role, n in counts.items())
        raise UsageError(
            f"The roles need {needed} subjects ({wanted}), but {len(names)} are usable. "
            "Add subjects or choose a protocol with smaller counts."
        )


def _interleaved(subjects: Sequence[tuple[str, str]], seed: int) -> list[str]:
    """Subjects in an order in which every stretch holds each source nearly in proportion."""
    places: list[tuple[float, str]] = []
    for source in sorted({source for _, source in subjects}):
        random = np.random.default_rng(derive(seed, "split", source))
        names = random.permutation(sorted(name for name, of in subjects if of == source))
        start = random.random()
        places += [((k + start) / len(names), str(name)) for k, name in enumerate(names)]
    return [name for _, name in sorted(places)]
