"""Every file is written here: to a temporary name, fsynced, renamed; and digests are made here."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mribench.errors import MribenchError

log = logging.getLogger(__name__)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it onto `path`.

    Raises MribenchError naming the file when the disk refuses (full, read-only, no permission).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept because nibabel and numpy choose a format by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix="".join(path.suffixes))
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise MribenchError(
            f"{path} must be writable, but the system says: {error.strerror or error}. "
            "Free some space or choose another folder, then run the same command again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinities are refused because they are not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, *keys: str) -> Any:
    """Read JSON; raises MribenchError naming the file when it is missing, torn or an object without `keys`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MribenchError(f"{path} must be readable JSON, but: {error}") from error
    if keys and not (isinstance(value, dict) and all(key in value for key in keys)):
        raise MribenchError(
            f"{path} must hold {', '.join(keys)}, but does not. Remove it, then run the command that writes it."
        )
    return value


def append_json_line(path: Path, value: Any) -> None:
    """Add one line to a JSON-lines file; a line that a killed process left torn is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        file.write(json.dumps(value).encode() + b"\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy array atomically."""
    with atomic(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def read_array(path: Path, rows: int) -> np.ndarray | None:
    """A .npy array of that many rows; None, and a warning if the file is torn, when there is no such file."""
    if not path.exists():
        return None
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s cannot be read (%s); computing it again", path, error)
        return None
    return array if array.ndim and len(array) == rows else None


def digest_json(value: Any) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces) of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_volume(voxels: np.ndarray, affine: np.ndarray) -> str:
    """SHA-256 over the canonical voxels (uint16 `[D,H,W]`), shape and affine (to 1e-3 mm: NIfTI keeps float32)."""
    hasher = hashlib.sha256(repr(voxels.shape).encode())
    hasher.update(np.ascontiguousarray(voxels, dtype="<u2").tobytes())
    # Adding 0.0 turns -0.0 into 0.0, which has other bytes.
    hasher.update((np.round(np.asarray(affine, dtype="<f8"), 3) + 0.0).tobytes())
    return hasher.hexdigest()
