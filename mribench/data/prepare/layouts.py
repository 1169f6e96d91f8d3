"""What a scan is, and how archives lay out their T1 scans: one table of globs and patterns."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mribench.data.formats import DICOM_SUFFIXES, is_dicom, is_scan_name, scan_stem

STAGES = ("stripped", "registered")  # what may have been done to a scan before it came here
_IMAGE = r"\.(?:nii|nii\.gz|hdr|mgz)$"
_LABELS = ("subject", "session", "source", "name")
_ID_LENGTH = 100
_LOOKED_INTO = 200  # files whose first bytes are read in the search for DICOM


@dataclass(frozen=True)
class Scan:
    """One file of one subject; `name` is what may be written down (never absolute), `path` where it lies now.

    `source` is the site or data set, by which splits are stratified. `skipped` says why the scan is left out.
    `done`: stages ("stripped", "registered") that were done before.
    """

    path: Path
    name: str
    subject: str
    session: str = ""
    source: str = ""
    skipped: str | None = None
    done: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The subject as a file name that is safe everywhere and different for every subject."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", self.subject).lstrip(".-")[:_ID_LENGTH]
        if safe == self.subject:
            return safe
        return f"{safe}-{hashlib.sha256(repr(self.subject).encode()).hexdigest()[:8]}".lstrip("-")

    def labels(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"id": self.id, **{key: getattr(self, key) for key in _LABELS}}


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


def find(folder: Path) -> tuple[Layout, list[Scan]] | None:
    """The first layout of the table that fits the folder, and its scans; None when none fits."""
    for layout in LAYOUTS:
        if scans := list(_matches(folder, layout)):
            return layout, scans
    return None


def _candidates(folder: Path, globs: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    for glob in globs:
        for path in sorted(folder.glob(glob)):
            if not path.name.startswith(".") and _is_scan(path):
                yield path, path.relative_to(folder).as_posix()


def _matches(folder: Path, layout: Layout) -> Iterator[Scan]:
    for path, name in _candidates(folder, layout.globs):
        if match := layout.pattern.search(name):
            parts = match.groupdict()
            subject = scan_stem(parts["subject"]) if layout.name == "flat" else parts["subject"]
            site = parts.get("site")
            source = f"{layout.source}-{site}" if site else layout.source
            yield Scan(path, name, subject, parts.get("session") or "", source, done=layout.done)


def left_out(folder: Path, layout: Layout, scans: list[Scan]) -> dict[str, str]:
    """What gives none of `scans`, by name, and why: subjects' folders without one, and scans that do not fit `layout`.

    For a flat folder: its folders that hold scans.
    """
    filled = {scan.name.split("/")[0] for scan in scans}
    subjects = sorted(folder.glob(layout.folders)) if layout.folders else []
    reasons = {p.name: "without a T1 scan" for p in subjects if p.is_dir() and p.name not in filled}
    for _, name in _candidates(folder, layout.globs):
        reasons[name] = f"not taken: in the layout {layout.name} a T1 scan must have {layout.wanted}"
    for other in LAYOUTS:
        for scan in _matches(folder, other):
            reasons.setdefault(
                scan.name,
                f"laid out as {other.name}, but this folder was taken for {layout.name}. Prepare one layout at a "
                "time, or list both in a manifest",
            )
    if layout.name == "flat":
        for _, name in _candidates(folder, ("*/**/*",)):
            reasons[name.rpartition("/")[0]] = "not looked into: scans must lie directly in a flat folder"
    for scan in scans:
        reasons.pop(scan.name, None)
    return reasons


def _is_scan(path: Path) -> bool:
    """Not the image of a pair whose header is there: the header stands for both."""
    if not is_scan_name(path) or path.is_dir():
        return False
    return path.suffix.lower() != ".img" or not any(path.with_suffix(s).is_file() for s in (".hdr", ".HDR"))


def dicom_folders(folder: Path) -> list[str]:
    """Folders that hold DICOM files, relative to `folder` and sorted ("." for itself)."""
    folders, looked = set(), 0
    for parent, _, files in os.walk(folder):
        for name in sorted(files):
            path = Path(parent, name)
            named = path.suffix.lower() in DICOM_SUFFIXES
            if not named and ("." in name or looked >= _LOOKED_INTO):
                continue
            looked += not named
            if named or is_dicom(path):
                folders.add(Path(parent).relative_to(folder).as_posix())
                break
    return sorted(folders)
