import math

import pytest

from mribench.files import read_json, write_json, write_text
from mribench.metrics.score import RealBaseline
from mribench.metrics.statistics.jackknife import half_width
from mribench.reports import leaderboard
from mribench.reports.page import words


def row(board, name):
    return next(r for r in board.rows if r.entrant.name == name)


def bold(board):
    return {(r.entrant.name, c.column.key) for r in board.rows for c in r.cells if c.best}


def test_best_of_each_ranked_column_and_places(make_entrant):
    board = leaderboard.from_scores([make_entrant("b", 2.0), make_entrant("a", 1.0), make_entrant("c", 3.0)])
    assert bold(board) == {("a", k) for k in ("ms_ssim", "gap", "mmd", "fid_a", "fid_c", "fid_s", "anatomy")}
    assert [(r.entrant.name, r.place) for r in board.contestants] == [("a", 1), ("b", 2), ("c", 3)]


def test_the_excess_is_that_of_the_worst_family_and_fid_is_one(make_entrant, make_score):
    """Real baselines of 1 with a standard deviation of 2: the excess of a value v is (v - 1) / 2."""
    half = 2 * half_width(1.0, math.inf)
    baseline = RealBaseline(value=1.0, low=1 - half, high=1 + half, n=4, how="real")

    def scores(mmd, *fids):
        values = {"mmd": mmd, **dict(zip(("fid_a", "fid_c", "fid_s"), fids, strict=True))}
        fields = {"better": "lower", "target": None, "real_baseline": baseline}
        return {m: make_score(m, value, **fields) for m, value in values.items()}

    x, y = make_entrant("x", scores=scores(9.0, 3, 5, 7)), make_entrant("y", scores=scores(5.0, 3, 5, 13))
    board = leaderboard.from_scores([x, y])
    assert row(board, "x").excess == pytest.approx((9 - 1) / 2) and row(board, "x").decisive == "MMD"
    assert row(board, "y").excess == pytest.approx((7 - 1) / 2) and row(board, "y").decisive == "FID"
    assert [r.entrant.name for r in board.contestants] == ["y", "x"]


def test_distance_to_the_target_decides_not_the_value(make_entrant, make_scores, make_score):
    near, far = make_scores(1.0), make_scores(1.0)
    near["ms_ssim"], far["ms_ssim"] = make_score("ms_ssim", 0.79), make_score("ms_ssim", 0.9)
    near["mmd"], far["mmd"] = make_score("mmd", -0.001), make_score("mmd", -0.5)
    near["memorisation"], far["memorisation"] = (
        make_score("memorisation", 0.45),
        make_score("memorisation", 0.2),
    )
    board = leaderboard.from_scores([make_entrant("far", scores=far), make_entrant("near", scores=near)])
    assert {("near", k) for k in ("ms_ssim", "gap", "mmd")} <= bold(board)
    assert row(board, "near").cell("gap").text == "1.00"
    assert row(board, "near").cell("ms_ssim").text == "79.00"
    assert row(board, "near").cell("mmd").text.startswith("-1.0")  # times 1000
    assert board.real_ms_ssim == "80.00"


def test_controls_are_below_and_never_ranked(make_entrant):
    entrants = [
        make_entrant("noise", 0.001, kind="control"),
        make_entrant("real_heldout", 0.0001, kind="control"),
        make_entrant("a", 1.0),
        make_entrant("b", 2.0),
    ]
    board = leaderboard.from_scores(entrants)
    assert [r.entrant.name for r in board.controls] == ["real_heldout", "noise"]
    assert all(r.place is None for r in board.controls)
    assert {name for name, _ in bold(board)} == {"a"}


def test_one_model_is_not_ranked_and_the_board_says_so(make_entrant):
    board = leaderboard.from_scores([make_entrant("a"), make_entrant("noise", 5.0, kind="control")])
    assert not bold(board) and board.contestants[0].place is None
    assert board.headline == words.ONE_MODEL


def test_ties_are_shown(make_entrant, make_scores):
    clear = [make_entrant(name, scores=make_scores(q, spread=1e-6)) for name, q in (("a", 1.0), ("b", 1.1))]
    vague = [make_entrant(name, scores=make_scores(q, spread=5.0)) for name, q in (("a", 1.0), ("b", 1.1))]
    one, other = (row(leaderboard.from_scores(clear), name).cell("fid_a") for name in "ab")
    assert (one.group, other.group) == ("a", "b")
    one, other = (row(leaderboard.from_scores(vague), name).cell("fid_a") for name in "ab")
    assert (one.group, other.group) == ("a", "a")


def test_letters_are_for_what_is_ranked(make_entrant, make_scores):
    slab = make_entrant("slab", scores=make_scores(0.1), slab=(5, 11))
    few = make_entrant("few", scores=make_scores(0.1, samples=3))
    control = make_entrant("noise", kind="control")
    models = [make_entrant("a", 1.0), make_entrant("b", 2.0)]
    board = leaderboard.from_scores([*models, slab, few, control], {"samples": 4})
    lettered = {(r.entrant.name, c.column.key) for r in board.rows for c in r.cells if c.group}
    assert lettered == {(n, c.key) for n in "ab" for c in board.columns if c.family}
    assert not any(c.group for c in leaderboard.from_scores([make_entrant("a")]).contestants[0].cells)


def test_holm_counts_all_pairs(make_entrant, make_scores):
    """A difference that one pair shows is none among the 21 pairs of seven models."""
    fids = [10.0, 10.08, *[10.08] * 5]
    entrants = [
        make_entrant(f"m{i}", scores=make_scores(fid / 10, spread=0.02)) for i, fid in enumerate(fids)
    ]
    two = leaderboard.from_scores(entrants[:2])
    assert row(two, "m1").cell("fid_a").group == "b"
    seven = leaderboard.from_scores(entrants)
    assert all(row(seven, f"m{i}").cell("fid_a").group == "a" for i in range(1, 7))


def test_odds_of_ranks(make_entrant, make_scores):
    vague = [make_entrant(n, scores=make_scores(q, spread=5.0)) for n, q in (("a", 1.0), ("b", 1.1))]
    worst = make_entrant("worst", scores=make_scores(1e6, spread=5.0))
    board = leaderboard.from_scores([*vague, worst])
    chances = {r.entrant.name: r.chances for r in board.contestants}
    assert all(len(c) == 3 and sum(c) == pytest.approx(1) for c in chances.values())
    assert chances["a"][0] == pytest.approx(0.5, abs=0.2) and chances["worst"] == (0, 0, 1)
    assert board.headline.startswith("No winner among 3 ranked models") and "worst" not in board.headline
    clear = leaderboard.from_scores([make_entrant("a", 1.0), make_entrant("b", 2.0)])
    assert clear.headline == "Winner among 2 ranked models: a, the best with a probability of 100 %."


def test_the_unranked_have_no_odds(make_entrant, make_scores):
    slab = make_entrant("slab", scores=make_scores(0.1), slab=(5, 11))
    control = make_entrant("noise", kind="control")
    board = leaderboard.from_scores([make_entrant("a", 1.0), make_entrant("b", 2.0), slab, control])
    assert row(board, "slab").chances == row(board, "noise").chances == ()
    assert len(row(board, "a").chances) == 2


def test_a_score_without_all_its_replicates_is_damaged(make_entrant, make_scores):
    scores = make_scores(1.0)
    cut = {**scores["ms_ssim"].replicates, "samples": (0.9,)}
    scores["ms_ssim"] = scores["ms_ssim"].model_copy(update={"replicates": cut})
    board = leaderboard.from_scores(
        [make_entrant("torn", scores=scores), make_entrant("a"), make_entrant("b")]
    )
    cell = row(board, "torn").cell("ms_ssim")
    assert "replicates over samples are incomplete" in cell.absent and row(board, "torn").place is None


def test_a_slab_is_compared_in_the_fid_of_the_central_axial_slice_alone(make_entrant, make_scores):
    missing = {f"fid_{c}{kind}": "no whole slices" for c in "cs" for kind in ("", "_central")}
    missing["anatomy"] = "no whole volumes"
    scores = {m: s for m, s in make_scores(0.01).items() if m not in missing}
    slab = make_entrant("slab", scores=scores, missing=missing, slab=(5, 11))
    board = leaderboard.from_scores([make_entrant("a", 1.0), make_entrant("b", 2.0), slab])
    cells = {c.column.key: c for c in row(board, "slab").cells}
    assert {k for k, c in cells.items() if c.why_not} == {
        "ms_ssim",
        "gap",
        "mmd",
        "fid_a",
        "memorisation",
        "copy_rate",
        "slice_consistency",
    }
    assert "axial slices 5 to 10" in cells["mmd"].why_not[0]
    assert cells["fid_a_central"].comparable and not cells["fid_a_central"].best
    assert cells["fid_c"].text == "–" and cells["fid_c"].absent == "no whole slices"
    assert row(board, "slab").place is None and "FID" in row(board, "slab").unranked
    assert row(board, "a").place == 1
    assert set(board.footnotes) >= {"no whole slices", cells["mmd"].why_not[0]}


def test_other_numbers_of_volumes_are_starred(make_entrant, make_scores):
    few = make_entrant("few", scores=make_scores(0.1, samples=3))
    board = leaderboard.from_scores(
        [few, make_entrant("a", 1.0), make_entrant("b", 2.0)], {"samples": 4, "reference": 3}
    )
    assert row(board, "few").cell("mmd").why_not == ("3 samples instead of 4",)
    assert row(board, "few").place is None
    assert bold(board) and {name for name, _ in bold(board)} == {"a"}


def test_another_definition_is_starred_and_says_what_differs(make_entrant, make_scores, make_score):
    scores = make_scores(0.1)
    scores["mmd"] = make_score("mmd", 0.0, version="v2", settings="extractor:b")
    board = leaderboard.from_scores(
        [make_entrant("odd", scores=scores), make_entrant("a", 1.0), make_entrant("b", 2.0)]
    )
    (why,) = row(board, "odd").cell("mmd").why_not
    assert "extractor b instead of a" in why
    assert row(board, "odd").cell("fid_a").best and row(board, "a").cell("mmd").best
    assert row(board, "odd").place is None


def test_a_family_that_nobody_has_leaves_the_ranks(make_entrant, make_scores):
    def without(quality):
        return {m: s for m, s in make_scores(quality).items() if m != "anatomy"}

    entrants = [
        make_entrant(n, scores=without(q), missing={"anatomy": "too coarse"}) for n, q in (("a", 1), ("b", 2))
    ]
    board = leaderboard.from_scores(entrants)
    assert row(board, "a").place == 1
    assert any("anatomy" in remark for remark in board.remarks)
    assert row(board, "a").cell("anatomy").absent == "too coarse"


def test_notes_of_a_score_stay_without_an_asterisk(make_entrant, make_scores):
    board = leaderboard.from_scores(
        [make_entrant("a", scores=make_scores(1.0, notes=("2 of 4 are duplicates",)))]
    )
    cell = row(board, "a").cell("mmd")
    assert cell.comparable and board.footnotes[board.numbers(cell.remarks)[0] - 1] == "2 of 4 are duplicates"


def test_intervals_end_where_the_quantity_ends(make_entrant, make_scores):
    board = leaderboard.from_scores([make_entrant("a", scores=make_scores(0.5, spread=0.7))])
    assert row(board, "a").cell("copy_rate").texts[1:] == ("0.0", "100.0")
    assert row(board, "a").cell("gap").texts[1] == "0.00"


def test_a_bench_is_read_whole(full_bench):
    board = leaderboard.build(full_bench.bench)
    assert [r.entrant.name for r in board.contestants] == ["cdpm", "ha_gan", "dpm3d"]
    assert [r.entrant.label for r in board.controls] == ["Held-out real volumes", "Uniform noise"]
    assert not any(r.entrant.problems or r.entrant.doubts for r in board.rows)
    assert row(board, "cdpm").entrant.parameters == 1234
    assert (row(board, "cdpm").entrant.seen, row(board, "cdpm").entrant.seconds_per_volume) == (16, 0.5)
    assert any("train_copy" in remark for remark in board.remarks)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("run.json", None, "no run.json"),
        ("run.json", "{torn", "readable JSON"),
        ("run.json", '{"kind": "wizard"}', "kind"),
        ("run.json", "[1, 2]", "run.json must hold a JSON object"),
        ("samples.json", None, "no samples.json"),
        ("samples.json", '{"made_from": "", "files": 3, "shape": [1, 2, 3]}', "files"),
        ("samples.json", '{"made_from": "", "files": [], "shape": [1, 2, 3]}', "no samples yet"),
        ("scores.json", None, "mribench evaluate ha_gan"),
        ("scores.json", "", "readable JSON"),
        ("nearest.json", "null", "nearest.json must hold a JSON object"),
        ("weights.json", '{"digest": 1}', "weights.json must be a record"),
        ("training.jsonl", "a\nb\n", "no training records"),
    ],
)
def test_unreadable_runs_stay_visible_with_the_reason(full_bench, file, content, said):
    path = full_bench.bench.run("ha_gan").folder / file
    path.unlink() if content is None else write_text(path, content)
    board = leaderboard.build(full_bench.bench)
    problems = " ".join(row(board, "ha_gan").entrant.problems)
    assert said in problems
    assert str(full_bench.bench.folder) not in problems
    if file in ("run.json", "samples.json", "scores.json"):
        assert row(board, "ha_gan").place is None
        assert said in leaderboard.as_text(board)


def test_one_damaged_score_costs_one_cell(full_bench):
    path = full_bench.bench.run("ha_gan").scores
    record = read_json(path)
    record["scores"][1]["value"] = "plenty"
    write_json(path, record)
    cells = row(leaderboard.build(full_bench.bench), "ha_gan").cells
    assert "damaged" in cells[2].absent and cells[2].text == "–"
    assert cells[3].comparable


@pytest.mark.parametrize(
    ("file", "key", "said"),
    [
        ("scores.json", "protocol_digest", "another protocol"),
        ("scores.json", "samples_digest", "changed since they were scored"),
        ("scores.json", "reference_digest", "other reference volumes"),
        ("run.json", "cohort_digest", "another cohort"),
    ],
)
def test_scores_of_something_else_are_starred(full_bench, file, key, said):
    path = full_bench.bench.run("cdpm").folder / file
    write_json(path, {**read_json(path), key: "0" * 64})
    board = leaderboard.build(full_bench.bench)
    assert all(said in cell.why_not[0] for cell in row(board, "cdpm").cells)
    assert row(board, "cdpm").place is None and not {c for c in bold(board) if c[0] == "cdpm"}


def test_training_records_of_a_resumed_run(full_bench):
    run = full_bench.bench.run("cdpm")
    text = run.progress.read_text()
    repeated = text.splitlines()[3].replace('"loss": 0.25', '"loss": 7.5')
    write_text(run.progress, text + repeated + '\n{"step": 9, "se')
    entrant = row(leaderboard.build(full_bench.bench), "cdpm").entrant
    assert not entrant.problems
    assert [r.step for r in entrant.training] == list(range(1, 9))
    assert entrant.training[3].losses["loss"] == 7.5


def test_without_a_cohort_there_is_still_a_table(full_bench):
    (full_bench.bench.cohort_folder / "volumes.json").unlink()
    assert row(leaderboard.build(full_bench.bench), "cdpm").place == 1
