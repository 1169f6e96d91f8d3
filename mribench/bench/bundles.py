"""The file that carries the scores of a bench elsewhere: bundle.json and pictures in a zip without compression.

A bundle is believed only when it is byte for byte what its content gives, so that no bit of it can differ unnoticed.
Nothing is compressed, so that what it needs in memory is bounded by its size; nothing is ever unpacked to disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator

from mribench.bench.protocol import Protocol
from mribench.bench.records import RUN_NAME, RunRecord, SamplesRecord, WeightsRecord
from mribench.data.grid import Grid
from mribench.errors import MribenchError
from mribench.files import Record, atomic, digest_json
from mribench.metrics.gates.result import GateResult
from mribench.metrics.regions import RegionRow
from mribench.metrics.score import Missing, Score
from mribench.metrics.statistics.jackknife import jackknife_groups

RECORD = "bundle.json"
MOST_BYTES = 64 * 1024**2
_MOST_MEMBERS = 4096
_MOST_SIDE = 1024  # pixels of a picture
_MOST_VOLUMES = 1_000_000
_MOST_NUMBER = 1e12  # beyond it squares lose their meaning
VIEWS = ("axial", "coronal", "sagittal")
REFERENCE = "_reference"  # whose pictures are of no entrant; no name of a run begins like this
_PICTURE = re.compile(rf"pictures/(?:{REFERENCE}|{RUN_NAME})/(?:{'|'.join(VIEWS)})\.png")
_END = struct.Struct("<4s4H2LH")  # of a zip: signature, four counts, size and place of its directory, comment
_DIRECTORY_LINE = 256  # bytes that a member takes there at most
_UNREADABLE = (
    zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, struct.error, IndexError,
)  # fmt: skip


def picture_name(entrant: str, view: str) -> str:
    """The member of a bundle that holds a picture."""
    return f"pictures/{entrant}/{view}.png"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BundledSet(_Part):
    """A role of the cohort: how many volumes, and the digest that identifies them."""

    count: NonNegativeInt
    digest: str


class BundledCohort(_Part):
    """The real side of a bundle, without any volume or name."""

    source: str
    digest: str
    recipe_digest: str
    grid: Grid
    sets: dict[str, BundledSet]  # role -> its volumes


class LeftOut(_Part):
    """A run of the bench that is not in the bundle."""

    name: str
    reason: str


class BundledEntrant(_Part):
    """An entrant with its scores; `held_back` says why it is not ranked, `doubts` why it cannot be compared."""

    name: str
    run: RunRecord
    weights: WeightsRecord | None = None
    samples: SamplesRecord  # of a control without its files
    scores: tuple[Score, ...]
    missing: tuple[Missing, ...] = ()
    gates: tuple[GateResult, ...] = ()
    regions: tuple[RegionRow, ...] = ()
    held_back: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def samples_digest(self) -> str:
        """Of the samples that were scored."""
        return self.scores[0].digests["samples"]

    @model_validator(mode="after")
    def _check(self) -> BundledEntrant:
        if not re.fullmatch(RUN_NAME, self.name) or ".." in self.name:
            raise ValueError(f"name: {self.name[:80]!r} is no name of a run")
        metrics = [score.metric for score in self.scores]
        if not metrics or len(set(metrics)) < len(metrics):
            raise ValueError("scores: there must be one or more, each of another metric")
        for score in self.scores:
            if fault := _fault(score):
                raise ValueError(f"scores.{score.metric}.{fault}")
        if len({score.digests["samples"] for score in self.scores}) > 1:
            raise ValueError("scores.*.digests.samples: all must be of the same samples")
        digests = [file.digest for file in self.samples.files[: self.scores[0].n["samples"]]]
        if digests and digest_json([digests, self.samples.slab]) != self.samples_digest:
            raise ValueError("samples.files: their digests are not those of the samples that were scored")
        return self


def _fault(score: Score) -> str:
    """What is impossible in a score, beginning with the field; "" when nothing is."""
    if "samples" not in score.n or not all(1 <= n <= _MOST_VOLUMES for n in score.n.values()):
        return f"n: must count 1 to {_MOST_VOLUMES} volumes of each set, among them samples"
    if score.digests.keys() != score.n.keys():
        return "digests: must name the sets that n counts"
    for side, replicates in score.replicates.items():
        wanted = len(jackknife_groups(score.n[side])) if side in score.n else 0
        if wanted < 2 or len(replicates) != wanted:
            return f"replicates.{side}: must be {wanted} numbers, but they are {len(replicates)}"
    if score.low > score.high:
        return "low: must not be above high"
    real = score.real_baseline
    if real and 0 < abs(real.high - real.low) < 1 / _MOST_NUMBER:
        return f"real_baseline: its interval is narrower than {1 / _MOST_NUMBER:g}"
    numbers = [score.value, score.low, score.high, score.target or 0.0, score.display.scale]
    numbers += [score.least_variance, score.second_order, *sum(score.replicates.values(), ())]
    numbers += [real.value, real.low, real.high] if real else []
    return "" if max(map(abs, numbers)) <= _MOST_NUMBER else f"value: no number may exceed {_MOST_NUMBER:g}"


class BundleRecord(Record):
    """bundle.json: what a bench says of its entrants; `files` has the digests of the pictures beside it."""

    SCHEMA: ClassVar[str] = "mribench/bundle/1"
    REMEDY: ClassVar[str] = "Ask whoever sent it for a whole copy, or make it again: mribench export"

    protocol: Protocol
    protocol_digest: str
    versions: dict[str, str]  # of the packages that wrote the bundle
    packages: dict[str, str] = {}  # as in bench.json
    cohort: BundledCohort
    entrants: tuple[BundledEntrant, ...]
    left_out: tuple[LeftOut, ...] = ()
    real_pictures: bool = False  # whether pictures may show real volumes
    files: dict[str, str] = {}

    @model_validator(mode="after")
    def _check(self) -> BundleRecord:
        if self.protocol.digest != self.protocol_digest:
            raise ValueError("protocol_digest: it is not that of the protocol beside it")
        names = [entrant.name for entrant in self.entrants]
        if again := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"entrants: {again[0]} stands there twice")
        if "reference" not in self.cohort.sets:
            raise ValueError("cohort.sets: the role 'reference' must be there")
        allowed = {picture_name(name, view) for name in (*names, REFERENCE) for view in VIEWS}
        if strange := sorted(self.files.keys() - allowed):
            raise ValueError(f"files: {strange[0][:120]!r} belongs to no entrant")
        return self


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory. `pictures` are `[h,w]` uint8 by member name; `label` tells it from others on a page."""

    label: str
    record: BundleRecord
    pictures: Mapping[str, np.ndarray]

    def views(self, entrant: str) -> list[np.ndarray]:
        """The pictures of an entrant, or of `REFERENCE`: axial, coronal, sagittal, as far as there are any."""
        names = (picture_name(entrant, view) for view in VIEWS)
        return [self.pictures[name] for name in names if name in self.pictures]

    @property
    def reference_digest(self) -> str:
        return self.record.cohort.sets["reference"].digest


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle atomically; the same content gives the same bytes. Raises MribenchError for one too large."""
    pictures = {name: _png(levels) for name, levels in sorted(bundle.pictures.items())}
    files = {name: hashlib.sha256(data).hexdigest() for name, data in pictures.items()}
    record = bundle.record.model_copy(update={"files": files})
    content = _zipped({RECORD: record.as_text().encode(), **pictures})
    if len(content) > MOST_BYTES:
        raise MribenchError(
            f"A bundle must have at most {MOST_BYTES} bytes, but this one has {len(content)}. Remove entrants."
        )
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _png(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "png", optimize=True)
    return file.getvalue()


def _zipped(members: Mapping[str, bytes]) -> bytes:
    """Without times, names of users and compression: the bytes depend on the members alone."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, data)
    return content.getvalue()


def read_bundle(path: Path) -> Bundle:
    """The bundle in that file; raises MribenchError naming the field when it is damaged or contradicts itself."""
    content = _content(path)
    members = _members(content, path)
    text = members[RECORD]
    record = BundleRecord.from_json(_proven(text, path), f"{path}: {RECORD}")
    pictures = {name: data for name, data in members.items() if name != RECORD}
    for name in sorted(pictures.keys() | record.files.keys()):
        if name not in pictures or hashlib.sha256(pictures[name]).hexdigest() != record.files.get(name):
            _refuse(path, f"files.{name[:120]}", "the picture is absent or has another digest")
    if _zipped({RECORD: text, **{name: pictures[name] for name in sorted(pictures)}}) != content:
        _refuse(path, "the zip around its members", "it is not what mribench export writes")
    return Bundle(path.stem, record, {name: _levels(data, name, path) for name, data in pictures.items()})


def _refuse(path: Path, field: str, fault: str) -> NoReturn:
    raise MribenchError(f"{path} must be an undamaged bundle, but {field}: {fault}. {BundleRecord.REMEDY}")


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise MribenchError(f"{path} must be a bundle, which is a regular file. Check the path.")
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MribenchError(f"{path} must be readable, but: {error.strerror or error}.") from error
    if len(content) > MOST_BYTES:
        _refuse(path, "its size", f"it has more than {MOST_BYTES} bytes")
    return content


def _members(content: bytes, path: Path) -> dict[str, bytes]:
    """Name -> bytes; nothing is read before the directory of the zip is known to be small and its names harmless."""
    if len(content) < _END.size:
        _refuse(path, "its size", "it is too short for a zip")
    signature, *_, size, start, comment = _END.unpack(content[-_END.size :])
    if signature != b"PK\5\6" or comment or start + size + _END.size != len(content):
        _refuse(path, "the end of the zip", "it is no zip, is cut off, or something follows it")
    if size > _MOST_MEMBERS * _DIRECTORY_LINE:
        _refuse(path, "the directory of the zip", f"it lists more than {_MOST_MEMBERS} members")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_directory(infos, len(content), path)
            return {info.filename: archive.read(info) for info in infos}
    except _UNREADABLE as error:
        _refuse(path, "the zip", str(error))


def _check_directory(infos: list[zipfile.ZipInfo], most: int, path: Path) -> None:
    names = [info.orig_filename for info in infos]
    if names.count(RECORD) != 1 or len(set(names)) < len(names):
        _refuse(path, "the directory of the zip", f"{RECORD} must be there, and no name twice")
    for info in infos:
        if info.orig_filename != RECORD and not _PICTURE.fullmatch(info.orig_filename):
            _refuse(path, f"the member {info.orig_filename[:120]!r}", "no bundle has a file of this name")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            _refuse(path, f"the member {info.orig_filename!r}", "members of a bundle are not compressed")
    if sum(info.file_size for info in infos) > most:
        _refuse(path, "the directory of the zip", "its members overlap")


def _proven(text: bytes, path: Path) -> object:
    """The JSON value, which must carry its own digest."""
    try:
        value = json.loads(text)
        fields = {key: item for key, item in value.items() if key != "sha256"}
        intact = value.get("sha256") == digest_json(fields)
    except (ValueError, AttributeError, RecursionError):
        _refuse(path, RECORD, "it is no JSON object, or holds what JSON does not have")
    if not intact:
        _refuse(path, f"{RECORD}: sha256", "the content does not have the digest that it carries")
    return value


def _levels(data: bytes, name: str, path: Path) -> np.ndarray:
    """`[h,w]` uint8 of a grey PNG; what a page shows is encoded anew from it."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode != "L" or max(image.size) > _MOST_SIDE:
                _refuse(path, name, f"pictures are grey and have at most {_MOST_SIDE} pixels a side")
            return np.array(image)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        _refuse(path, name, f"it is no PNG ({error})")
