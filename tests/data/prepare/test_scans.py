"""Finding scans: BIDS, derivatives, flat folders, manifests; one scan of each subject."""

import re
from pathlib import Path

import pytest

from mribench.data.prepare.layouts import Scan
from mribench.data.prepare.scans import discover
from mribench.errors import MribenchError, UsageError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def chosen(scans):
    return {scan.subject: scan.name for scan in scans if not scan.skipped}


def test_bids_sessions_and_runs(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/func/sub-01_bold.nii.gz",
        "sub-02/ses-10/anat/sub-02_ses-10_T1w.nii",
        "sub-02/ses-2/anat/sub-02_ses-2_run-2_T1w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_run-1_T1w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_run-1_T1w.json",
        "sub-03/anat/notes.txt",
        "participants.tsv",
        "stray.nii.gz",
    )
    scans = discover(tmp_path)
    assert chosen(scans) == {
        "sub-01": "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02": "sub-02/ses-2/anat/sub-02_ses-2_run-1_T1w.nii.gz",
    }
    assert "laid out as flat" in next(scan.skipped for scan in scans if scan.name == "stray.nii.gz")
    scans = [scan for scan in scans if scan.name != "stray.nii.gz"]
    assert [scan.session for scan in scans] == ["", "ses-2", "ses-2", "ses-10", ""]
    assert scans[1].path.is_file()
    assert all("first is" in scan.skipped for scan in scans[2:4])
    assert (scans[4].name, scans[4].skipped) == ("sub-03", "without a T1 scan")


def test_derivatives_are_taken_in_mni_space(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_res-2_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_space-fsnative_desc-preproc_T1w.nii.gz",
        "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
    )
    scans = discover(tmp_path)
    assert len(scans) == 4
    assert chosen(scans)["sub-01"] == "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz"
    reasons = " ".join(scan.skipped or "" for scan in scans)
    assert "fsnative" in reasons and "not in MNI152" in reasons and "another scan" in reasons


def test_a_flat_folder_is_one_subject_a_file(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.nii", "a.nii.gz", ".hidden.nii.gz", "readme.md", "deeper/c.nii.gz")
    scans = discover(tmp_path)
    assert [(s.subject, s.name, s.skipped is None) for s in scans] == [
        ("a", "a.nii", True),
        ("a", "a.nii.gz", False),
        ("b", "b.nii.gz", True),
        ("deeper", "deeper", False),
    ]


def manifest(tmp_path, *lines, encoding="utf-8"):
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def test_a_manifest_names_subjects_sessions_and_sources(tmp_path):
    absolute = tmp_path / "elsewhere" / "z.nii.gz"
    path = manifest(
        tmp_path,
        "subject,path,age,source,session",
        "s1,scans/one.nii.gz,70,ADNI,2",
        f's2,"{absolute}",71, SRI ,',
        "s1,scans/two.nii.gz,70,ADNI,1",
        "s3,../up/three.nii.gz,60,,",
        encoding="utf-8-sig",
    )
    scans = discover(None, path)
    assert chosen(scans) == {"s1": "scans/two.nii.gz", "s2": "z.nii.gz", "s3": "three.nii.gz"}
    assert [s.source for s in scans] == ["ADNI", "ADNI", "SRI", ""]
    assert scans[0].path == tmp_path / "scans/two.nii.gz" and scans[2].path == absolute
    assert scans[1].skipped == "another scan of the subject, whose first is scans/two.nii.gz"


def test_wrong_manifests_say_what_is_wrong(tmp_path):
    with pytest.raises(UsageError, match="Add subject"):
        discover(None, manifest(tmp_path, "path,age", "a.nii,3"))
    with pytest.raises(UsageError, match="line 3"):
        discover(None, manifest(tmp_path, "path,subject", "a.nii,1", "b.nii,"))
    with pytest.raises(UsageError, match=r"line 3 repeats 'a.nii'"):
        discover(None, manifest(tmp_path, "path,subject", "a.nii,1", "a.nii,2"))
    with pytest.raises(UsageError, match="None was found"):
        discover(None, manifest(tmp_path, "path,subject"))
    with pytest.raises(MribenchError, match="UTF-8"):
        discover(None, manifest(tmp_path, "path,subject", "é.nii,1", encoding="latin-1"))
    with pytest.raises(MribenchError, match=r"nowhere\.csv"):
        discover(None, tmp_path / "nowhere.csv")


def test_nothing_to_find(tmp_path):
    with pytest.raises(UsageError, match="None was found"):
        discover(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        discover(tmp_path / "nowhere")


def test_ids_are_safe_file_names_and_distinct():
    wild = ["../../etc", "a b", "a_b", "Ünï", "a\nb", "x" * 300, ".hidden", "a/b", "日本", "-rf", ".."]
    ids = [Scan(Path("x.nii"), "x.nii", subject).id for subject in wild]
    assert len(set(ids)) == len(ids)
    for one in ids:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}", one)
    assert Scan(Path("x.nii"), "x.nii", "sub-01", "ses-1").id == "sub-01"
