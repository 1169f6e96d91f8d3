"""Every file is written here: to a temporary name, fsynced, renamed; also records with a schema, and digests."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mribench.errors import MribenchError

log = logging.getLogger(__name__)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MribenchError(
            f"{path} must be writable, but the system says: {error.strerror or error}. "
            "Free some space or choose another folder, then run the same command again."
        ) from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it onto `path`.

    Raises MribenchError naming the file when the disk refuses (full, read-only, no permission).
    """
    temporary = None
    try:
        with _writable(path):
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


class Record(BaseModel):
    """A JSON file of one kind, read and written by the same class; its first key is "schema".

    `SCHEMA` is "mribench/KIND/VERSION"; a file without one is of version 0.1.0 and read as version 1 when it fits.
    `REMEDY` says what to do when a file cannot be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    SCHEMA: ClassVar[str]
    REMEDY: ClassVar[str] = "Remove it, then run the command that writes it."

    def as_json(self) -> dict[str, Any]:
        """The JSON object, "schema" first."""
        return {"schema": self.SCHEMA, **self.model_dump(mode="json")}

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the file."""
        schema = cls.model_json_schema()
        properties = {"schema": {"const": cls.SCHEMA}, **schema.get("properties", {})}
        return {"$id": cls.SCHEMA, **schema, "properties": properties}

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        write_json(path, self.as_json())

    @classmethod
    def from_json(cls, value: Any, where: object) -> Self:
        """The record of a JSON object; raises MribenchError, naming `where`, for another schema or a bad field."""
        if not isinstance(value, dict):
            raise MribenchError(f"{where} must hold a JSON object, but does not. {cls.REMEDY}")
        fields = dict(value)
        _check_schema(cls.SCHEMA, fields.pop("schema", None), where, cls.REMEDY)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise MribenchError(
                f"{where} must be a record of {cls.SCHEMA}, but {first_error(error)}. {cls.REMEDY}"
            ) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in that file; raises MribenchError when it is missing, torn, damaged or newer."""
        return cls.from_json(read_json(path), path)


def first_error(error: ValidationError) -> str:
    """Field and fault of the first thing that is wrong."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field or 'it'}: {first['msg']}"


def _check_schema(readable: str, given: Any, where: object, remedy: str) -> None:
    """Raise MribenchError unless `given` is the schema `readable`; None, of version 0.1.0, is version 1."""
    kind, _, version = readable.rpartition("/")
    given = f"{kind}/1" if given is None else str(given)
    if given == readable:
        return
    other, _, number = given.rpartition("/")
    newer = other == kind and number.isdecimal() and int(number) > int(version)
    remedy = "Update mribench: pip install --upgrade mribench" if newer else remedy
    raise MribenchError(
        f"{where} must be of the schema {readable}, which this version reads, but it is of {given}. {remedy}"
    )


def append_json_line(path: Path, value: Any) -> None:
    """Add one line to a JSON-lines file; a line that a killed process left torn is closed first.

    Raises MribenchError when the disk refuses.
    """
    with _writable(path):
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
