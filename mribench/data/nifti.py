"""Guarded NIfTI: what comes in is verified before it is believed; what goes out is always the same bytes."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity, voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError

from mribench.data.grid import dequantise, quantise
from mribench.errors import MribenchError, UsageError
from mribench.files import atomic

SUFFIXES = (".nii.gz", ".nii")
_MAX_BYTES = 2 * 1024**3
# A stripped brain inflates by 3 to 20, a label map by about 100; deflate's own limit is 1032.
MAX_INFLATION = 200
# Below this an inflation ratio can do no harm, and a nearly empty small sample is a legitimate volume.
UNCHECKED_BYTES = 64 * 1024**2
_TRAILING_BYTES = 64 * 1024
_MAX_OFFSET = 16 * 1024**2
_MOST_DESCRIPTION = 79  # of 80 bytes, the last of which ends the text
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_REAL_TYPES = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # integers and floats of up to 64 bits
_ORIENTATION_CODES = range(1, 6)
_SLOPE = np.float32(1 / 65535)
_TOLERANCE = 1e-6
_OBLIQUE_RADIANS = 1e-3

Rescale = tuple[float, float]
_Stream = BinaryIO | gzip.GzipFile


@dataclass(frozen=True, eq=False)
class NiftiVolume:
    """One volume in canonical orientation: `data` float32 `[D,H,W]` in the file's own units.

    `affine` maps (i, j, k) = (W, H, D) indices to world mm, RAS+; `spacing_mm` is (x, y, z); `oblique` says
    that the voxel axes are rotated against the world's; `remark` is what must be known of the file.
    """

    data: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    oblique: bool
    remark: str = ""


def is_nifti_name(path: Path) -> bool:
    """Whether the file name ends in .nii or .nii.gz, in any case."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(path: Path, max_bytes: int = _MAX_BYTES) -> NiftiVolume:
    """Read one 3D volume as canonical RAS+; a gzip stream is drained, so that its checksum is verified.

    Raises MribenchError for a wrong extension, a damaged or oversized file, NaN or infinity, a constant
    volume, more than three dimensions, colour or complex voxels, and a header that does not state the
    orientation.
    """
    path = Path(path)
    with explained(path), _opened(path) as stream:
        start = stream.read(max(_HEADERS))
        header = _parse_header(start, path)
        check_meaning(header, path)
        shape = one_volume(_declared_shape(header), path)
        image = _read_image(stream, start, header, shape, path, max_bytes)
        return canonical(_voxels(image).reshape(shape), image.affine, path)


@dataclass(frozen=True, eq=False)
class StoredNifti:
    """The voxels of a file as they lie there, and what its header says of them.

    `voxels` float32, any number of axes; `affine` None where the header states no orientation; `step` between two
    intensities that the file can hold, 0 for floating-point numbers.
    """

    voxels: np.ndarray
    affine: np.ndarray | None
    spacing_mm: tuple[float, float, float]  # of the first three axes
    dtype: str
    step: float


def read_stored(path: Path, max_bytes: int = _MAX_BYTES) -> StoredNifti:
    """Read a file of any shape, orientation and intensities, also one that states no orientation.

    Raises MribenchError as `read_nifti` does for damaged and oversized files, metres, colour and complex voxels.
    """
    path = Path(path)
    with explained(path), _opened(path) as stream:
        start = stream.read(max(_HEADERS))
        header = _parse_header(start, path)
        _check_voxels(header, path)
        shape = _declared_shape(header)
        image = _read_image(stream, start, header, shape, path, max_bytes)
        dtype, slope = image.get_data_dtype(), float(image.dataobj.slope)
        sizes = [float(size) for size in header["pixdim"][1:4]]
        return StoredNifti(
            voxels=_voxels(image),
            affine=np.asarray(image.affine, dtype=np.float64) if _states_orientation(header) else None,
            spacing_mm=(sizes[0], sizes[1], sizes[2]),
            dtype=str(dtype),
            step=abs(slope) if dtype.kind in "iu" else 0.0,
        )


def read_nifti_affine(path: Path) -> np.ndarray:
    """The `[4,4]` affine of a header; raises MribenchError where it states none or the file is no NIfTI."""
    with explained(path), _opened(path) as stream:
        header = _parse_header(stream.read(max(_HEADERS)), path)
        check_meaning(header, path)
        return np.asarray(header.get_best_affine(), dtype=np.float64)


def _read_image(
    stream: _Stream,
    start: bytes,
    header: nib.Nifti1Header,
    shape: Sequence[int],
    path: Path,
    max_bytes: int,
) -> Any:
    """The whole image, its checksum and length verified; `start` holds the bytes that were read before."""
    expected = _expected_bytes(header, shape, path, max_bytes)
    content = start + drain(stream, expected - len(start), path)
    check_complete(len(content), expected, path)
    kind = nib.Nifti1Image if header.sizeof_hdr == 348 else nib.Nifti2Image
    return kind.from_bytes(content)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what Python, gzip and nibabel raise while `path` is read into a MribenchError that names it."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MribenchError(
            f"{path} must be an undamaged gzip file, but: {error}. Copy or export it again."
        ) from error
    except OSError as error:
        raise MribenchError(f"{path} must be readable, but: {error.strerror or error}.") from error
    except (HeaderDataError, ImageFileError, OrientationError, ValueError, OverflowError) as error:
        raise MribenchError(f"{path} must be a valid image, but: {error}. Export it again.") from error


@contextmanager
def _opened(path: Path) -> Iterator[_Stream]:
    if not is_nifti_name(path):
        raise MribenchError(f"{path} must end in .nii or .nii.gz. Convert it to NIfTI first.")
    if not path.is_file():
        raise MribenchError(f"{path} must be an existing regular file. Check the path.")
    with open(path, "rb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield stream
        else:
            yield file


def _parse_header(start: bytes, path: Path) -> nib.Nifti1Header:
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    kind = next((_HEADERS[size] for size in _HEADERS if size in sizes), None)
    if kind is None or len(start) < kind.sizeof_hdr:
        raise MribenchError(f"{path} must begin with a NIfTI-1 or NIfTI-2 header. Convert it to NIfTI first.")
    header = kind.from_fileobj(io.BytesIO(start), check=False)
    magic = bytes(header["magic"])
    if magic[:3] not in (b"n+1", b"n+2"):
        raise MribenchError(
            f"{path} must be a single-file NIfTI, but its magic is {magic!r}. "
            "Convert header/image pairs to one .nii.gz."
        )
    return header


def check_meaning(header: nib.Nifti1Header, path: Path) -> None:
    """Raise MribenchError unless a NIfTI header states orientation, millimetres and one real number per voxel."""
    if not _states_orientation(header):
        sform, qform = int(header["sform_code"]), int(header["qform_code"])
        raise MribenchError(
            f"{path} must state its orientation, but sform_code is {sform} and qform_code is {qform}, "
            "so left and right are unknown. Export it again with an affine, or set a code if you know it; samples of "
            "a generator can be taken as they are with `mribench adopt`."
        )
    _check_voxels(header, path)


def _states_orientation(header: nib.Nifti1Header) -> bool:
    return any(int(header[code]) in _ORIENTATION_CODES for code in ("sform_code", "qform_code"))


def _check_voxels(header: nib.Nifti1Header, path: Path) -> None:
    unit = int(header["xyzt_units"]) % 8
    if unit not in (0, 2):  # unknown, millimetres
        raise MribenchError(
            f"{path} must be in millimetres, but its header says unit {unit} (1 is metre, 3 is micrometre). "
            "Convert it to mm."
        )
    code = int(header["datatype"])
    if code not in _REAL_TYPES:
        raise MribenchError(
            f"{path} must hold one real number per voxel, but its NIfTI data type is {code} "
            "(32 is complex, 128 is RGB). Export one greyscale channel."
        )


def one_volume(shape: Sequence[int], path: Path) -> tuple[int, int, int]:
    """The three sizes of a declared shape; raises MribenchError for more than one volume."""
    shape = tuple(int(n) for n in shape)
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3 or min(shape) < 1:
        raise MribenchError(
            f"{path} must be one 3D volume, but its header declares the shape {shape}. "
            "Export one volume per file; samples with channels can be taken as they are with `mribench adopt`."
        )
    return (shape[0], shape[1], shape[2])


def _declared_shape(header: nib.Nifti1Header) -> tuple[int, ...]:
    axes = min(max(int(header["dim"][0]), 0), 7)
    return tuple(int(n) for n in header["dim"][1 : 1 + axes])


def _expected_bytes(header: nib.Nifti1Header, shape: Sequence[int], path: Path, max_bytes: int) -> int:
    """Bytes up to the last voxel; refuses, before anything is inflated, what would be too large in memory."""
    itemsize = header.get_data_dtype().itemsize
    if len(shape) < 3 or min(shape) < 1:
        raise MribenchError(
            f"{path} must hold a volume, but its header declares the shape {shape}. Export it again."
        )
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr + 4 <= offset <= _MAX_OFFSET:
        raise MribenchError(
            f"{path} must place its voxels after the header, but vox_offset is {offset:g}. Export it again."
        )
    check_memory(shape, itemsize, path, max_bytes)
    expected = int(offset) + math.prod(shape) * itemsize
    check_inflation(expected, path)
    return expected


def check_complete(stored: int, expected: int, path: Path) -> None:
    """Raise MribenchError when a file holds fewer bytes than its header declares."""
    if stored < expected:
        raise MribenchError(
            f"{path} must hold the {expected} bytes that its header declares, but it holds {stored}. "
            "The file is cut off: copy or export it again."
        )


def check_inflation(expected: int, path: Path) -> None:
    """Raise MribenchError when a small file declares very many bytes."""
    stored = path.stat().st_size
    if expected > UNCHECKED_BYTES and expected > MAX_INFLATION * stored:
        raise MribenchError(
            f"{path} must not inflate by more than a factor {MAX_INFLATION}, but {stored} bytes declare "
            f"{expected}. If the file is genuine, store it uncompressed."
        )


def check_memory(shape: Sequence[int], itemsize: int, path: Path, max_bytes: int = _MAX_BYTES) -> None:
    """Raise MribenchError when the declared voxels would need more than `max_bytes` in memory."""
    if math.prod(shape) * max(itemsize, 4) > max_bytes:
        raise MribenchError(
            f"{path} must need at most {max_bytes / 1024**2:.0f} MiB in memory, but its header declares "
            f"{' x '.join(map(str, shape))} voxels of {itemsize} bytes. Crop or resample it."
        )


def drain(stream: _Stream, expected: int, path: Path, trailing: int = _TRAILING_BYTES) -> bytes:
    """Read to the end of the stream, which makes gzip compare its checksum; more than declared is refused."""
    limit = max(expected, 0) + trailing
    content = bytearray()
    while chunk := stream.read(min(1024**2, limit + 1 - len(content))):
        content += chunk
        if len(content) > limit:
            raise MribenchError(f"{path} must hold only what its header declares. Export it again.")
    return bytes(content)


def _voxels(image: Any) -> np.ndarray:
    """Float32 in the file's order and shape, scaled as the header says."""
    proxy = image.dataobj
    if image.get_data_dtype() == np.uint16 and (proxy.slope, proxy.inter) == (float(_SLOPE), 0):
        # Our own form: multiplying by the rounded slope would be off in the last bit.
        voxels = dequantise(proxy.get_unscaled())
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            voxels = np.asarray(proxy).astype(np.float32)
    return voxels


def canonical(voxels: np.ndarray, affine: np.ndarray, path: Path) -> NiftiVolume:
    """`[X,Y,Z]` float32 in the file's order as a NiftiVolume; raises MribenchError for what cannot be a scan."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise MribenchError(
            f"{path} must have an invertible affine, but it is {affine.tolist()}. Export it again."
        )
    bad = int(voxels.size - np.isfinite(voxels).sum())
    if bad:
        raise MribenchError(
            f"{path} must be finite, but {bad} voxels are NaN or infinite. Nothing is imputed: "
            "repair the volume or leave it out."
        )
    if voxels.min() == voxels.max():
        raise MribenchError(f"{path} must vary, but every voxel is {voxels.flat[0]:g}. Leave it out.")
    image: Any = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
    x, y, z = (float(s) for s in voxel_sizes(image.affine))
    return NiftiVolume(
        data=np.ascontiguousarray(np.asarray(image.dataobj).T, dtype=np.float32),
        affine=np.asarray(image.affine, dtype=np.float64),
        spacing_mm=(x, y, z),
        oblique=bool(np.max(obliquity(image.affine)) > _OBLIQUE_RADIANS),
    )


def check_range(data: np.ndarray, name: str, rescale: Rescale | None = None) -> np.ndarray:
    """`data` as float32 in [0,1]; with `rescale` = (LOW, HIGH) after (x - LOW) / (HIGH - LOW).

    Raises MribenchError when values then lie outside [0,1] by more than 1e-6 or are not finite.
    """
    if rescale is not None:
        if not (np.isfinite(rescale).all() and rescale[0] < rescale[1]):
            raise UsageError(f"--rescale needs two numbers LOW < HIGH, but {rescale} was given.")
        data = (data - np.float32(rescale[0])) / np.float32(rescale[1] - rescale[0])
    low, high = float(data.min()), float(data.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        after = f" after --rescale {rescale[0]:g} {rescale[1]:g}" if rescale else ""
        raise MribenchError(
            f"{name} must have values in [0,1], but they run from {low:g} to {high:g}{after}. "
            "Give the range that all volumes share with --rescale LOW HIGH."
        )
    return np.clip(data, 0, 1).astype(np.float32, copy=False)


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray, description: str = "") -> None:
    """Write `[D,H,W]` in [0,1] as uint16 with slope 1/65535; the same volume gives the same bytes.

    `affine` maps (W, H, D) indices to world mm, RAS+; `description` goes into the header, cut after 79 bytes. A name
    that ends in .gz is compressed. Raises MribenchError when values lie outside [0,1] or the disk refuses.
    """
    if volume.ndim != 3:
        raise MribenchError(f"{path} must be written from [D,H,W], but the array has shape {volume.shape}.")
    voxels = quantise(check_range(volume, str(path)))
    content = _header_bytes(voxels, affine, description) + voxels.astype("<u2").tobytes()
    with atomic(path) as temporary, open(temporary, "wb") as file:
        if not path.name.lower().endswith(".gz"):
            file.write(content)
            return
        # No name and no time in the gzip header: the bytes depend on the volume alone.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as stream:
            stream.write(content)


def _header_bytes(voxels: np.ndarray, affine: np.ndarray, description: str) -> bytes:
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(np.uint16)
    header.set_data_shape(voxels.shape[::-1])
    header.set_qform(affine, code=2)
    header.set_sform(affine, code=2)
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = _SLOPE, 0
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header["descrip"] = description.encode("ascii", "replace")[:_MOST_DESCRIPTION]
    return header.binaryblock + bytes(4)  # four zero bytes: no header extension
