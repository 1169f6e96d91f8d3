"""Finding the T1 scans of a BIDS tree, a flat folder or a manifest, and choosing one of each subject."""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from mribench.data.nifti import is_nifti_name, stem
from mribench.errors import MribenchError, UsageError

log = logging.getLogger(__name__)

_COLUMNS = ("path", "subject", "session", "source")
_SPACE = re.compile(r"_space-([A-Za-z0-9]+)")
_ID_LENGTH = 100


@dataclass(frozen=True)
class Scan:
    """One file of one subject; `name` is what may be written down (never absolute), `path` where it lies now.

    `source` is the site or data set, by which splits are stratified. `skipped` says why the scan is left out.
    """

    path: Path
    name: str
    subject: str
    session: str = ""
    source: str = ""
    skipped: str | None = None

    @property
    def id(self) -> str:
        """The subject as a file name that is safe everywhere and different for every subject."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", self.subject).lstrip(".-")[:_ID_LENGTH]
        if safe == self.subject:
            return safe
        return f"{safe}-{hashlib.sha256(repr(self.subject).encode()).hexdigest()[:8]}".lstrip("-")


def discover(source: Path | None, manifest: Path | None = None) -> list[Scan]:
    """All scans, in order of subject; all but the first scan of a subject are marked as skipped.

    With `manifest` its rows are the scans. Otherwise `source` is a BIDS tree when it holds `sub-*` folders,
    and else a flat folder in which every file is a subject. The first scan is that of the first session, then
    of the first file name, where numbers count as numbers. Raises UsageError when nothing can be found.
    """
    if manifest is not None:
        found = _from_manifest(Path(manifest))
    elif source is None or not Path(source).is_dir():
        raise UsageError(f"prepare needs a folder or --manifest CSV, but {source} is no folder.")
    else:
        found = _from_bids(Path(source)) or _from_flat(Path(source))
    if not found:
        raise UsageError(
            f"{manifest or source} must hold scans: sub-*/[ses-*/]anat/*_T1w.nii.gz, or *.nii and *.nii.gz "
            "directly in the folder, or rows of a manifest. None was found."
        )
    return _first_of_each_subject(found)


def _from_bids(folder: Path) -> list[Scan]:
    scans = []
    for subject in sorted(p for p in folder.glob("sub-*") if p.is_dir()):
        files = [*subject.glob("anat/*_T1w.nii*"), *subject.glob("ses-*/anat/*_T1w.nii*")]
        files = [file for file in files if is_nifti_name(file)]
        if not files:
            log.warning("%s holds no anat/*_T1w.nii.gz and is left out.", subject.name)
        for file in files:
            session = file.parent.parent.name if file.parent.parent != subject else ""
            name = file.relative_to(folder).as_posix()
            scans.append(Scan(file, name, subject.name, session, skipped=_wrong_space(file, files)))
    return scans


def _wrong_space(file: Path, siblings: list[Path]) -> str | None:
    """Derivatives hold the same scan in several spaces; only MNI152 is the common one."""
    space = _SPACE.search(file.name)
    if space and not space[1].startswith("MNI"):
        return f"in the space {space[1]}, not MNI152"
    if not space and any("_space-MNI" in other.name for other in siblings):
        return "not in MNI152 space, of which the subject has another file"
    return None


def _from_flat(folder: Path) -> list[Scan]:
    files = [p for p in folder.iterdir() if is_nifti_name(p) and not p.name.startswith(".")]
    return [Scan(file, file.name, stem(file)) for file in files]


def _from_manifest(manifest: Path) -> list[Scan]:
    scans: dict[Path, Scan] = {}
    for line, row in _rows(manifest):
        path, subject, session, source = ((row.get(column) or "").strip() for column in _COLUMNS)
        if not (path and subject):
            raise UsageError(f"{manifest} must give path and subject in every row, but line {line} does not.")
        scan = Scan(manifest.parent / path, _relative_name(path), subject, session, source)
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
                    f"{manifest} must be a CSV with the columns path, subject and, optionally, session "
                    f"and source; it has {reader.fieldnames}. Add {' and '.join(missing)}."
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
