"""Finding the T1 scans of an archive's folder or a manifest, and choosing one of each subject."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from mribench.data.formats import DICOM_ADVICE, digest_scan, scan_stem
from mribench.data.prepare.layouts import LAYOUTS, STAGES, Scan, dicom_folders, find, left_out
from mribench.errors import MribenchError, UsageError
from mribench.files import digest_json

_COLUMNS = ("path", "subject", "session", "source", "done")
_SPACE = re.compile(r"_space-([A-Za-z0-9]+)")
_DERIVED = re.compile(r"_(label-[A-Za-z0-9]+|desc-(?!preproc(?:_|\b))[A-Za-z0-9]+)")
_LONG = ".long."  # TIMEPOINT.long.BASE, as FreeSurfer's recon-all -long names its folders
_MASK_ENDINGS = ("_mask", "-mask", "_brain_mask", "_brainmask", "_bet_mask", "_desc-brain_mask", "")


def without_paths(text: str, scan: Scan, mask: Path | None = None) -> str:
    """A message as it may be written down: the scan by its name, other files beside it or the mask by theirs."""
    text = text.replace(str(scan.path), scan.name)
    for folder in {file.parent for file in (scan.path, mask) if file is not None} - {Path()}:
        for stated in (folder, folder.resolve()):
            text = text.replace(f"{stated}{os.sep}", "")
    return text


def discover(source: Path | None, manifest: Path | None = None, *, registered: bool = True) -> list[Scan]:
    """All scans, in order of subject; all but the first scan of a subject are marked as skipped.

    With `manifest` its rows are the scans. Otherwise the first layout of layouts.LAYOUTS that fits decides.
    The first scan is that of the first session, then of the first file name, where numbers count as numbers.
    `registered` says that they must be in MNI152 already. Raises UsageError when nothing can be found, for a
    folder of DICOM, for one subject under two sources, and for a folder together with a manifest.
    """
    if source is not None and manifest is not None:
        raise UsageError(
            f"prepare takes SRC or --manifest, but both are given: {source}, {manifest}. Leave one out."
        )
    if manifest is not None:
        scans = _from_manifest(Path(manifest))
    elif source is None or not Path(source).is_dir():
        given = f"{source} is no folder" if source else "neither is given"
        raise UsageError(f"prepare needs a folder or --manifest CSV, but {given}.")
    else:
        scans = _from_folder(Path(source), registered)
    if not scans:
        layouts = ", ".join(layout.name for layout in LAYOUTS[:-1])
        raise UsageError(
            f"{manifest or source} must hold scans: the layout of {layouts} (as in "
            "sub-*/[ses-*/]anat/*_T1w.nii.gz), or scans directly in the folder, or rows of a manifest. "
            "None was found."
        )
    _check_sources(scans)
    return _first_of_each_subject(scans)


def _from_folder(folder: Path, registered: bool) -> list[Scan]:
    fitting, dicom = find(folder), dicom_folders(folder)
    if fitting is None:
        if dicom:
            raise UsageError(f"{folder} holds {DICOM_ADVICE} (dcm2niix -z y -o OUT {folder}).")
        return []
    layout, scans = fitting
    if registered and not layout.prepared:
        raise UsageError(
            f"{folder} is a folder of {layout.name}, whose scans are not in MNI152. "
            "Add --raw, or give their stripped and registered versions in a manifest."
        )
    others = {**left_out(folder, layout, scans), **dict.fromkeys(dicom, DICOM_ADVICE)}
    if layout.name == "BIDS":
        scans = [replace(scan, skipped=_wrong_space(scan, scans, registered)) for scan in scans]
    elif layout.name == "FreeSurfer":
        scans = _one_person(scans)
    return [*scans, *(Scan(folder / n, n, n, skipped=reason) for n, reason in others.items())]


def _one_person(scans: list[Scan]) -> list[Scan]:
    """FreeSurfer's longitudinal folders: time points become sessions of one person; what is made of them is skipped."""
    base_of = dict(scan.subject.split(_LONG, 1) for scan in scans if _LONG in scan.subject)
    people = []
    for scan in scans:
        if _LONG in scan.subject:
            scan = replace(scan, skipped="a longitudinal run, made of a time point and its base")
        elif scan.subject in base_of.values() or scan.subject.endswith("_base"):
            scan = replace(scan, skipped="a base, made of all time points of a person")
        elif base := base_of.get(scan.subject):
            scan = replace(scan, subject=base, session=scan.subject)
        people.append(scan)
    return people


def _wrong_space(scan: Scan, scans: list[Scan], registered: bool) -> str | None:
    """Derivatives hold the same scan in several spaces; only MNI152 is the common one, and raw scans have none."""
    space = _SPACE.search(scan.path.name)
    if not registered:
        derived = _DERIVED.search(scan.path.name)
        kind = f"in the space {space[1]}" if space else f"a derivative ({derived[1]})" if derived else ""
        return f"{kind}, not a raw scan" if kind else None
    if space and not space[1].startswith("MNI"):
        return f"in the space {space[1]}, not MNI152"
    if not space and any("_space-MNI" in s.path.name and s.subject == scan.subject for s in scans):
        return "not in MNI152 space, of which the subject has another file"
    return None


def _check_sources(scans: list[Scan]) -> None:
    """One id in two data sets is hardly one person, and merging two people would lose one of them silently."""
    sources: dict[str, str] = {}
    for scan in scans:
        other = sources.setdefault(scan.subject, scan.source)
        if other != scan.source:
            raise UsageError(
                f"A subject must belong to one source, but {scan.subject!r} is in {other!r} and {scan.source!r}. "
                "Give two people two names in the manifest, or one person's scans one source."
            )


def mask_of(scan: Scan, folder: Path) -> Path:
    """The brain mask of a scan in `folder`: named after its relative path, its file or its subject.

    With one of the endings that mask programs add, in any format. Raises MribenchError when there is none or
    more than one.
    """
    beside = scan_stem(scan.name)
    for stem in dict.fromkeys((beside, PurePath(beside).name, scan.subject)):
        for ending in _MASK_ENDINGS:
            named = [f"{stem}{ending}{suffix}" for suffix in (".nii.gz", ".nii", ".mgz", ".hdr")]
            masks = [folder / name for name in named if (folder / name).is_file()]
            if len(masks) > 1:
                raise MribenchError(f"{scan.name} must have one mask, but {masks[0].name} and others fit.")
            if masks:
                return masks[0]
    raise MribenchError(
        f"{scan.name} must have a mask in --mask DIR, named {PurePath(beside).name}_mask.nii.gz or after its "
        f"relative path or its subject, but none was found."
    )


@dataclass(frozen=True)
class Input:
    """A chosen scan with its mask, and the SHA-256 of both files; "" stands for none, or one that cannot be read."""

    scan: Scan
    mask: Path | None = None
    digests: tuple[str, str] = ("", "")
    reason: str = ""  # why it cannot be used

    def identity(self) -> list[Any]:
        """What it is made from, as JSON."""
        scan = self.scan
        return [scan.name, scan.subject, scan.session, scan.source, scan.done, self.digests]


def identify(scans: Sequence[Scan], masks: Path | None = None) -> list[Input]:
    """The chosen scans, with their masks if such a folder is given; every byte of the files is read."""
    return [_identified(scan, masks) for scan in scans if not scan.skipped]


def _identified(scan: Scan, masks: Path | None) -> Input:
    mask, digests = None, ("", "")
    try:
        digests = digest_scan(scan.path), ""
        if masks:
            mask = mask_of(scan, masks)
            digests = digests[0], digest_scan(mask)
    except MribenchError as error:
        return Input(scan, mask, digests, without_paths(str(error), scan, mask))
    return Input(scan, mask, digests)


def digest_inputs(inputs: Sequence[Input]) -> str:
    """Identity of scans, labels, files and masks."""
    return digest_json([each.identity() for each in inputs])


def _from_manifest(manifest: Path) -> list[Scan]:
    scans: dict[Path, Scan] = {}
    for line, row in _rows(manifest):
        path, subject, session, source, done = ((row.get(column) or "").strip() for column in _COLUMNS)
        if not (path and subject):
            raise UsageError(f"{manifest} must give path and subject in every row, but line {line} does not.")
        if wrong := set(done.split()) - set(STAGES):
            raise UsageError(
                f"{manifest} must say what is done in the words {' and '.join(STAGES)}, but line {line} says "
                f"{', '.join(sorted(wrong))}."
            )
        name, stages = _relative_name(path), tuple(done.split())
        scan = Scan(manifest.parent / path, name, subject, session, source, done=stages)
        if scan.path in scans:
            raise UsageError(f"{manifest} must list every file once, but line {line} repeats {path!r}.")
        scans[scan.path] = scan
    return list(scans.values())


def _rows(manifest: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in _COLUMNS[:2] if column not in (reader.fieldnames or ())]
            if missing:
                raise UsageError(
                    f"{manifest} must be a CSV with the columns path, subject and, optionally, session, "
                    f"source and done; it has {reader.fieldnames}. Add {' and '.join(missing)}."
                )
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MribenchError(f"{manifest} must be a readable UTF-8 CSV, but: {error}.") from error


def _relative_name(path: str) -> str:
    pure = PurePath(path)
    return pure.name if pure.is_absolute() or ".." in pure.parts else pure.as_posix()


def _first_of_each_subject(scans: list[Scan]) -> list[Scan]:
    chosen: dict[str, Scan] = {}
    ordered = sorted(scans, key=lambda s: (_natural(s.subject), _natural(s.session), _natural(s.name)))
    for i, scan in enumerate(ordered):
        if scan.skipped:
            continue
        first = chosen.setdefault(scan.subject, scan)
        if first is not scan:
            ordered[i] = replace(scan, skipped=f"another scan of the subject, whose first is {first.name}")
    return ordered


def _natural(text: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key in which ses-2 comes before ses-10."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(part) if part.isdigit() else -1, part) for part in parts], text
