"""Subjects to roles: disjoint, stratified by source, seeded, and clear about what is missing."""

from collections import Counter

import numpy as np
import pytest

from mribench.data.cohort import CohortPlan, CohortSpec
from mribench.data.prepare.roles import assign_roles, split_subjects
from mribench.errors import UsageError

SOURCES = {"a": 60, "b": 30, "c": 9, "d": 1}
SUBJECTS = [(f"{source}{i}", source) for source, n in SOURCES.items() for i in range(n)]
COUNTS = {"train": 40, "reference": 30, "holdout": 20}


@pytest.mark.parametrize("seed", range(10))
def test_roles_are_exact_disjoint_and_stratified(seed):
    roles = split_subjects(SUBJECTS, COUNTS, seed)
    assert Counter(roles.values()) == COUNTS
    sources = dict(SUBJECTS)
    for role, count in COUNTS.items():
        per_source = Counter(sources[subject] for subject, of in roles.items() if of == role)
        for source, n in SOURCES.items():
            assert abs(per_source[source] - count * n / 100) < 1.5


def test_the_order_of_the_list_does_not_matter_and_the_seed_does():
    shuffled = [SUBJECTS[i] for i in np.random.default_rng(0).permutation(100)]
    assert split_subjects(shuffled, COUNTS, 3) == split_subjects(SUBJECTS, COUNTS, 3)
    assert split_subjects(SUBJECTS, COUNTS, 4) != split_subjects(SUBJECTS, COUNTS, 3)


def test_every_subject_can_land_in_every_role():
    landed = {subject: set() for subject, _ in SUBJECTS}
    for seed in range(60):
        for subject, role in split_subjects(SUBJECTS, {**COUNTS, "rest": None}, seed).items():
            landed[subject].add(role)
    assert all({"train", "reference", "holdout"} <= roles for roles in landed.values())


def test_none_takes_all_the_rest():
    roles = split_subjects(SUBJECTS, {"train": None, "reference": 10}, 0)
    assert Counter(roles.values()) == {"train": 90, "reference": 10}


def test_too_few_subjects():
    with pytest.raises(UsageError, match=r"need 90 subjects \(train 40, reference 30, holdout 20\), but 50"):
        split_subjects(SUBJECTS[:50], COUNTS, 0)
    with pytest.raises(UsageError, match="train all"):
        split_subjects(SUBJECTS[:10], {"train": None, "reference": 10}, 0)


def test_a_repeated_subject_is_refused():
    with pytest.raises(UsageError, match="a0"):
        split_subjects([*SUBJECTS, ("a0", "z")], COUNTS, 0)


def test_reference_out_of_train():
    spec = CohortSpec(
        source="prepared", size=16, train=50, reference=50, holdout=0, reference_from_train=True
    )
    roles = assign_roles(SUBJECTS, CohortPlan(spec, 0, ""))
    assert set(roles.values()) == {("train",), ("train", "reference")} and len(roles) == 100
    chosen = [subject for subject, of in roles.items() if "reference" in of]
    assert len(chosen) == 50 and abs(Counter(dict(SUBJECTS)[s] for s in chosen)["a"] - 30) <= 1
    with pytest.raises(UsageError):
        assign_roles(SUBJECTS[:49], CohortPlan(spec, 0, ""))


def test_without_it_every_subject_has_one_role():
    spec = CohortSpec(source="prepared", size=16, train=2, reference=30, holdout=20)
    roles = assign_roles(SUBJECTS, CohortPlan(spec, 0, ""))
    assert Counter(roles.values()) == {("train",): 50, ("reference",): 30, ("holdout",): 20}
