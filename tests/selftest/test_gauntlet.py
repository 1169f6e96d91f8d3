"""The gauntlet ranks every adversary beside the honest entrants, judges by the rule, records, resumes and fails."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json

import numpy as np
import pytest
from click.testing import CliRunner
from torch import nn

from mribench.bench.folder import create_bench
from mribench.bench.protocol import EvaluationSpec, Protocol
from mribench.cli import main
from mribench.data.cohort import CohortSpec, open_cohort
from mribench.data.grid import quantise
from mribench.data.prepare.builder import Product, Task, make_volumes, write_cohort
from mribench.metrics.arrays import cache as cache_module
from mribench.metrics.features import slices as features
from mribench.metrics.gates.result import GateResult, Suspect
from mribench.metrics.score import Score
from mribench.runtime import make_context
from mribench.selftest import gauntlet, gauntlet_table
from mribench.selftest.adversaries import ADVERSARIES, HONEST
from mribench.selftest.contract import phantoms
from mribench.selftest.gauntlet import Examined, GauntletRecord, place, problems
from mribench.selftest.unlisted import UNLISTED

LISTED = ("noisy_copies", "reference_copies", "half_brains", "real_planes", "upside_down", "repeats")
UNDETECTABLE = "undetectable"  # fresh volumes that are called a cheat
CHEATS = (*LISTED, UNDETECTABLE)
SOME = ("fresh", *LISTED, "sphere", "thin_cortex", "minority_10")
POSSIBLE = [*(name for name in SOME if name != "thin_cortex"), UNDETECTABLE]  # without the simulator
RUN = gauntlet.run
METRICS = ("ms_ssim", "mmd", "fid_a", "memorisation", "copy_rate")


def call(*args):
    return CliRunner().invoke(main, ["-q", *(str(a) for a in args)])


class Coarse(nn.Module):
    """A network without weights: the slice on a 7 x 7 grid."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x[:, :1], 7).flatten(1)


def phantom_bench(folder, train, reference, holdout):
    """A bench with phantoms for a cohort, 16^3."""
    cohort = CohortSpec(source="simulated", size=16, train=train, reference=reference, holdout=holdout)
    evaluation = EvaluationSpec(samples=10, tsne_samples=4, metrics=METRICS)
    made = create_bench(
        folder, Protocol(name="small", version=1, seed=5, cohort=cohort, evaluation=evaluation)
    )
    volumes = phantoms(train + reference + holdout, 16, noise=0.2)
    roles = ["train"] * train + ["reference"] * reference + ["holdout"] * holdout
    plan = made.protocol.cohort_plan
    tasks = [
        Task(name, "", lambda i=i: Product(quantise(volumes[i]), {})) for i, name in enumerate(volumes.names)
    ]
    lines = make_volumes(made.cohort_folder, plan.spec.voxels, tasks, lambda *_: None)
    entries = [lines[name].as_volume((role,)) for name, role in zip(volumes.names, roles, strict=True)]
    write_cohort(made.cohort_folder, plan, {}, entries)
    return made


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return phantom_bench(tmp_path_factory.mktemp("gauntlet"), 10, 10, 20)


@pytest.fixture(scope="module", autouse=True)
def some_adversaries():
    """The command tries a few adversaries only."""
    few = {name: ADVERSARIES[name] for name in SOME}
    few[UNDETECTABLE] = dataclasses.replace(ADVERSARIES["fresh"], name=UNDETECTABLE, kind="cheat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gauntlet, "run", functools.partial(gauntlet.run, adversaries=few))
        yield


def test_without_a_choice_all_listed_adversaries_are_tried_and_none_that_is_not_listed():
    assert inspect.signature(RUN).parameters["adversaries"].default is ADVERSARIES
    assert not (ADVERSARIES | HONEST).keys() & UNLISTED.keys()


@pytest.fixture(scope="module")
def finished(bench, some_adversaries):
    """What the command says, and the record that it writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "load_network", lambda *_: Coarse())
        result = call("selftest", "--gauntlet", "--bench", bench.folder)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result, GauntletRecord.read(bench.folder / "gauntlet.json")


def test_every_entrant_is_in_the_record_with_every_score_of_the_protocol(bench, finished):
    _, record = finished
    assert json.loads((bench.folder / "gauntlet.json").read_text())["schema"] == "mribench/gauntlet/1"
    assert [result.name for result in record.honest] == list(HONEST)
    assert [result.name for result in record.adversaries] == POSSIBLE
    assert record.not_possible == ("thin_cortex",)
    assert record.n == {"samples": 10, "reference": 10, "train": 10, "holdout": 10}
    assert record.failures == ()
    for result in (*record.honest, *record.adversaries):
        assert set(result.scores) == set(METRICS)
    scores = {result.name: result.scores for result in record.adversaries}
    assert scores["noisy_copies"]["copy_rate"].value == 1 and scores["fresh"]["copy_rate"].value == 0
    assert scores["reference_copies"]["fid_a"].value == pytest.approx(0, abs=1e-4)


def test_place_and_verdict_follow_from_gates_and_places(finished):
    for result in finished[1].adversaries:
        if result.not_ranked:
            assert result.place is None and any(gate.passed is False for gate in result.gates)
            assert result.passed == (result.kind != "perfect")
            continue
        assert result.place == result.ranked - len(result.not_below) and 0 <= result.first <= 1
        assert result.decisive and result.excess is not None
        if result.kind != "perfect":
            assert result.passed == (not result.not_below)


def test_the_exit_code_is_1_when_a_cheat_passes_and_the_error_counts_them(finished):
    result, record = finished
    failed = [r.name for r in record.adversaries if r.name in CHEATS and not r.passed]
    assert failed == [UNDETECTABLE] and result.exit_code == 1
    assert f"1 of 7 cheats are not held back: {UNDETECTABLE}" in result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(HONEST) + len(POSSIBLE)
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


def test_a_second_run_computes_no_array_and_gives_the_same_record(bench, finished, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("computed again")

    for module, name in ((cache_module, "pair_matrix"), (cache_module, "nearest_neighbours")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(features, "load_network", refuse)
    again = json.loads(call("selftest", "--gauntlet", "--json", "--bench", bench.folder).stdout)
    assert again | {"seconds": 0} == finished[1].as_json() | {"seconds": 0}


def test_a_cohort_that_is_too_small_is_wrong_usage(tmp_path):
    phantom_bench(tmp_path, 10, 10, 19)
    result = call("selftest", "--gauntlet", "--bench", tmp_path)
    assert result.exit_code == 2 and "there are 10, 10 and 19" in result.output
    assert call("selftest", "--gauntlet", "--volumes", "9", "--bench", tmp_path).exit_code == 2


def score(loss, metric="mmd", count=40):
    """A score of 40 samples with that loss."""
    pattern = np.resize([0.1, -0.1], count) / np.sqrt(count - 1)
    return Score(
        metric=metric,
        title=metric,
        unit="",
        family=metric,
        ranked=True,
        value=loss,
        low=loss - 0.2,
        high=loss + 0.2,
        interval="jackknife",
        better="lower",
        target=None,
        n={"samples": count},
        version="1",
        signature=f"metric:{metric}",
        digests={},
        seconds=0,
        replicates={"samples": tuple(loss + pattern)},
    )


FEW = ("fresh", "half_brains", "repeats", "sphere", "minority_10")  # of every kind of adversary


def scored(loss, metrics=("mmd",)):
    """What is said of the honest entrants, with losses 1 to 4, and of a few adversaries with that loss."""
    losses = dict(zip(HONEST, (1.0, 2.0, 3.0, 4.0), strict=True)) | dict.fromkeys(FEW, loss)
    return {name: Examined({m: score(loss, m) for m in metrics}) for name, loss in losses.items()}


def placed(examined, side=32):
    return place(examined, {name: ADVERSARIES[name] for name in FEW}, side)


def unscored():
    return {name: Examined({}) for name in scored(1.0)}


@pytest.mark.parametrize(
    ("loss", "place", "not_below", "passed"),
    [
        (5.0, 5, 0, True),
        (3.5, 4, 1, False),
        (0.5, 1, 4, False),
    ],
)
def test_an_adversary_passes_only_below_every_honest_entrant(loss, place, not_below, passed):
    honest, adversaries = placed(scored(loss))
    assert all(result.not_ranked == "" for result in honest)
    for result in adversaries:
        assert (result.place, len(result.not_below)) == (place, not_below)
        assert result.passed == (passed or result.kind == "perfect")
        assert result.scores["mmd"].excess == pytest.approx(loss - 4)
        assert result.required == (result.kind in ("perfect", "cheat"))


def test_defects_and_minorities_are_required_from_64_voxels_on():
    assert all(result.required for result in placed(scored(5.0), side=64)[1])


def test_an_adversary_without_a_rank_is_held_back_and_the_perfect_entrant_must_have_one():
    scores = scored(0.5, metrics=("mmd", "ms_ssim"))
    for name in ("fresh", "half_brains"):
        del scores[name].scores["ms_ssim"]
    honest, adversaries = placed(scores)
    by_name = {result.name: result for result in adversaries}
    for name, passed in (("half_brains", True), ("fresh", False)):
        result = by_name[name]
        assert (result.place, result.ranked, result.passed, result.first) == (None, 4, passed, None)
        assert "no comparable" in result.not_ranked
    assert all(result.not_ranked == "" for result in honest)


def test_an_honest_entrant_without_a_rank_is_named_with_the_reason():
    scores = scored(5.0, metrics=("mmd", "ms_ssim"))
    del scores["blur"].scores["ms_ssim"]
    honest, _ = placed(scores)
    assert {result.name for result in honest if result.not_ranked} == {"blur"}
    assert honest[list(HONEST).index("blur")].not_ranked.startswith("beside fresh: no comparable")


def test_where_nothing_is_ranked_nothing_is_held_back():
    honest, adversaries = placed(unscored())
    assert not any(result.passed for result in adversaries)
    assert all(result.not_ranked for result in honest)


def verdict(reason, passed=False):
    return GateResult(
        gate="copies", title="Copies", passed=passed, reason=reason, level=0.005, suspects=(SUSPECT,)
    )


SUSPECT = Suspect(sample="000001", sample_index=1, source="train")


def test_an_entrant_that_a_gate_refuses_is_held_back_with_the_reason_of_the_gate():
    examined = scored(0.5)
    for name in ("half_brains", "fresh"):
        examined[name] = Examined(examined[name].scores, (verdict("64 samples copy training volumes"),))
    for name, passed in (("repeats", True), ("sphere", None)):
        examined[name] = Examined(examined[name].scores, (verdict("nothing was found", passed),))
    by_name = {result.name: result for result in placed(examined)[1]}
    for name, passed in (("half_brains", True), ("fresh", False)):
        result = by_name[name]
        assert (result.place, result.ranked, result.passed) == (None, 4, passed)
        assert result.not_ranked == "Copies: 64 samples copy training volumes."
    for name in ("repeats", "sphere"):
        assert (by_name[name].place, by_name[name].passed) == (1, False)
    assert [gate.suspects for gate in by_name["half_brains"].gates] == [()]


def test_an_honest_entrant_that_a_gate_refuses_is_a_problem_and_the_others_are_still_compared(finished):
    examined = scored(3.5)
    examined["bias_field"] = Examined(examined["bias_field"].scores, (verdict("wrong orientation"),))
    honest, adversaries = placed(examined)
    assert [result.name for result in honest if result.not_ranked] == ["bias_field"]
    assert all(result.passed for result in adversaries if result.kind != "perfect")
    sentences = problems(record_of(finished, examined))
    assert sentences == ["bias_field is not ranked beside fresh: Copies: wrong orientation."]


def test_every_entrant_is_shown_to_the_gates_with_the_real_volumes(bench, finished, monkeypatch):
    shown = []

    def judge(arrays):
        shown.append({name: len(volumes) for name, volumes in arrays.sets.items()})
        return (verdict("looks like nobody", passed=len(shown) % 2 == 0),)

    cohort = open_cohort(bench.cohort_folder)
    few = {name: ADVERSARIES[name] for name in FEW[:2]}
    record = gauntlet.run(bench, cohort, make_context("cpu"), most=10, adversaries=few, judge=judge)
    assert shown == [{"samples": 10, "reference": 10, "train": 10, "holdout": 10}] * 6
    assert [result.not_ranked for result in record.adversaries] == ["Copies: looks like nobody.", ""]


def record_of(finished, scores, side=32, **changes):
    honest, adversaries = placed(scores, side)
    changes |= {"honest": honest, "adversaries": adversaries, "metrics": ("mmd",)}
    return finished[1].model_copy(update=changes)


def test_problems_name_what_does_not_hold(finished):
    assert problems(record_of(finished, scored(5.0), side=64)) == []
    (cheats,) = problems(record_of(finished, scored(0.5)))
    assert cheats == "2 of 2 cheats are not held back: half_brains, repeats"
    at_64 = problems(record_of(finished, scored(0.5), side=64))
    assert [sentence.split(" are ")[0] for sentence in at_64] == [
        "2 of 2 cheats",
        "1 of 1 defects",
        "1 of 1 minorities of copies",
    ]
    nothing = problems(record_of(finished, unscored(), failures=("mmd: broke",)))
    assert nothing[1].startswith("blur is not ranked beside fresh: ")
    assert nothing[-2].startswith("fresh is not ranked: ") and nothing[-1] == "not computed: mmd: broke"


def test_the_table_says_place_probability_verdict_and_marks_losses_above_the_honest_ones(finished):
    def line(loss, name, side=32):
        table = gauntlet_table.table(record_of(finished, scored(loss), side))
        title = ADVERSARIES[name].title
        cells = (
            next(row for row in table.splitlines() if row.startswith(f"| {title} |")).strip("| ").split(" | ")
        )
        return cells[3:4] + cells[5:]

    assert line(5.0, "sphere") == ["5 of 5", "yes", "**5000**"]
    assert line(0.5, "sphere") == ["1 of 5", "no (not required)", "500"]
    assert line(0.5, "sphere", side=64) == ["1 of 5", "**no**", "500"]
    assert line(0.5, "repeats") == ["1 of 5", "**no**", "500"]


def test_no_problem_is_exit_code_0(bench, finished, monkeypatch):
    record = record_of(finished, scored(5.0))
    monkeypatch.setattr(gauntlet, "run", lambda *_, **__: record)
    result = call("selftest", "--gauntlet", "--bench", bench.folder)
    assert result.exit_code == 0 and "Problems" not in result.output
    record.model_copy(update={"command": finished[1].command}).write(bench.folder / "gauntlet.json")
