"""Several processes prepare one cohort: the volumes and the record are those of one process."""

from __future__ import annotations

import json

import launch
import pytest
import small_cohort
from click.testing import CliRunner

from mribench.cli import main
from mribench.data.cohort import open_cohort
from mribench.data.grid import paper_grid
from mribench.data.nifti import write_nifti
from mribench.data.simulate import simulate


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Arguments that prepare seven scans, one of them torn; and the cohort that one process makes of them."""
    folder = tmp_path_factory.mktemp("scans")
    for subject in range(7):
        name = f"sub-{subject:02d}"
        path = folder / "in" / name / "anat" / f"{name}_T1w.nii.gz"
        write_nifti(path, simulate(5, subject, 32)[0], paper_grid(32).affine)
    path.write_bytes(path.read_bytes()[:-200])
    protocol = folder / "mine.toml"
    protocol.write_text(small_cohort.PROTOCOL)
    words = ["prepare", str(folder / "in"), "--protocol", str(protocol), "--bench"]
    end = CliRunner().invoke(main, [*words, str(folder / "bench")])
    assert end.exit_code == 0, end.stderr
    return words, open_cohort(folder / "bench" / "cohort")


@pytest.mark.slow
def test_the_cohort_is_that_of_one_process(prepared, tmp_path):
    words, alone = prepared
    ends = launch.mribench(2, *words, tmp_path / "bench")
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert ends[1][1:] == ("", "")
    cohort = open_cohort(tmp_path / "bench" / "cohort")
    assert cohort.digest == alone.digest and cohort.record.problems == alone.record.problems
    ledgers = [
        sorted(json.loads(line)["name"] for line in (each.folder / "ledger.jsonl").read_text().splitlines())
        for each in (cohort, alone)
    ]
    assert ledgers[0] == ledgers[1] and len(ledgers[0]) == 7
