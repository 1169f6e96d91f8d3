"""Atomic writing and digests."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.files import Record, append_json_line, atomic, digest_json, digest_volume, read_json, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_disk_that_refuses_is_a_clear_error(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(MribenchError, match="must be writable"):
        write_json(path / "inside.json", {})


def test_a_full_disk_is_a_clear_error():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(MribenchError, match="No space left"), atomic_to_full_disk():
        pass


def atomic_to_full_disk():
    from contextlib import contextmanager
    from pathlib import Path
    from tempfile import mkdtemp

    @contextmanager
    def writing():
        with atomic(Path(mkdtemp()) / "a"), open("/dev/full", "w") as file:
            file.write("x")
        yield

    return writing()


def test_torn_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(MribenchError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def test_digests_see_content_and_not_order():
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1}) != digest_json({"a": 1, "b": 3})
    voxels = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    assert digest_volume(voxels, np.eye(4)) == digest_volume(voxels.copy(), np.eye(4))
    assert digest_volume(voxels, np.eye(4)) != digest_volume(voxels, np.diag([2, 1, 1, 1]))
    assert digest_volume(voxels, np.eye(4)) != digest_volume(voxels.reshape(1, 4, 2), np.eye(4))


def test_a_line_that_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(
        MribenchError, match=r"lines.jsonl must be writable, but the system says: Is a directory"
    ):
        (tmp_path / "lines.jsonl").mkdir()
        append_json_line(tmp_path / "lines.jsonl", 1)


def test_a_torn_line_spoils_no_later_one(tmp_path):
    path = tmp_path / "folder" / "lines.jsonl"
    append_json_line(path, {"a": 1})
    with open(path, "a") as file:
        file.write('{"torn')
    append_json_line(path, {"b": 2})
    assert path.read_text() == '{"a": 1}\n{"torn\n{"b": 2}\n'


class Pet(Record):
    """A record for these tests."""

    SCHEMA = "mribench/pet/2"
    REMEDY = "Run: adopt"

    name: str
    legs: tuple[int, ...] = ()


def test_a_record_is_read_as_it_was_written_and_begins_with_its_schema(tmp_path):
    pet = Pet(name="Mia", legs=(1, 2))
    pet.write(tmp_path / "pet.json")
    assert list(json.loads((tmp_path / "pet.json").read_text())) == ["schema", "name", "legs"]
    assert Pet.read(tmp_path / "pet.json") == pet


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must be readable JSON"),
        ('{"schema": "mribench/pet/2", "na', "must be readable JSON"),
        ("[1]", "must hold a JSON object, but does not. Run: adopt"),
        ('{"schema": "mribench/pet/2"}', "a record of mribench/pet/2, but name: Field required. Run: adopt"),
        ('{"schema": "mribench/pet/2", "name": "Mia", "age": 3}', "but age: Extra inputs are not permitted"),
        ('{"schema": "mribench/pet/10", "name": "Mia"}', "it is of mribench/pet/10. Update mribench: pip"),
        ('{"schema": "mribench/pet/1", "name": "Mia"}', "it is of mribench/pet/1. Run: adopt"),
        ('{"name": "Mia"}', "it is of mribench/pet/1. Run: adopt"),
        ('{"schema": "mribench/plant/3", "name": "Mia"}', "it is of mribench/plant/3. Run: adopt"),
        ('{"schema": 2, "name": "Mia"}', "it is of 2. Run: adopt"),
    ],
    ids=[
        "missing",
        "torn",
        "no object",
        "field",
        "more",
        "newer",
        "older",
        "0.1.0",
        "another kind",
        "number",
    ],
)
def test_what_is_no_record_is_refused_with_a_sentence(tmp_path, text, message):
    path = tmp_path / "pet.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MribenchError) as error:
        Pet.read(path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_file_without_schema_is_of_version_1(tmp_path):
    class First(Record):
        SCHEMA = "mribench/first/1"

        name: str

    (tmp_path / "old.json").write_text('{"name": "Mia"}')
    assert First.read(tmp_path / "old.json") == First(name="Mia")
