"""Which entrants are held back, by which gate, and what cannot be judged."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from mribench.data.volume_set import volume_set
from mribench.metrics.arrays import alignment
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.gates.judge import judge
from mribench.metrics.gates.thresholds import GateThresholds

NAMES = ("copies", "identical", "repeats", "orientation", "joins", "anatomy")


def verdicts(bench, volumes, **options):
    samples = volume_set(np.clip(volumes, 0, 1).astype(np.float32), "samples")
    return {result.gate: result for result in judge(bench.with_samples(samples), **options)}


def tripped(results):
    return {name for name, result in results.items() if result.passed is False}


def noisy(volumes, sd, seed=0):
    noise = np.random.default_rng(seed).normal(0, sd, volumes.shape)
    return np.clip(volumes + noise * (volumes > 0.05), 0, 1).astype(np.float32)


def field(volumes):
    slope = np.exp(0.1 * np.linspace(-1, 1, volumes.shape[3]))
    return volumes * slope


HONEST = {
    "perfect": lambda v, mean: v,
    "blurred": lambda v, mean: ndimage.gaussian_filter(v, (0, 0.5, 0.5, 0.5)),
    "noisy": lambda v, mean: noisy(v, 0.03),
    "a quarter to the mean": lambda v, mean: 0.75 * v + 0.25 * mean,
    "with a bias field": lambda v, mean: field(v),
}


@pytest.mark.parametrize("kind", HONEST)
def test_an_honest_entrant_passes_all_gates(kind, bench, people):
    results = verdicts(bench, HONEST[kind](people["samples"], people["train"].mean(axis=0)))
    assert [*results] == [*NAMES]
    assert "voxels" in results.pop("anatomy").reason  # these made-up brains are no anatomy
    assert all(result.passed for result in results.values()), results


COPIES = {
    "noise": lambda v: noisy(v, 0.05),
    "gain": lambda v: 0.8 * v,
    "gamma": lambda v: v**1.4,
    "shift": lambda v: ndimage.shift(v, (0, 2, -1, 1), order=1),
    "rotation": lambda v: ndimage.rotate(v, 4, axes=(1, 2), reshape=False, order=1),
    "mirror": lambda v: v[..., ::-1],
    "halves": lambda v: np.where(np.arange(v.shape[3]) < v.shape[3] // 2, v, np.roll(v, 7, axis=0)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_altered_training_volumes_trip_the_copy_gate_and_are_named_with_their_source(kind, bench, people):
    results = verdicts(bench, COPIES[kind](people["train"][:12]))
    assert "copies" in tripped(results)
    suspects = results["copies"].suspects
    assert len(suspects) >= 11
    sources = {(s.sample_index, s.match_index) for s in suspects}
    right = {(i, i) for i in range(12)} | {(i, (i - 7) % 12) for i in range(12)}
    assert sources <= right
    assert all(s.source == "train" and s.p_value <= results["copies"].level for s in suspects)


def test_two_copies_among_eighteen_fresh_people_are_found_and_no_other_sample_is_accused(bench, people):
    volumes = np.concatenate([noisy(people["train"][3:5], 0.03), people["samples"][2:]])
    assert {s.sample_index for s in verdicts(bench, volumes)["copies"].suspects} == {0, 1}


@pytest.mark.parametrize("name", ["reference", "holdout"])
def test_copies_of_the_volumes_that_scores_compare_with_trip_the_gate_of_identical_ones(name, bench, people):
    results = verdicts(bench, noisy(people[name], 0.01))
    assert tripped(results) == {"identical"}
    assert {s.source for s in results["identical"].suspects} == {name}


def test_equal_voxels_are_named_without_any_null(bench, people):
    results = verdicts(bench, people["reference"])
    assert {s.how for s in results["identical"].suspects} == {"same voxels"}
    assert results["identical"].p_value == 0


def test_held_out_volumes_are_not_held_against_the_control_that_is_made_of_them(bench, people):
    assert tripped(verdicts(bench, people["holdout"], own=["holdout"])) == set()
    assert tripped(verdicts(bench, people["holdout"])) == {"identical"}


def test_five_subjects_repeated_with_noise_trip_the_gate_of_repeats_alone(bench, people):
    results = verdicts(bench, noisy(np.tile(people["samples"][:5], (4, 1, 1, 1)), 0.02))
    assert tripped(results) == {"repeats"}
    assert all(s.sample_index % 5 == s.match_index % 5 for s in results["repeats"].suspects)


def test_one_volume_with_noise_has_too_little_variety(bench, people):
    results = verdicts(bench, noisy(np.tile(people["train"].mean(axis=0), (16, 1, 1, 1)), 0.01))
    assert results["repeats"].passed is False
    assert "nearly the same" in results["repeats"].reason


@pytest.mark.parametrize(("axis", "how"), [(1, "bottom and top exchanged"), (2, "back and front exchanged")])
def test_turned_people_trip_the_gate_of_orientation_which_says_how(axis, how, bench, people):
    results = verdicts(bench, np.flip(people["samples"], axis))
    assert "orientation" in tripped(results)
    assert all(s.how.startswith(how) for s in results["orientation"].suspects)
    assert len(results["orientation"].suspects) == len(people["samples"])


def test_exchanged_halves_trip_the_gate_of_orientation(bench, people):
    results = verdicts(bench, np.roll(people["samples"], people["samples"].shape[3] // 2, axis=3))
    assert results["orientation"].suspects[0].how == "halves exchanged: left and right"


def test_left_and_right_are_judged_only_where_the_mean_volume_tells_them_apart(bench, people, brains):
    assert "cannot be judged" in verdicts(bench, people["samples"])["orientation"].reason
    lopsided = Arrays(
        {
            name: volume_set(brains(*span, lopsided=0.06), name)
            for name, span in {"samples": (300, 316), "train": (0, 32), "reference": (100, 116)}.items()
        },
        None,
    )
    assert verdicts(lopsided, brains(300, 316, lopsided=0.06))["orientation"].passed
    mirrored = verdicts(lopsided, brains(300, 316, lopsided=0.06)[..., ::-1])["orientation"]
    assert mirrored.passed is False
    assert "mirrored" in mirrored.reason


def slab(axis, start, stop):
    return (np.indices((24,) * 3)[axis] >= start) & (np.indices((24,) * 3)[axis] < stop)


JOINED = {
    "axial slice 12": slab(0, 12, 13),
    "the border of coronal slices 10 and 11": slab(1, 11, 13),
    "the border of axial slices 11 and 12": slab(0, 0, 12),
    "the border of coronal slices 11 and 12": slab(1, 0, 12),
}


@pytest.mark.parametrize("where", JOINED)
def test_parts_of_fresh_people_joined_at_one_place_trip_the_gate_of_joins_which_says_where(
    where, bench, people
):
    other = np.roll(people["samples"], 1, axis=0)
    results = verdicts(bench, np.where(JOINED[where], people["samples"], other))
    assert tripped(results) == {"joins"}
    assert where in results["joins"].reason
    assert len(results["joins"].suspects) > len(other) / 2


@pytest.mark.parametrize("sd", [0.05, 0.15])
def test_slices_that_belong_together_nowhere_are_no_joined_parts(sd, bench, people):
    noise = np.random.default_rng(3).normal(0, sd, people["samples"].shape[:2])[..., None, None]
    assert verdicts(bench, np.clip(people["samples"] * (1 + noise), 0, 1))["joins"].passed


def test_joined_parts_cannot_be_judged_with_too_few_people(people):
    sets = {"samples": people["samples"], "reference": people["reference"][:7]}
    results = judge(Arrays({name: volume_set(each, name) for name, each in sets.items()}, None))
    by_name = {result.gate: result for result in results}
    assert by_name["joins"].passed is None
    assert "8 real people" in by_name["joins"].reason


def test_siblings_and_repeated_scans_among_training_volumes_accuse_nobody(people):
    train = np.concatenate([people["train"][:20], noisy(people["train"][:20], 0.02)])
    sets = {**people, "train": train}
    results = judge(Arrays({name: volume_set(each, name) for name, each in sets.items()}, None))
    assert [result.gate for result in results if result.passed is False] == []


def test_a_reference_inside_the_training_set_makes_its_own_gate_silent_and_no_other(people):
    sets = {"train": people["train"], "reference": people["train"][:16], "samples": people["samples"]}
    volumes = {name: volume_set(each, name) for name, each in sets.items()}
    results = {result.gate: result for result in judge(Arrays(volumes, None))}
    assert results["identical"].passed is None
    assert "inside the training set" in results["identical"].reason
    assert results["copies"].passed is None  # nobody outside the training set shows what is no copy
    copied = volume_set(noisy(people["train"], 0.01), "samples")
    assert {r.gate for r in judge(Arrays({**volumes, "samples": copied}, None)) if r.passed is False} == {
        "copies",
        "identical",
    }


def test_without_training_volumes_copies_of_them_cannot_be_judged(people):
    sets = {name: people[name] for name in ("reference", "samples")}
    results = {r.gate: r for r in judge(Arrays({n: volume_set(v, n) for n, v in sets.items()}, None))}
    assert results["copies"].passed is None
    assert results["copies"].reason == "Cannot be judged: no training volumes are given."


def test_where_no_null_can_be_had_only_equal_and_nearly_equal_volumes_are_named(people):
    copies = np.concatenate([people["train"][:1], noisy(people["train"][1:2], 0.01), people["samples"][:2]])
    sets = {"train": people["train"][:5], "reference": people["reference"][:5], "samples": copies}
    results = {r.gate: r for r in judge(Arrays({n: volume_set(v, n) for n, v in sets.items()}, None))}
    assert [(s.sample_index, s.match_index) for s in results["copies"].suspects] == [(0, 0), (1, 1)]
    assert "same voxels" in results["copies"].suspects[0].how
    assert results["copies"].passed is False
    assert results["identical"].passed is results["repeats"].passed is None


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda v: 0.05 * v, "the mean volume of train is too dark to show a brain"),
        (lambda v: np.repeat(v[:1], len(v), axis=0), "train does not hold different volumes"),
    ],
)
def test_sets_that_show_no_different_brains_are_not_judged_and_equal_voxels_are_named(alter, reason, people):
    sets = {"train": alter(people["train"]), "reference": people["reference"] * 0.05}
    volumes = {name: volume_set(each, name) for name, each in sets.items()}
    fresh, copied = volume_set(people["samples"], "samples"), volume_set(sets["train"][:9], "samples")
    results = judge(Arrays({**volumes, "samples": fresh}, None))
    assert (results[0].passed, results[0].reason) == (None, f"Cannot be judged: {reason}.")
    assert judge(Arrays({**volumes, "samples": copied}, None))[0].passed is False


def test_a_slab_is_searched_like_a_whole_volume(people):
    slab = volume_set(noisy(people["train"][:12, 10:13], 0.02), "samples")
    sets = {name: volume_set(people[name], name) for name in ("train", "reference", "holdout")}
    results = judge(Arrays({**sets, "samples": dataclasses.replace(slab, slab=(10, 13))}, None))
    assert [result.gate for result in results if result.passed is False] == ["copies"]
    assert len(results[0].suspects) == 12


def test_a_gate_with_a_level_that_nothing_reaches_lets_everybody_pass(bench, people):
    thresholds = GateThresholds(copies=1e-300)
    results = verdicts(bench, noisy(people["samples"], 0.01), thresholds=thresholds)
    assert results["copies"].level == 1e-300
    assert results["copies"].version != verdicts(bench, people["samples"])["copies"].version


def test_verdicts_depend_on_neither_threads_nor_cache(people, tmp_path, monkeypatch):
    volumes = {name: volume_set(each, name) for name, each in people.items()}
    before, threads = judge(Arrays(volumes, tmp_path)), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        without_cache = judge(Arrays(volumes, None))
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(alignment.Frame, "forms", lambda *_: pytest.fail("aligned again"))
    again = judge(Arrays(volumes, tmp_path))
    wanted = [result.model_copy(update={"seconds": 0}) for result in before]
    for results in (without_cache, again):
        assert [result.model_copy(update={"seconds": 0}) for result in results] == wanted


def test_a_fault_in_a_gate_loses_no_other_verdict(bench, people, monkeypatch, caplog):
    monkeypatch.setattr("mribench.metrics.gates.judge.orientations", lambda *_: 1 / 0)
    results = verdicts(bench, people["samples"])
    assert results["orientation"].passed is None
    assert "ZeroDivisionError" in results["orientation"].reason
    assert results["copies"].passed
    assert "orientation failed" in caplog.text
