"""What does not travel: names and pictures of real volumes."""

from __future__ import annotations

import re
import shutil

import pytest
from click.testing import CliRunner

from mribench.bench.bundles import REFERENCE, read_bundle, write_bundle
from mribench.bench.folder import open_bench
from mribench.bench.records import ScoresRecord
from mribench.cli import main
from mribench.data.cohort import open_cohort
from mribench.files import read_json, write_json
from mribench.metrics.gates.result import GateResult, Suspect
from mribench.reports.discretion import WITHHELD, NameRemover
from mribench.reports.export import bundle_of
from mribench.reports.page.html import write_report


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def names_in(bench):
    record = open_cohort(bench.cohort_folder).record
    return {volume.name for volume in (*record.volumes, *record.problems)}


@pytest.fixture
def indiscreet(laboratories, tmp_path):
    """A bench whose every sentence names a real volume, and an entrant that a gate takes for a copy."""
    shutil.copytree(laboratories[2].folder, tmp_path / "bench")
    bench = open_bench(tmp_path / "bench")
    for run in bench.runs():
        record = ScoresRecord.read(run.scores)
        name = "sub-train-101"
        suspect = Suspect(sample="000003.nii.gz", sample_index=3, source="train", match=name, match_index=1)
        gates = tuple(
            GateResult(
                gate=gate, title=gate, passed=False if run.name == "theirs" else None, level=0.1,
                reason=f"see /home/alice/scans/x.nii and {name}.npy", suspects=(suspect,),
            )
            for gate in ("copies", "identical")
        )  # fmt: skip
        scores = tuple(
            s.model_copy(update={"notes": (f"cohort/volumes/{name}.npy is odd",)}) for s in record.scores
        )
        missing = ({"metric": "fid_a", "reason": f"'{name}' failed"},)
        record.model_copy(update={"gates": gates, "scores": scores}).write(run.scores)
        value = read_json(run.scores)
        value.pop("sha256")
        write_json(run.scores, {**value, "missing": missing})
    return bench


def test_no_name_of_a_real_volume_and_no_path_travels(indiscreet, tmp_path):
    write_bundle(tmp_path / "x.zip", bundle_of(indiscreet))
    content = (tmp_path / "x.zip").read_bytes()
    assert not [name for name in names_in(indiscreet) if name.encode() in content]
    assert b"alice" not in content and b"(a real volume)" in content
    gate = read_bundle(tmp_path / "x.zip").record.entrants[0].gates[0]
    assert (gate.suspects[0].sample_index, gate.suspects[0].match, gate.suspects[0].match_index) == (
        3,
        "",
        None,
    )


def test_pictures_of_real_volumes_and_of_copies_travel_only_on_request(indiscreet):
    assert {name.split("/")[1] for name in bundle_of(indiscreet).pictures} == {"ours"}
    shown = {name.split("/")[1] for name in bundle_of(indiscreet, real_pictures=True).pictures}
    assert shown == {"ours", "theirs", REFERENCE}


def test_a_bench_with_a_torn_score_is_not_exported(indiscreet):
    path = indiscreet.run("ours").scores
    value = read_json(path)
    value["scores"][0]["replicates"]["samples"].pop()
    write_json(path, value)
    end = call("export", "--bench", indiscreet.folder)
    assert end.exit_code == 1 and "scores.ms_ssim.replicates.samples" in end.output
    assert "evaluate ours --overwrite" in end.output


def test_short_and_spaced_names_are_found_and_words_are_kept():
    class Fake:
        class record:
            volumes = [type("V", (), {"name": n, "record": {}}) for n in ("s1", "Ann Lee", "IXI002-Guys")]
            problems = ()

    clean = NameRemover(Fake)
    assert clean("volume s1, not s12, of Ann Lee: 'x/IXI002-Guys.nii' and/or 0.5") == (
        "volume (a real volume) not s12, of (a real volume): '(a real volume)' and/or 0.5"
    )


def test_the_report_without_real_pictures_shows_and_names_nobody(full_bench):
    names = [volume.name for volume in full_bench.cohort.record.volumes[2:]]  # v0 and v1 are versions, too
    for run in full_bench.bench.runs():
        value = read_json(run.scores)
        copies = {"gate": "copies", "title": "Copies", "passed": True, "reason": "none", "level": 0.1}
        write_json(run.scores, {**value, "gates": [copies]})
    with_people = write_report(full_bench.bench).read_text()
    page = write_report(full_bench.bench, real_pictures=False).read_text()
    assert named_in(with_people, [*names, "sub-09"]) == {"v2", "sub-09"}
    assert WITHHELD in page and not named_in(page, [*names, "sub-09"])
    noise = uris(with_people, "noise ")
    assert noise and set(noise) <= set(uris(page, "noise "))
    assert uris(with_people, "real_heldout ") and not uris(page, "real_heldout ")
    assert uris(with_people, "Reference") and not uris(page, "Reference")


def named_in(page, names):
    """The names that stand in the text of a page, as words."""
    text = re.sub(r"data:[^\"]+|<script>.*?</script>", "", page, flags=re.DOTALL)
    return {name for name in names if re.search(rf"(?<![\w-]){name}(?![\w-])", text)}


def uris(page, alt):
    """Pictures of the page whose alternative text begins like this."""
    return re.findall(rf'src="(data:image/[^"]+)"[^>]* alt="{alt}', page)
