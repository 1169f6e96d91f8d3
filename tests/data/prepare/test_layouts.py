"""The table of archives: what is found where, whose it is, and what is left out."""

import pytest

from mribench.data.prepare.layouts import Scan
from mribench.data.prepare.scans import discover, mask_of
from mribench.errors import MribenchError, UsageError

ADNI = "{}/MPR__GradWarp__B1_Correction__N3__Scaled/{}_09_30_00.0/{}/ADNI_MR_{}.nii"


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def raw(folder):
    return discover(folder, registered=False)


def chosen(scans):
    return {scan.subject: scan.name for scan in scans if not scan.skipped}


@pytest.mark.parametrize("above", ["", "ADNI/"])
def test_adni_takes_the_first_visit(tmp_path, above):
    late = ADNI.format("002_S_0295", "2007-11-02", "S40000", "I2")
    early = ADNI.format("002_S_0295", "2006-04-18", "S13408", "I1")
    other = ADNI.format("941_S_10001", "2006-05-01", "I99", "I3")
    mask = "002_S_0295/HippoMask/2005-01-01_00_00_00.0/I1/mask.nii"
    touch(tmp_path, *(above + name for name in (late, early, other, mask)))
    scans = raw(tmp_path)
    assert chosen(scans) == {"002_S_0295": above + early, "941_S_10001": above + other}
    assert len(scans) == 4 and "MP-RAGE, MT1 or SPGR" in {s.name: s.skipped for s in scans}[above + mask]
    scans = [scan for scan in scans if scan.name != above + mask]
    assert {scan.source for scan in scans} == {"ADNI"}
    assert scans[0].session.startswith("2006-04-18") and "first is" in scans[1].skipped
    assert scans[0].done == ()


def test_oasis_1_is_taken_stripped_and_its_repeats_are_left_out(tmp_path):
    def name(subject, visit):
        return f"OAS1_{subject}_{visit}/PROCESSED/MPRAGE/T88_111/OAS1_{subject}_{visit}_mpr_n4_anon_111_t88"

    first, again = f"disc1/{name('0001', 'MR1')}", f"disc2/{name('0001', 'MR2')}"
    touch(tmp_path, *(f"{n}_masked_gfc.{s}" for n in (first, again) for s in ("hdr", "img")))
    touch(tmp_path, f"{first}_gfc.hdr", f"{first}_gfc.img")
    scans = raw(tmp_path)
    assert chosen(scans) == {"OAS1_0001": f"{first}_masked_gfc.hdr"}
    assert len(scans) == 2 and scans[0].done == ("stripped",)
    assert [scan.session for scan in scans] == ["MR1", "MR2"]


def test_ixi_is_stratified_by_its_hospitals(tmp_path):
    touch(tmp_path, "IXI002-Guys-0828-T1.nii.gz", "IXI012-HH-1211-T1.nii.gz", "IXI012-HH-1211-T2.nii.gz")
    scans = raw(tmp_path)
    taken = [(scan.subject, scan.source) for scan in scans if not scan.skipped]
    assert "laid out as flat" in scans[-1].skipped and "IXI012-HH-1211-T2" in scans[-1].name
    assert taken == [("IXI002", "IXI-Guys"), ("IXI012", "IXI-HH")]
    assert chosen(discover(tmp_path)) == chosen(scans)


def test_freesurfer_gives_its_stripped_brains(tmp_path):
    touch(tmp_path, "bert/mri/brainmask.mgz", "bert/mri/orig.mgz", "fsaverage/mri/brainmask.mgz")
    scans = raw(tmp_path)
    assert chosen(scans) == {"bert": "bert/mri/brainmask.mgz"} and scans[0].done == ("stripped",)
    assert "fsaverage is not" in scans[1].skipped
    with pytest.raises(UsageError, match="FreeSurfer, whose scans are not in MNI152"):
        discover(tmp_path)


def test_freesurfer_time_points_are_one_person(tmp_path):
    folders = ["t1", "t2", "t2.long.anna", "t1.long.anna", "anna", "bob_base", "carl"]
    touch(tmp_path, *(f"{name}/mri/brainmask.mgz" for name in folders))
    scans = raw(tmp_path)
    assert chosen(scans) == {"anna": "t1/mri/brainmask.mgz", "carl": "carl/mri/brainmask.mgz"}
    reasons = {scan.name.split("/")[0]: scan.skipped for scan in scans if scan.skipped}
    assert "whose first is t1" in reasons["t2"] and "a longitudinal run" in reasons["t2.long.anna"]
    assert "a base" in reasons["anna"] and "a base" in reasons["bob_base"] and len(scans) == 7


@pytest.mark.parametrize(
    ("sequence", "taken"),
    [("MPRAGE", True), ("Accelerated_SAG_IR-SPGR", True), ("MP-RAGE_REPEAT", True), ("mprage", True),
     ("Axial_PD-T2_TSE", False), ("Field_Mapping", False)],
)  # fmt: skip
def test_adni_takes_t1_sequences_only(tmp_path, sequence, taken):
    name = f"002_S_0295/{sequence}/2006-04-18_08_20_30.0/S13408/x.nii"
    touch(tmp_path, name, ADNI.format("003_S_0001", "2006-04-18", "S1", "I1"))
    scans = raw(tmp_path)
    assert (name in chosen(scans).values()) == taken and name in {scan.name for scan in scans}


def test_two_layouts_in_one_folder_are_told(tmp_path):
    touch(tmp_path, "bert/mri/brainmask.mgz", "sub-01/anat/sub-01_T1w.nii.gz", "carl.nii.gz")
    scans = raw(tmp_path)
    assert chosen(scans) == {"bert": "bert/mri/brainmask.mgz"}
    reasons = {scan.name: scan.skipped for scan in scans if scan.skipped}
    assert "laid out as BIDS, but this folder was taken for Free" in reasons["sub-01/anat/sub-01_T1w.nii.gz"]
    assert "laid out as flat" in reasons["carl.nii.gz"] and len(scans) == 3


def test_folders_with_scans_in_a_flat_folder_are_told_once(tmp_path):
    touch(tmp_path, "a.nii.gz", "more/b.nii.gz", "more/c.nii.gz", "more/deep/d.mgz", "text/readme.txt")
    skipped = {scan.name: scan.skipped for scan in raw(tmp_path) if scan.skipped}
    assert skipped.keys() == {"more", "more/deep"} and "directly in a flat folder" in skipped["more"]


def test_raw_bids_leaves_out_labels_and_derivatives(tmp_path):
    kinds = ["", "_desc-preproc", "_desc-brain", "_label-GM", "_desc-preprocessed"]
    touch(tmp_path, *(f"sub-0{i}/anat/sub-0{i}{kind}_T1w.nii.gz" for i, kind in enumerate(kinds)))
    scans = raw(tmp_path)
    assert set(chosen(scans)) == {"sub-00", "sub-01"}
    assert scans[2].skipped == "a derivative (desc-brain), not a raw scan" and "label-GM" in scans[3].skipped


def test_raw_bids_takes_no_derivative_and_tells_of_subjects_without_a_scan(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz",
        "sub-02/func/sub-02_bold.nii.gz",
    )
    scans = raw(tmp_path)
    assert chosen(scans) == {"sub-01": "sub-01/anat/sub-01_T1w.nii.gz"}
    reasons = {scan.name: scan.skipped for scan in scans if scan.skipped}
    assert "not a raw scan" in " ".join(reasons.values()) and reasons["sub-02"] == "without a T1 scan"


def test_a_flat_folder_takes_every_format_and_a_pair_once(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.mgz", "c.hdr", "c.img", "d.img", ".e.nii", "notes.txt")
    assert chosen(raw(tmp_path)) == {"a": "a.nii.gz", "b": "b.mgz", "c": "c.hdr", "d": "d.img"}


def test_dicom_folders_are_named_with_the_tool_to_use(tmp_path):
    touch(tmp_path, "one/a.dcm", "two/deep/b.MR.IMA")
    with pytest.raises(UsageError, match="dcm2niix -z y"):
        raw(tmp_path)
    touch(tmp_path, "person.nii.gz")
    scans = raw(tmp_path)
    assert chosen(scans) == {"person": "person.nii.gz"}
    assert sorted(s.name for s in scans if "dcm2niix" in (s.skipped or "")) == ["one", "two/deep"]


def test_an_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(UsageError, match="OASIS-1, IXI, BIDS"):
        raw(tmp_path)


def manifest(tmp_path, *rows):
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["path,subject,session,source,done", *rows]) + "\n")
    return path


def test_one_id_in_two_sources_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'001' is in 'ADNI' and 'SRI'"):
        discover(None, manifest(tmp_path, "a.nii,001,,ADNI,", "b.nii,001,,SRI,"))


def test_a_manifest_says_what_was_done(tmp_path):
    scans = discover(None, manifest(tmp_path, "a.nii,1,,,stripped registered", "b.nii,2,,,"))
    assert [scan.done for scan in scans] == [("stripped", "registered"), ()]
    with pytest.raises(UsageError, match="line 2 says deskulled"):
        discover(None, manifest(tmp_path, "a.nii,1,,,deskulled"))


def test_masks_are_found_by_path_name_or_subject(tmp_path):
    scan = Scan(tmp_path / "x.nii.gz", "sub-1/anat/x.nii.gz", "sub-1")
    with pytest.raises(MribenchError, match=r"x_mask\.nii\.gz"):
        mask_of(scan, tmp_path)
    for name in ("sub-1_brainmask.mgz", "x_bet_mask.nii.gz", "sub-1/anat/x_mask.nii"):
        touch(tmp_path, name)
        assert mask_of(scan, tmp_path) == tmp_path / name
    touch(tmp_path, "sub-1/anat/x_mask.nii.gz")
    with pytest.raises(MribenchError, match="must have one mask"):
        mask_of(scan, tmp_path)
