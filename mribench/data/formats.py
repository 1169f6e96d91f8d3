"""Scans in the formats of archives: NIfTI, Analyze (or NIfTI) header and image pairs, FreeSurfer's MGH and MGZ."""

from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Pair

from mribench.data.nifti import (
    UNCHECKED_BYTES,
    NiftiVolume,
    canonical,
    check_complete,
    check_inflation,
    check_meaning,
    check_memory,
    drain,
    explained,
    is_nifti_name,
    one_volume,
    read_nifti,
)
from mribench.errors import MribenchError
from mribench.files import digest_file

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img")
_UNSIDED = (
    "an Analyze header cannot say which side is left; read as radiological (the first axis runs from right to "
    "left), as nibabel does"
)
DICOM_SUFFIXES = (".dcm", ".ima")
DICOM_ADVICE = "DICOM, which is not read here. Convert it to NIfTI with dcm2niix"
_MGH_START = 284
_MGH_ORIENTED = slice(28, 30)  # goodRASFlag
_MGH_TRAILING = 16 * 1024**2  # FreeSurfer appends the command lines of its programs


def is_scan_name(path: Path) -> bool:
    """Whether the file name ends as one of the formats, in any case."""
    return path.name.lower().endswith(SUFFIXES)


def scan_stem(name: str) -> str:
    """A file name or relative path without its format's suffix."""
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def is_dicom(path: Path) -> bool:
    """Whether a file is named as DICOM (.dcm, Siemens' .IMA) or begins as DICOM does (PS3.10, 7.1)."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _scan_files(path: Path) -> tuple[Path, ...]:
    """The files that make up one scan: two for a pair, else one."""
    return _pair(path) if path.suffix.lower() in (".hdr", ".img") else (path,)


def digest_scan(path: Path) -> str:
    """SHA-256 of the scan's file, or of the digests of its two files; raises MribenchError if unreadable."""
    try:
        digests = [digest_file(file) for file in _scan_files(path)]
    except OSError as error:
        raise MribenchError(f"{path} must be readable, but: {error.strerror}.") from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_scan(path: Path) -> NiftiVolume:
    """Read one 3D volume of any of the formats as canonical RAS+.

    Raises MribenchError as `read_nifti` does, and for DICOM, half a pair, and an MGH file without orientation.
    """
    path = Path(path)
    if is_nifti_name(path):
        return read_nifti(path)
    if path.is_dir() or (path.is_file() and is_dicom(path)):
        raise MribenchError(f"{path} is {DICOM_ADVICE}.")
    if not is_scan_name(path):
        raise MribenchError(f"{path} must end in {', '.join(SUFFIXES)}. Convert it to NIfTI first.")
    with explained(path):
        return _read_mgh(path) if path.suffix.lower() in (".mgz", ".mgh") else _read_pair(*_pair(path))


def _pair(path: Path) -> tuple[Path, Path]:
    """(header, image), whichever of them was named."""
    both = []
    for suffix in (".hdr", ".img"):
        files = [path.with_suffix(s) for s in (suffix, suffix.upper()) if path.with_suffix(s).is_file()]
        if not files:
            raise MribenchError(f"{path} must have its {suffix} file beside it, but has none. Copy both.")
        both.append(files[0])
    return both[0], both[1]


def _read_pair(header_file: Path, image_file: Path) -> NiftiVolume:
    if header_file.stat().st_size > UNCHECKED_BYTES:
        raise MribenchError(f"{header_file} must be an Analyze header of 348 bytes. Export it again.")
    image: Any = nib.load(header_file)
    header = image.header
    shape = one_volume(image.shape, header_file)
    itemsize = header.get_data_dtype().itemsize
    check_memory(shape, itemsize, header_file)
    expected = int(np.prod(shape)) * itemsize + int(header.get_data_offset())
    check_complete(image_file.stat().st_size, expected, image_file)
    stated = isinstance(image, Nifti1Pair)
    if stated:
        check_meaning(header, header_file)
    elif header.get_data_dtype().kind not in "iuf":
        raise MribenchError(
            f"{header_file} must hold one real number per voxel. Export one greyscale channel."
        )
    volume = canonical(_floats(image, shape), image.affine, header_file)
    return volume if stated else replace(volume, remark=_UNSIDED)


def _read_mgh(path: Path) -> NiftiVolume:
    opened = gzip.open if path.suffix.lower() == ".mgz" else open
    with opened(path, "rb") as stream:
        start = stream.read(_MGH_START)
        header: Any = MGHHeader.from_fileobj(io.BytesIO(start))
        shape = one_volume(header.get_data_shape(), path)
        itemsize = header.get_data_dtype().itemsize
        check_memory(shape, itemsize, path)
        expected = _MGH_START + int(np.prod(shape)) * itemsize
        check_inflation(expected, path)
        content = start + drain(stream, expected - len(start), path, _MGH_TRAILING)
    check_complete(len(content), expected, path)
    if not any(start[_MGH_ORIENTED]):  # nibabel would put in a default
        raise MribenchError(
            f"{path} must state its orientation, but its goodRASFlag is 0. Set it, or export the scan again."
        )
    image: Any = nib.MGHImage.from_bytes(content)
    return canonical(_floats(image, shape), image.affine, path)


def _floats(image: Any, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(image.dataobj).astype(np.float32).reshape(shape)
