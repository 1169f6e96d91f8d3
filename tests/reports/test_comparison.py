"""Bundles of several laboratories: paired tests, what is comparable, contradictions, changes, the pages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mribench.bench.bundles import read_bundle, write_bundle
from mribench.bench.records import ScoresRecord
from mribench.cli import main
from mribench.data.cohort import open_cohort
from mribench.errors import MribenchError
from mribench.metrics.statistics.comparison import p_value
from mribench.reports.comparison import compare
from mribench.reports.export import open_sources
from mribench.reports.joint import check_contradictions


def test_paired_tests_from_bundles_alone_are_those_of_the_joint_bench(laboratories, travelled):
    first, second, joint = laboratories
    assert open_cohort(first.cohort_folder).digest != open_cohort(second.cohort_folder).digest
    scores = [
        {score.metric: score for score in ScoresRecord.read(joint.run(name).scores).scores}
        for name in ("ours", "theirs")
    ]
    comparison = compare([read_bundle(path) for path in travelled])
    assert {test.metric for test in comparison.tests} == {"ms_ssim", "mmd_voxel"}
    for test in comparison.tests:
        expected = p_value(*(each[test.metric] for each in scores))
        assert (test.first, test.second) == ("ours", "theirs")
        assert test.p == pytest.approx(expected, rel=1e-9, abs=1e-9) and 0 < test.p <= 1
        assert test.p_holm == pytest.approx(test.p)  # one pair


def test_the_journey_costs_no_bit_of_a_score(laboratories, travelled):
    record = ScoresRecord.read(laboratories[0].run("ours").scores)
    assert read_bundle(travelled[0]).record.entrants[0].scores == record.scores


def test_scores_that_use_other_training_volumes_are_not_compared_and_it_is_said_why(travelled):
    comparison = compare([read_bundle(path) for path in travelled])
    apart = [group for group in comparison.groups if group.why_apart]
    assert {group.metric for group in apart} == {"memorisation"}
    assert "other train volumes" in apart[0].why_apart
    unequal = {aspect.title for aspect in comparison.aspects if not aspect.equal}
    assert unequal == {"train volumes"}


def changed(bundle, **update):
    """A bundle whose first entrant has another first score."""
    entrant = bundle.record.entrants[0]
    scores = (entrant.scores[0].model_copy(update=update), *entrant.scores[1:])
    entrants = (entrant.model_copy(update={"scores": scores}), *bundle.record.entrants[1:])
    return replace(bundle, label="liar", record=bundle.record.model_copy(update={"entrants": entrants}))


def test_two_bundles_that_claim_other_scores_of_the_same_samples_are_refused(travelled):
    bundle = read_bundle(travelled[0])
    score = bundle.record.entrants[0].scores[0]
    with pytest.raises(MribenchError, match=r"a \(ours\) and liar \(ours\).*scores\.ms_ssim\.value is"):
        check_contradictions([bundle, changed(bundle, value=score.value + (score.high - score.low))])
    check_contradictions([bundle, changed(bundle, value=score.value + 1e-4 * (score.high - score.low))])
    check_contradictions([bundle, changed(bundle, value=0.0, version="other")])  # of another definition


def test_scores_that_cannot_be_of_one_definition_are_refused_and_not_compared(travelled):
    bundle = read_bundle(travelled[0])
    replicates = {"samples": bundle.record.entrants[0].scores[0].replicates["samples"]}
    for update, field in (({"replicates": replicates}, "replicates"), ({"better": "lower"}, "better")):
        with pytest.raises(
            MribenchError, match=rf"scores\.ms_ssim\.{field} is .* in a \(ours\) and .* in liar"
        ):
            compare([bundle, changed(bundle, **update)])


def test_what_changed_between_two_reports_is_said(travelled):
    bundle = read_bundle(travelled[0])
    assert compare([bundle, replace(bundle, label="later")]).changes == ()
    digests = {**bundle.record.entrants[0].scores[0].digests, "samples": "new"}
    entrant = bundle.record.entrants[0]
    scores = tuple(s.model_copy(update={"value": 0.5, "digests": digests}) for s in entrant.scores[:1])
    files = entrant.samples.model_copy(update={"files": ()})
    later = entrant.model_copy(update={"scores": scores, "samples": files})
    extra = entrant.model_copy(update={"name": "more"})
    record = bundle.record.model_copy(update={"entrants": (later, extra)})
    changes = {
        (c.subject, c.what): c for c in compare([bundle, replace(bundle, label="b", record=record)]).changes
    }
    assert ("ours", "MS-SSIM") in changes and changes["ours", "samples"].after == "new"
    assert changes["more", "entrant"].before == "absent"
    assert changes["ours", "memorisation"].after == "absent"


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def test_commands_write_bundle_page_and_site(laboratories, travelled, tmp_path):
    first, second, _ = laboratories
    end = call("export", "--bench", first.folder, "--out", tmp_path / "in" / "a.zip")
    assert end.exit_code == 0, end.output
    shutil.copy(travelled[1], tmp_path / "in" / "b.zip")
    end = call("compare", tmp_path / "in" / "a.zip", second.folder, "--out", tmp_path / "c.html", "--json")
    assert end.exit_code == 0, end.output
    assert json.loads(end.stdout)["tests"] and "Paired tests" in (tmp_path / "c.html").read_text()
    ((_, board),) = compare(open_sources([tmp_path / "in" / "a.zip", second.folder])).boards
    assert end.stderr.startswith("Reference volumes ") and "\nmodel " in end.stderr
    assert " ".join(end.stderr.split()).endswith(board.headline)
    end = call("leaderboard", tmp_path / "in", "--out", tmp_path / "site")
    assert end.exit_code == 0, end.output
    page = (tmp_path / "site" / "index.html").read_text()
    assert "ours" in page and "theirs" in page and "<script" not in page and "://" not in page
    (tmp_path / "in" / "c.zip").write_bytes(b"nothing")
    end = call("leaderboard", tmp_path / "in", "--out", tmp_path / "site")
    assert end.exit_code == 1 and "c.zip" in end.output and "Traceback" not in end.output


def test_several_references_give_a_page_each(travelled, tmp_path):
    bundle = read_bundle(travelled[0])
    sets = {**bundle.record.cohort.sets}
    sets["reference"] = sets["reference"].model_copy(update={"digest": "0" * 64})
    cohort = bundle.record.cohort.model_copy(update={"sets": sets})
    other = replace(bundle, label="b", record=bundle.record.model_copy(update={"cohort": cohort}))
    for name, each in (("a", bundle), ("b", other)):
        write_bundle(tmp_path / f"{name}.zip", each)
    end = call("compare", tmp_path / "a.zip", tmp_path / "b.zip", "--out", tmp_path / "c.html")
    assert "No common leaderboard: the reference volumes of all sources differ." in end.stderr
    end = call("leaderboard", tmp_path, "--out", tmp_path / "site")
    assert end.exit_code == 0, end.output
    assert len(list((tmp_path / "site").glob("shared-*.html"))) == 2
    assert (tmp_path / "site" / "index.html").read_text().count('<a href="shared-') == 2


def test_texts_of_strangers_stay_text(travelled, rewritten, tmp_path):
    evil = "<script>alert(1)</script>\"'=cmd|\u202e"

    def change(value):
        entrant = value["entrants"][0]
        entrant["run"]["title"] = evil
        entrant["scores"][0]["title"] = evil
        entrant["missing"] = [{"metric": evil, "reason": evil}]
        value["versions"] = {evil: evil}
        value["left_out"] = [{"name": evil, "reason": evil}]

    rewritten(travelled[0], change, tmp_path / "evil.zip")
    shutil.copy(travelled[1], tmp_path / "b.zip")
    assert call("leaderboard", tmp_path, "--out", tmp_path / "site").exit_code == 0
    end = call("compare", tmp_path / "evil.zip", tmp_path / "b.zip", "--out", tmp_path / "site" / "c.html")
    assert end.exit_code == 0, end.output
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text()
        assert "<script" not in text and "&lt;script&gt;" in text and "\u202e" not in text
