"""The first lines of every output: one result that nothing below contradicts, and what must be known before it."""

import re

import click
import numpy as np
import pytest

from mribench.files import read_json, write_json
from mribench.metrics.gates.result import GateResult, Suspect
from mribench.reports import leaderboard
from mribench.reports.csv_tables import as_csv
from mribench.reports.fields import make_table
from mribench.reports.latex import as_tex
from mribench.reports.markdown import as_markdown
from mribench.reports.page.html import render
from mribench.reports.records import read_cohort

COPY = "3 of 4 samples are copies of training volumes"


def gate(passed, reason=COPY, **other):
    return GateResult(gate="copies", title="Copies", passed=passed, reason=reason, level=0.005, **other)


def row(board, name):
    return next(r for r in board.rows if r.entrant.name == name)


def outputs(board):
    table = make_table(board)
    return (
        click.unstyle(leaderboard.as_text(board, wide=True)),
        as_markdown(table),
        as_tex(table),
        as_csv(table),
    )


def one_line(text):
    return " ".join(click.unstyle(text).split())


def test_the_first_line_is_never_contradicted(make_entrant, make_scores):
    """Boards of any spread: the likeliest is named first and stands first, and only a winner is bold."""
    rng, winners = np.random.default_rng(0), 0
    for trial in range(25):
        names = [f"m{i}" for i in range(rng.integers(2, 6))]
        spread = float(10 ** rng.uniform(-3, 1))
        entrants = [make_entrant(n, scores=make_scores(rng.uniform(0.5, 3), spread=spread)) for n in names]
        if trial % 3 == 0:
            entrants.append(make_entrant("mean_volume", float(rng.uniform(0.3, 4)), kind="control"))
        board = leaderboard.from_scores(entrants)
        chances = [r.chances[0] for r in board.contestants]
        shown = [round(p, 2) for p in chances]
        first = board.contestants[0].entrant.name
        assert shown == sorted(shown, reverse=True)
        assert re.search(r"m\d", board.headline)[0] == first
        wins = board.headline.startswith("Winner")
        winners += wins
        assert [r.entrant.name for r in board.contestants if r.best] == ([first] if wins else [])
        assert not wins or shown[0] >= 0.95
        text, markdown, *_ = outputs(board)
        assert one_line(text).endswith(board.headline) and markdown.startswith("**")
        assert not re.search("best mean rank|Best of|truly first", text)
    assert 3 < winners < 22


def test_nobody_wins_who_is_not_better_than_the_mean_volume(make_entrant):
    models = [make_entrant("a", 1.0), make_entrant("b", 2.0)]
    beaten = leaderboard.from_scores([*models, make_entrant("mean_volume", 0.5, kind="control")])
    assert beaten.headline == (
        "No winner among 2 ranked models: a, the likeliest to be the best (100 %), is not better than the control "
        "mean_volume (probability of being better: 0 %; 95 % needed)."
    )
    assert not any(r.best for r in beaten.contestants)
    better = leaderboard.from_scores([*models, make_entrant("mean_volume", 1.5, kind="control")])
    assert better.headline.startswith("Winner among 2 ranked models: a,")


def other_anatomy(passed):
    return GateResult(
        gate="anatomy",
        title="Anatomy",
        passed=passed,
        reason="ventricles +1.3 SD",
        level=0.001,
        holds_back=False,
    )


def test_another_anatomy_is_placed_behind_those_that_have_people_s(make_entrant):
    entrants = [
        make_entrant(name, quality, gates=(gate(True, "fine"), other_anatomy(passed)))
        for name, quality, passed in (
            ("wide", 0.01, False),
            ("a", 1.0, True),
            ("b", 2.0, None),
            ("odd", 3.0, False),
        )
    ]
    board = leaderboard.from_scores(entrants)
    assert [(r.entrant.name, r.place) for r in board.contestants] == [
        ("a", 1),
        ("b", 2),
        ("wide", 3),
        ("odd", 4),
    ]
    chances = {r.entrant.name: r.chances for r in board.contestants}
    assert all(sum(each) == pytest.approx(1) and len(each) == 4 for each in chances.values())
    assert chances["wide"][:2] == (0, 0) == chances["a"][2:]
    assert board.warnings == tuple(
        f"Placed behind the others: {name}. Anatomy: ventricles +1.3 SD." for name in ("wide", "odd")
    )
    wide = next(
        line for line in leaderboard.as_text(board, wide=True).splitlines() if line.startswith("wide ")
    )
    assert "passed but for anatomy" in wide


def test_where_one_or_none_has_the_anatomy_of_people_all_are_placed(make_entrant):
    def places(**passed):
        quality = {"a": 1.0, "b": 2.0, "c": 3.0}
        board = leaderboard.from_scores(
            [make_entrant(n, q, gates=(other_anatomy(passed[n]),)) for n, q in quality.items()]
        )
        return {r.entrant.name: r.place for r in board.contestants}, board.warnings

    assert places(a=False, b=False, c=True)[0] == {"c": 1, "a": 2, "b": 3}
    assert places(a=False, b=False, c=False) == ({"a": 1, "b": 2, "c": 3}, ())


def test_a_failed_gate_stands_below_the_line_with_its_reason(make_entrant):
    cheat = make_entrant("cheat", 0.01, gates=(gate(False), gate(True, "fine")))
    models = [make_entrant(n, q, gates=(gate(True, "fine"),)) for n, q in (("a", 1.0), ("b", 2.0))]
    control = make_entrant("train_copy", 0.01, kind="control", gates=(gate(False),))
    board = leaderboard.from_scores([cheat, *models, control])
    assert [r.entrant.name for r in board.contestants] == ["a", "b", "cheat"]
    assert row(board, "cheat").place is None and not any(c.best or c.group for c in row(board, "cheat").cells)
    assert "a" in board.headline and board.warnings == (f"Not ranked: cheat. Copies: {COPY}.",)
    assert row(board, "train_copy").unranked == ""
    for text in outputs(board):
        assert COPY in text
    assert one_line(leaderboard.as_text(board)).endswith(f"{board.warnings[0]} {board.headline}")
    terminal = click.unstyle(leaderboard.as_text(board, wide=True)).splitlines()
    cheat_line, control_line = (
        next(line for line in terminal if line.startswith(f"{name} ")) for name in ("cheat", "train_copy")
    )
    assert "failed" in cheat_line and "failed" in control_line
    assert terminal[terminal.index(cheat_line) - 1].startswith("---")
    text = as_csv(make_table(board))
    assert "not ranked" in text.splitlines()[0] and f"Copies: {COPY}." in text


def test_gates_that_cannot_be_judged_do_not_hold_back_and_are_said(make_entrant):
    unsure = make_entrant(
        "a", 1.0, gates=(gate(None, "the reference is part of the training set"), gate(True, "fine"))
    )
    board = leaderboard.from_scores([unsure, make_entrant("b", 2.0)])
    assert row(board, "a").place == 1
    text = leaderboard.as_text(board, wide=True)
    assert (
        "1 of 2 not judged" in text
        and "Copies: not judged: the reference is part of the training set." in text
    )
    assert "No gates were judged for b." in text


def share_files(full_bench, name, other, count):
    """Give the first `count` samples of a run the digests of another's, or of a list of digests."""
    path = full_bench.bench.run(name).samples_record
    record = read_json(path)
    if isinstance(other, str):
        other = [f["digest"] for f in read_json(full_bench.bench.run(other).samples_record)["files"]]
    for file, digest in zip(record["files"][:count], other, strict=False):
        file["digest"] = digest
    write_json(path, record)
    scores = full_bench.bench.run(name).scores
    write_json(scores, {**read_json(scores), "samples_digest": None})


def test_the_same_samples_under_two_names_are_ranked_once_and_said_first(full_bench):
    full_bench.add("third", 0.9)
    share_files(full_bench, "ha_gan", "cdpm", 4)
    board = leaderboard.build(full_bench.bench)
    said = "cdpm and ha_gan are the same samples, volume for volume, and they are ranked as one."
    assert board.warnings == (said,) and "among 2 ranked models" in board.headline
    assert row(board, "cdpm").place == row(board, "ha_gan").place == 1
    assert len(row(board, "third").chances) == 2
    assert one_line(leaderboard.as_text(board)).endswith(f"{said} {board.headline}")
    assert said in render(full_bench.bench, read_cohort(full_bench.bench)[0], board)


def test_some_shared_samples_are_said_first(full_bench):
    share_files(full_bench, "ha_gan", "noise", 2)
    board = leaderboard.build(full_bench.bench)
    assert board.warnings == ("ha_gan and noise have 2 samples in common, voxel for voxel.",)


@pytest.mark.parametrize("role", ["reference", "holdout", "train"])
def test_samples_that_are_real_volumes_are_not_ranked(full_bench, role):
    share_files(full_bench, "cdpm", list(full_bench.cohort.set(role).digests), 1)
    board = leaderboard.build(full_bench.bench)
    said = f"1 of its 4 different samples are {role} volumes, voxel for voxel"
    assert row(board, "cdpm").place is None and board.warnings[0] == f"Not ranked: cDPM. {said}"


def test_trainings_that_differ_in_the_seed_are_one_entrant(full_bench):
    full_bench.add("cdpm-s1", 0.2, title="cDPM", record={"seed": 1})
    full_bench.add("cdpm-s2", 0.2, title="cDPM", record={"seed": 2, "config": {"size": 16, "width": 3}})
    board = leaderboard.build(full_bench.bench)
    assert "among 3 ranked models" in board.headline and "cDPM (2 trainings)" in board.headline
    assert row(board, "cdpm").chances == row(board, "cdpm-s1").chances != row(board, "cdpm-s2").chances
    assert row(board, "cdpm").together == "2 trainings, ranked as one: cdpm, cdpm-s1"
    assert "2 trainings, ranked as one" in as_csv(make_table(board))


def test_the_page_shows_the_suspects_of_a_failed_gate(full_bench):
    path = full_bench.bench.run("cdpm").scores
    names = full_bench.bench.run("cdpm").samples().names
    pair = Suspect(
        sample=names[1],
        sample_index=1,
        source="train",
        match="v2",
        match_index=2,
        how="mirrored",
        p_value=0.001,
    )
    moved = pair.model_copy(update={"match": "v9"})
    failed = gate(False, suspects=(pair, moved))
    write_json(path, {**read_json(path), "gates": [failed.model_dump(mode="json")]})
    board = leaderboard.build(full_bench.bench)
    page = render(full_bench.bench, read_cohort(full_bench.bench)[0], board)
    assert f"Copies: {names[1]} resembles v2 of train, mirrored, p = 0.001" in page
    assert "Number 2 of train is no longer v9" in page and f"Not ranked. Copies: {COPY}." in page


def test_a_start_from_weights_is_said_first_and_is_another_entrant_than_a_start_from_scratch(full_bench):
    start = {"name": "pretrained", "digest": "ab" * 32, "networks": ["ema"]}
    full_bench.add("cdpm-s1", 0.2, title="cDPM", record={"seed": 1, "start": start})
    board = leaderboard.build(full_bench.bench)
    said = "Trained on from weights that had seen other volumes before (see the cards): cDPM (cdpm-s1)."
    assert board.warnings == (said,)
    assert not row(board, "cdpm").together
    page = render(full_bench.bench, read_cohort(full_bench.bench)[0], board)
    assert said in page and "weights that come with mribench" in page and "abababababab" in page
