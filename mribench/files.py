"""Every file is written here: to a temporary name, fsynced, renamed, with a digest that proves it when it is read.

A record carries its digest as the field "sha256", a line of a .jsonl file too; an array and a checkpoint end with a
seal; `SHA256SUMS` lists the files beside it that carry none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any, ClassVar, Self, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mribench.errors import MribenchError

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
_PROOF = "sha256"  # the field of a record and of a line
_SEAL = re.compile(rb"\nmribench/seal/1 ([0-9a-f]{64}) end\n")
_SEAL_BYTES = 86
_DAMAGED_DIGEST = re.compile(r'": .[^ ]{64}.}$')  # at a line's end, under a damaged key
_LINE = re.compile(r'(.*), "sha256": "([0-9a-f]{64})"}')


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
                _sync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Onto the disk itself: on macOS fsync leaves the data in the drive's cache, and not every disk takes the other."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinities are refused because they are not JSON."""
    write_text(path, _as_text(value))


def _as_text(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path, *keys: str) -> Any:
    """Read JSON; raises MribenchError naming the file when it is missing, torn or an object without `keys`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MribenchError(f"{path} must be readable JSON, but: {error}") from error
    if keys and not (isinstance(value, dict) and all(key in value for key in keys)):
        raise MribenchError(
            f"{path} must hold {', '.join(keys)}, but does not. Remove it, then run the command that writes it."
        )
    return value


class Record(BaseModel):
    """A JSON file of one kind, read and written by the same class; it begins with "schema" and "sha256".

    `SCHEMA` is "mribench/KIND/VERSION"; a file without one is of version 0.1.0 and read as version 1 when it fits.
    "sha256" is the digest of everything else in it; a file without one was written by a version before 0.2.0 or
    changed on purpose, and is read. `REMEDY` says what to do when a file cannot be read.
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
        first = {"schema": {"const": cls.SCHEMA}, _PROOF: {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
        properties = {**first, **schema.get("properties", {})}
        return {"$id": cls.SCHEMA, **schema, "properties": properties}

    def as_text(self) -> str:
        """The file: JSON with the digest of its content."""
        value = self.as_json()
        schema = value.pop("schema")
        return _as_text({"schema": schema, _PROOF: digest_json({"schema": schema, **value}), **value})

    def write(self, path: Path) -> None:
        """Write the file atomically, with its digest."""
        write_text(path, self.as_text())

    @classmethod
    def from_json(cls, value: Any, where: object) -> Self:
        """The record of a JSON object; raises MribenchError, naming `where`, for another schema or a bad field."""
        if not isinstance(value, dict):
            raise MribenchError(f"{where} must hold a JSON object, but does not. {cls.REMEDY}")
        _check_schema(cls.SCHEMA, value.get("schema"), where, cls.REMEDY)
        fields = dict(value)
        _check_proof(fields, where, cls.REMEDY)
        fields.pop("schema", None)
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


def _check_proof(fields: dict[str, Any], where: object, remedy: str) -> None:
    """Take the digest out of a record's fields; raise MribenchError when it is another than theirs."""
    if _PROOF not in fields:
        return
    given = fields.pop(_PROOF)
    try:
        intact = given == digest_json(fields)
    except (ValueError, RecursionError):  # NaN, or nested without end
        intact = False
    if not intact:
        raise MribenchError(
            f"{where} must be as it was written, but its content does not have the digest that it carries: the file "
            f"is damaged, or was changed by hand. {remedy} (A file that you changed on purpose is read without its "
            f'line "{_PROOF}".)'
        )


def is_proven(path: Path) -> bool:
    """Whether a record carries its digest; raises MribenchError when it is unreadable or has another content."""
    fields = read_json(path)
    carries = isinstance(fields, dict) and _PROOF in fields
    if carries:
        _check_proof(fields, path, Record.REMEDY)
    return carries


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
    """Add one object, with its digest, to a JSON-lines file; a line that a killed process left torn is closed first.

    Raises MribenchError when the disk refuses.
    """
    text = json.dumps(value)
    line = f'{text[:-1]}, "{_PROOF}": "{hashlib.sha256(text.encode()).hexdigest()}"}}\n'
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")
            file.write(line.encode())


def read_json_lines(path: Path) -> tuple[list[str], int]:
    """The lines of a JSON-lines file without their digests, and the number of torn or damaged ones, left out.

    A line without a digest is of a version before 0.2.0 and is given as it is. Raises MribenchError when the file
    cannot be read.
    """
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MribenchError(f"{path} must be readable, but: {error.strerror}.") from error
    texts = content.removesuffix("\n").split("\n") if content else []
    lines = [line for text in texts if (line := _proven_line(text)) is not None]
    return lines, len(texts) - len(lines)


def _proven_line(text: str) -> str | None:
    """The object of one line; None when it is no object, or not the one that was written."""
    parts = _LINE.fullmatch(text)
    if parts is None:
        plain = text.startswith("{") and text.endswith("}") and _PROOF not in text
        return text if plain and not _DAMAGED_DIGEST.search(text) else None
    line = f"{parts[1]}}}"
    return line if hashlib.sha256(line.encode()).hexdigest() == parts[2] else None


def drop_damaged_lines(path: Path) -> None:
    """Write a JSON-lines file again without its torn and damaged lines."""
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    write_text(path, "".join(f"{text}\n" for text in texts if _proven_line(text) is not None))


class _Hashed:
    """A binary file that hashes what is written to it."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._hasher = file, _seal_hasher(path)

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        self._file.write(b"\nmribench/seal/1 %s end\n" % self._hasher.hexdigest().encode())


def _seal_hasher(path: Path) -> Any:
    """The name is hashed first, because it says what an array was computed from; the folders above it may move."""
    return hashlib.sha256("/".join(path.parts[-2:]).encode() + b"\n")


@contextmanager
def sealed(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file; on success it is sealed with the digest of its name and content, and takes its place.

    Readers of .npy and of torch's files pass over the seal. Raises MribenchError when the disk refuses.
    """
    with atomic(path) as temporary, open(temporary, "wb") as file:
        hashed = _Hashed(file, path)
        yield cast(IO[bytes], hashed)
        hashed.seal()


def check_seal(path: Path) -> bool:
    """Whether a file is sealed (False: of a version before 0.2.0); raises MribenchError when it is damaged."""
    hasher, size = _seal_hasher(path), path.stat().st_size - _SEAL_BYTES
    with open(path, "rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            hasher.update(block)
            size -= len(block)
        tail = file.read()
    seal = _SEAL.fullmatch(tail)
    if seal is None and b"\nmribench/sea" not in tail and not tail.endswith(b" end\n"):
        return False
    if seal is None or seal[1].decode() != hasher.hexdigest():
        raise MribenchError(f"{path} must be as it was written, but its content is not what its seal says.")
    return True


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy array atomically and sealed."""
    content = BytesIO()
    np.save(content, array, allow_pickle=False)
    with sealed(path) as file:
        file.write(content.getvalue())


def read_array(path: Path, rows: int) -> np.ndarray | None:
    """A sealed .npy array of that many rows; None when there is none, with a warning where the file is damaged."""
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        seal, hasher = _SEAL.fullmatch(content[-_SEAL_BYTES:]), _seal_hasher(path)
        hasher.update(memoryview(content)[:-_SEAL_BYTES])
        if seal is None or seal[1].decode() != hasher.hexdigest():
            raise ValueError("its content is not what its seal says")
        array: np.ndarray = np.load(BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s cannot be used (%s); computing it again", path, error)
        return None
    return array if array.ndim and len(array) == rows else None


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write `SHA256SUMS` for files of a folder, in the form that `sha256sum --check` reads."""
    write_text(folder / SUMS, "".join(f"{digest_file(folder / name)}  {name}\n" for name in sorted(names)))


def differing(folder: Path) -> list[str]:
    """Names in a folder's `SHA256SUMS` whose files are missing or other; and its own name when a line is damaged."""
    names = []
    for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        entry = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if entry is None:
            names.append(SUMS)
        elif not (folder / entry[2]).is_file() or digest_file(folder / entry[2]) != entry[1]:
            names.append(entry[2])
    return names


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
