"""How archives lay out their T1 scans: one table of globs and patterns that every layout goes through."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mribench.data.formats import DICOM_SUFFIXES, is_dicom, is_scan_name, scan_stem

STAGES = ("stripped", "registered")  # what may have been done to a scan before it came here
_IMAGE = r"\.(?:nii|nii\.gz|hdr|mgz)$"
_LOOKED_INTO = 200  # files whose first bytes are read in the search for DICOM


@dataclass(frozen=True)
class Layout:
    """Where scans lie, relative to the folder, and what the path says of them.

    `pattern` names the groups subject and perhaps session and site. `folders` finds the subjects' folders, so
    that one without a scan is told. `wanted` tells what a scan that is not taken should have. `done`: stages that
    are done; `prepared`: such a folder may also hold stripped scans in MNI152, and is taken without --raw.
    """

    name: str
    globs: tuple[str, ...]
    pattern: re.Pattern[str]
    source: str = ""
    folders: str = ""
    wanted: str = "that layout's file names"
    done: tuple[str, ...] = ()
    prepared: bool = False


@dataclass(frozen=True)
class Found:
    """One file of a layout."""

    path: Path
    name: str  # relative to the folder, with slashes
    subject: str
    session: str
    source: str


# From the archives' own descriptions; only BIDS and the flat folder were tried on downloads.
LAYOUTS = (
    Layout(
        "FreeSurfer",
        ("*/mri/brainmask.mgz",),
        re.compile(r"^(?P<subject>(?!fsaverage)[^/]+)/mri/brainmask\.mgz$"),
        wanted="the folder of a person, which fsaverage is not",
        done=("stripped",),
    ),
    Layout(
        "ADNI",
        ("*_S_*/*/*/*/*", "ADNI/*_S_*/*/*/*/*"),
        re.compile(
            r"(?:^|/)(?P<subject>\d{3}_S_\d{4,5})/(?![^/]*[Mm]ask)[^/]*(?i:MPR|MP-RAGE|MT1|SPGR)[^/]*/"
            r"(?P<session>\d{4}-\d\d-\d\d[^/]*)/[^/]+/[^/]+" + _IMAGE
        ),
        source="ADNI",
        wanted="SUBJECT/SEQUENCE/DATE/ID, where SEQUENCE names MPR, MPRAGE, MP-RAGE, MT1 or SPGR (T1) and no mask",
    ),
    Layout(
        "OASIS-1",
        (
            "OAS1_*_MR*/PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.*",
            "disc*/OAS1_*_MR*/PROCESSED/MPRAGE/T88_111/*_t88_masked_gfc.*",
        ),
        re.compile(r"(?:^|/)(?P<subject>OAS1_\d{4})_(?P<session>MR\d)/PROCESSED/.*" + _IMAGE),
        source="OASIS-1",
        done=("stripped",),  # registered too, but to the atlas T88, with an origin that Analyze does not keep
    ),
    Layout(
        "IXI",
        ("IXI*-T1.*",),
        re.compile(r"^(?P<subject>IXI\d+)-(?P<site>[A-Za-z]+)-\d+-T1" + _IMAGE),
        source="IXI",
        prepared=True,
    ),
    Layout(
        "BIDS",
        ("sub-*/anat/*_T1w.nii*", "sub-*/ses-*/anat/*_T1w.nii*"),
        re.compile(
            r"^(?P<subject>sub-[^/]+)/(?:(?P<session>ses-[^/]+)/)?anat/[^/]+_T1w\.nii(?:\.gz)?$", re.I
        ),
        folders="sub-*",
        prepared=True,
    ),
    Layout("flat", ("*",), re.compile(r"(?P<subject>[^/]+)$"), prepared=True),
)


def find(folder: Path) -> tuple[Layout, list[Found]] | None:
    """The first layout of the table that fits the folder, and its files; None when none fits."""
    for layout in LAYOUTS:
        if found := list(_matches(folder, layout)):
            return layout, found
    return None


def _candidates(folder: Path, globs: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    for glob in globs:
        for path in sorted(folder.glob(glob)):
            if not path.name.startswith(".") and _is_scan(path):
                yield path, path.relative_to(folder).as_posix()


def _matches(folder: Path, layout: Layout) -> Iterator[Found]:
    for path, name in _candidates(folder, layout.globs):
        if match := layout.pattern.search(name):
            parts = match.groupdict()
            subject = scan_stem(parts["subject"]) if layout.name == "flat" else parts["subject"]
            site = parts.get("site")
            source = f"{layout.source}-{site}" if site else layout.source
            yield Found(path, name, subject, parts.get("session") or "", source)


def misfits(folder: Path, layout: Layout, found: list[Found]) -> dict[str, str]:
    """Scans that lie where `layout` or another one has its scans, but do not fit `layout`; and why they are left out.

    For a flat folder: its folders that hold scans.
    """
    known = {one.name for one in found}
    reasons = {}
    for _, name in _candidates(folder, layout.globs):
        reasons[name] = f"not taken: in the layout {layout.name} a T1 scan must have {layout.wanted}"
    for other in LAYOUTS:
        for one in _matches(folder, other):
            reasons.setdefault(
                one.name,
                f"laid out as {other.name}, but this folder was taken for {layout.name}. Prepare one layout at a "
                "time, or list both in a manifest",
            )
    if layout.name == "flat":
        for _, name in _candidates(folder, ("*/**/*",)):
            reasons[name.rpartition("/")[0]] = "not looked into: scans must lie directly in a flat folder"
    return {name: reason for name, reason in reasons.items() if name not in known}


def _is_scan(path: Path) -> bool:
    """Not the image of a pair whose header is there: the header stands for both."""
    if not is_scan_name(path) or path.is_dir():
        return False
    return path.suffix.lower() != ".img" or not any(path.with_suffix(s).is_file() for s in (".hdr", ".HDR"))


def empty_folders(folder: Path, layout: Layout, found: list[Found]) -> list[str]:
    """Subjects' folders in which nothing was found."""
    if not layout.folders:
        return []
    known = {one.name.split("/")[0] for one in found}
    return sorted(p.name for p in folder.glob(layout.folders) if p.is_dir() and p.name not in known)


def dicom_folders(folder: Path) -> list[str]:
    """Folders that hold DICOM files, relative to `folder` and sorted ("." for itself)."""
    found, looked = set(), 0
    for parent, _, files in os.walk(folder):
        for name in sorted(files):
            path = Path(parent, name)
            named = path.suffix.lower() in DICOM_SUFFIXES
            if not named and ("." in name or looked >= _LOOKED_INTO):
                continue
            looked += not named
            if named or is_dicom(path):
                found.add(Path(parent).relative_to(folder).as_posix())
                break
    return sorted(found)
