"""A cohort from one's own files, through the command line: roles, resume, what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_cohort
from click.testing import CliRunner

from mribench.bench.cohort import start_cohort
from mribench.bench.folder import start_bench
from mribench.bench.protocol import load_protocol
from mribench.cli import main
from mribench.commands.prepare import prepare_cohort
from mribench.data.cohort import open_cohort
from mribench.data.grid import paper_grid
from mribench.data.nifti import write_nifti
from mribench.data.prepare.builder import LEDGER
from mribench.data.prepare.own import Request
from mribench.data.simulate import simulate
from mribench.errors import UsageError


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Seven subjects in a BIDS tree; the file of the last is torn."""
    folder = tmp_path_factory.mktemp("bids")
    for i in range(7):
        path = folder / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_T1w.nii.gz"
        write_nifti(path, simulate(5, i, 32)[0], paper_grid(32).affine)
    path.write_bytes(path.read_bytes()[:-200])
    return folder


@pytest.fixture
def protocol(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(small_cohort.PROTOCOL)
    return path


def test_prepare_gives_every_subject_one_role_and_names_what_it_left_out(scans, protocol, tmp_path):
    bench = tmp_path / "bench"
    arguments = ["prepare", str(scans), "--bench", str(bench), "--protocol", str(protocol)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "left out" in result.stderr and "sub-06" in result.stderr
    cohort = open_cohort(bench / "cohort")
    sets = {role: cohort.set(role) for role in ("train", "reference", "holdout")}
    assert {role: len(one) for role, one in sets.items()} == {"train": 2, "reference": 2, "holdout": 2}
    assert len({name for one in sets.values() for name in one.names}) == 6
    assert str(scans) not in (bench / "cohort" / "volumes.json").read_text()
    assert sets["train"].stack().max() <= 1 and not cohort.altered()
    assert "up to date" in CliRunner().invoke(main, arguments).stderr


def test_prepared_voxels_are_those_of_the_file_on_the_protocols_grid(scans, protocol, tmp_path):
    _, cohort, _ = prepare_cohort(tmp_path / "b", str(protocol), Request(scans), False, lambda *_: None)
    train = cohort.set("train")
    expected = simulate(5, int(train.names[0][-2:]), 16)[0]
    assert np.corrcoef(train[0].ravel(), expected.ravel())[0, 1] > 0.97


def test_a_killed_preparation_goes_on_where_it_stopped(scans, protocol, tmp_path, monkeypatch):
    def stop(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_cohort(tmp_path / "b", str(protocol), Request(scans), False, stop)
    ledger = tmp_path / "b" / "cohort" / LEDGER
    with open(ledger, "a") as file:
        file.write('{"torn')
    written = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "b" / "cohort" / "volumes").iterdir()}
    assert len(written) == 3
    prepare_cohort(tmp_path / "b", str(protocol), Request(scans), False, lambda *_: None)
    later = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "b" / "cohort" / "volumes").iterdir()}
    assert len(later) == 6 and written.items() <= later.items()
    unbroken = prepare_cohort(tmp_path / "c", str(protocol), Request(scans), False, lambda *_: None)[1]
    assert open_cohort(tmp_path / "b" / "cohort").digest == unbroken.digest


def test_reference_of_train_is_the_papers_way(scans, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        small_cohort.PROTOCOL.replace("holdout = 2", "holdout = 0\nreference_from_train = true").replace(
            "train = 2", "train = 6"
        )
    )
    cohort = prepare_cohort(tmp_path / "b", str(path), Request(scans), False, lambda *_: None)[1]
    assert len(cohort.set("train")) == 6 and len(cohort.set("holdout")) == 0
    assert set(cohort.set("reference").names) < set(cohort.set("train").names)


def test_too_few_subjects_and_wrong_protocols_are_refused(scans, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(small_cohort.PROTOCOL.replace("holdout = 2", "holdout = 9"))
    with pytest.raises(UsageError, match="The roles need"):
        prepare_cohort(tmp_path / "b", str(path), Request(scans), False, lambda *_: None)
    with pytest.raises(UsageError, match="takes no own volumes"):
        prepare_cohort(tmp_path / "c", "demo", Request(scans), False, lambda *_: None)
    with pytest.raises(UsageError, match="mribench prepare SRC"):
        bench = start_bench(tmp_path / "d", "peng2023", False)
        start_cohort(bench, lambda *_: None)


def test_too_few_scans_are_refused_before_any_is_worked_on(scans, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(small_cohort.PROTOCOL.replace("holdout = 2", "holdout = 9"))
    with pytest.raises(UsageError, match="The roles need 12 subjects"):
        prepare_cohort(tmp_path / "b", str(path), Request(scans), False, lambda *_: None)
    assert not (tmp_path / "b" / "cohort").exists()


def test_a_damaged_volume_is_made_again_by_the_same_command(scans, protocol, tmp_path):
    arguments = (tmp_path / "b", str(protocol), Request(scans), False, lambda *_: None)
    _, first, _ = prepare_cohort(*arguments)
    path = first.folder / "volumes" / f"{first.set('train').names[0]}.npy"
    content = path.read_bytes()
    path.write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
    assert len(first.altered()) == 1
    _, again, new = prepare_cohort(*arguments)
    assert new and again.digest == first.digest and path.read_bytes() == content
    path.unlink()
    nothing = (tmp_path / "b", None, Request(None), False, lambda *_: None)
    with pytest.raises(UsageError, match="Name the scans again"):
        prepare_cohort(*nothing)


def test_a_manifest_needs_no_folder(scans, protocol, tmp_path):
    rows = [f"sub-{i:02d}/anat/sub-{i:02d}_T1w.nii.gz,s{i},site{i % 2}" for i in range(6)]
    manifest = scans / "list.csv"
    manifest.write_text("path,subject,source\n" + "\n".join(rows))
    arguments = ["prepare", "--manifest", str(manifest), "--bench", str(tmp_path / "b")]
    result = CliRunner().invoke(main, [*arguments, "--protocol", str(protocol)])
    manifest.unlink()
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "b" / "cohort" / "volumes.json").read_text())
    sources = [(v["roles"][0], v["record"]["source"]) for v in record["volumes"]]
    assert sorted(sources) == sorted(
        (r, s) for r in ("train", "reference", "holdout") for s in ("site0", "site1")
    )
    assert load_protocol(str(protocol)).cohort.voxels.size == record["grid"]["size"]


def test_nothing_to_prepare_leaves_no_bench_behind(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (None, tmp_path / "empty"):
        with pytest.raises(UsageError, match=r"neither is given|None was found"):
            prepare_cohort(tmp_path / "bench", None, Request(source), False, lambda *_: None)
        assert not (tmp_path / "bench").exists()
