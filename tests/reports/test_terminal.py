"""The table of 80 columns: what stands in it, what it leaves out, colour, and a single entrant's list."""

import re

import click
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from mribench.cli import main
from mribench.metrics.gates.result import GateResult
from mribench.metrics.score import RealBaseline
from mribench.reports import leaderboard

WHY = "3 of 4 samples are copies of training volumes"
LONG = "a-long-name-of-a-laboratory-and-its-model-{}-of-a-seed"


@pytest.fixture
def make_board(make_entrant, make_scores):
    """`count` entrants, every seventh held back, a control, and the real baseline of FID-A from 8 to 12."""
    real = RealBaseline(value=10.0, low=8.0, high=12.0, n=4, how="held-out volumes")

    def entrant(name, quality, passed=True, **other):
        gate = GateResult(
            gate="copies", title="Copies", passed=passed, reason="none" if passed else WHY, level=0.005
        )
        scores = make_scores(quality, spread=0.1)
        scores["fid_a"] = scores["fid_a"].model_copy(update={"real_baseline": real})
        return make_entrant(name, scores=scores, gates=(gate,), **other)

    def make(count, name="m{}"):
        entrants = [entrant(name.format(i), 1 + i / 2, i % 7 != 3) for i in range(count)]
        return leaderboard.from_scores([*entrants, entrant("noise", 9, kind="control")])

    return make


@pytest.mark.parametrize("name", ["m{}", LONG, "名前名前名前名前名前名前-{}"])
@pytest.mark.parametrize("count", [2, 7, 20])
def test_it_fits_80_columns_and_ends_with_the_result(make_board, count, name):
    board = make_board(count, name)
    lines = click.unstyle(leaderboard.as_text(board)).splitlines()
    assert max(map(cell_len, lines)) <= 80
    rules = [i for i, line in enumerate(lines) if re.fullmatch("-+", line)]
    rows = [line for line in lines[rules[0] : rules[-1]] if line.strip("-")]
    assert len(rows) == count + 1 and len({row.split()[0] for row in rows}) == count + 1
    unwrapped = " ".join(" ".join(lines).split())
    assert unwrapped.endswith(" ".join([*board.warnings, board.headline]))
    assert unwrapped.count(WHY) == sum(i % 7 == 3 for i in range(count))


def test_marks_stand_for_intervals_and_best_and_what_is_left_out_is_named(make_board):
    text = click.unstyle(leaderboard.as_text(make_board(3)))
    row = {line.split()[0]: line for line in text.splitlines() if line.startswith("m")}
    assert "10.0^=" in row["m0"] and "15.0" in row["m1"] and "15.0=" not in row["m1"]
    assert "= the 95 % interval meets" in text and "* not comparable" not in text
    left_out = " ".join(text.split()).partition("More with --wide: ")[2]
    assert "intervals" in left_out and "copy rate (%)" in left_out and "FID-A," not in left_out
    assert "[9.8, 10.2]" in leaderboard.as_text(make_board(3), wide=True)


def test_colour_marks_the_best_the_held_back_and_the_result_and_nothing_else(make_board):
    lines = leaderboard.as_text(make_board(5)).splitlines()
    for line in lines:
        coloured = re.findall("\x1b\\[(\\d+)m(.*?)\x1b\\[0m", line)
        assert all("^" in text for code, text in coloured if code == "32")
        assert {code for code, _ in coloured} <= {"32", "31", "1"}
        assert bool(coloured) == (
            ("^" in line and "^ best" not in line) or WHY[:9] in line or "inner" in line
        )


def test_a_list_fits_80_columns_too(make_board):
    entrant = make_board(2).contestants[0].entrant
    board = leaderboard.from_scores([entrant])
    narrow, wide = (click.unstyle(leaderboard.as_text(board, wide)) for wide in (False, True))
    assert max(map(cell_len, narrow.splitlines())) <= 80
    assert "[8.0, 12.0]" in wide and "[8.0, 12.0]" not in narrow and "10.0" in narrow


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_no_color_is_obeyed(variable, coloured, monkeypatch):
    monkeypatch.setenv("NO_COLOR", variable)
    seen = []

    @click.command()
    def probe():
        click.echo(click.style("x", fg="red"))
        seen.append(click.get_current_context().color)

    monkeypatch.setitem(main.commands, "probe", probe)
    result = CliRunner().invoke(main, ["probe"], color=True)
    assert seen == [None if coloured else False]
    assert ("\x1b" in result.output) == coloured


def test_a_pipe_gets_no_escape_sequence(full_bench):
    result = CliRunner().invoke(main, ["evaluate", "--all", "--bench", str(full_bench.bench.folder)])
    assert "P(first)" in result.output and "\x1b" not in result.output
