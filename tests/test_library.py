"""A bench and an evaluation as a Python program uses them: the results of the commands, in a program's forms."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import mribench
from mribench.bench.controls import CONTROLS
from mribench.cli import main
from mribench.errors import MribenchError, UsageError
from mribench.metrics.score import Missing


@pytest.fixture(scope="module")
def bench(tmp_path_factory, protocol_file):
    """A bench of few metrics, made, trained, sampled and scored by methods alone."""
    folder = tmp_path_factory.mktemp("library")
    protocol = folder / "few.toml"
    protocol.write_text(
        re.sub("metrics = .*", 'metrics = ["ms_ssim", "copy_rate"]', protocol_file.read_text())
    )
    bench = mribench.Bench(folder / "bench", str(protocol), device="cpu")
    assert bench.train("cdpm") == "cdpm" and bench.train("cdpm", name="wide", seed=1, base=16) == "wide-s1"
    bench.generate()
    return bench


@pytest.fixture(scope="module")
def scored(bench):
    return bench.evaluate()


def test_methods_do_what_commands_do(bench, scored):
    assert set(bench.runs) == {"cdpm", "wide-s1", *CONTROLS} == set(scored)
    for command in (["train", "cdpm"], ["generate", "--all"], ["evaluate", "--all"]):
        result = CliRunner().invoke(main, [*command, "--bench", str(bench.folder)])
        assert result.exit_code == 0 and "up to date" in result.stderr and "done" not in result.stderr
    record = json.loads((bench.folder / "runs/cdpm/scores.json").read_text())
    assert scored["cdpm"].score("ms_ssim").value == record["scores"][0]["value"]
    assert scored["cdpm"].gates and scored["train_copy"].score("copy_rate").value >= 0.5


def test_a_training_can_be_followed_and_raised(bench):
    assert [step.seen for step in bench.training("cdpm")][-1] == 12
    bench.train("cdpm", name="short", budget=2)
    bench.train("cdpm", name="short", budget=4, raise_budget=True)
    assert bench.training("short")[-1].seen == 4


def test_another_sampler_is_another_entrant(bench):
    assert "cdpm-3" in bench.generate("cdpm", name="cdpm-3", calls=3)
    assert bench.generate("cdpm-3") == bench.generate("cdpm-3")
    with pytest.raises(UsageError, match="base cannot change after training"):
        bench.generate("cdpm", name="cdpm-4", base=4)


def test_the_report_and_its_table(bench, scored):
    page = bench.report()
    assert page.name == "index.html" and "cDPM" in page.read_text()
    table = bench.leaderboard()
    written = pd.read_csv(page.with_name("table.csv")).set_index("run")
    pd.testing.assert_frame_equal(table, written)
    assert table.loc["cdpm", "MS-SSIM (%)"] == pytest.approx(
        100 * scored["cdpm"].score("ms_ssim").value, rel=1e-4
    )


def test_a_folder_becomes_an_entrant(bench):
    bench.add(bench.folder / "runs/blurred_real/samples", "theirs")
    (theirs,) = bench.evaluate("theirs").values()
    assert theirs.name == "theirs" and theirs.score("ms_ssim").n["samples"] == 4


def test_what_fails_is_raised_once_and_the_rest_is_kept(bench, scored):
    (bench.folder / "runs/noise/samples/000000.nii.gz").write_bytes(b"torn")
    for _ in range(2):
        with pytest.raises(MribenchError, match="these failed:\n  noise: ") as caught:
            bench.evaluate()
        assert str(caught.value).count("noise: ") == 1
    assert "cdpm" in bench.evaluate("cdpm")
    bench.generate()
    assert "noise" in bench.evaluate()


def test_a_bench_is_never_made_unasked(tmp_path):
    with pytest.raises(UsageError, match=r"there is no bench\.json"):
        mribench.Bench(tmp_path / "typo")
    with pytest.raises(UsageError, match="no run 'cdpn'"):
        mribench.Bench(tmp_path / "new", "demo").generate("cdpn")


def test_a_result_becomes_a_frame_json_and_a_figure(scored):
    evaluation = scored["cdpm"]
    frame = evaluation.to_frame()
    assert list(frame.index[:1]) == ["ms_ssim"]
    row, score = frame.loc["ms_ssim"], evaluation.score("ms_ssim")
    assert (row["value"], row["low"], row["high"]) == (score.value, score.low, score.high)
    assert row["signature"] == score.signature and "samples=4" in row["n"]
    again = mribench.Evaluation.from_json(evaluation.to_json())
    assert again == evaluation and json.loads(evaluation.to_json())["schema"] == "mribench/scores/2"
    figure = evaluation.figure()
    assert len(figure.axes) == len(evaluation.scores)
    (dot,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dot.get_xdata()[0] == score.value
    with pytest.raises(MribenchError, match="must hold a JSON object"):
        mribench.Evaluation.from_json("[")


def test_a_notebook_shows_scores_failed_gates_and_what_is_missing_as_text(scored):
    shown = scored["train_copy"]._repr_html_()
    assert "<table" in shown and "MS-SSIM" in shown and "Gate copies failed" in shown
    absent = Missing(metric="fid_a", reason="<b>no</b> weights")
    alone = mribench.Evaluation([], [absent])
    assert alone._repr_html_() == "<p>No fid_a: &lt;b&gt;no&lt;/b&gt; weights</p>"
    frame = alone.to_frame()
    assert frame.loc["fid_a", "notes"] == "<b>no</b> weights" and np.isnan(frame.loc["fid_a", "value"])
    assert alone.figure() and alone.failures
