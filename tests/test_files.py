"""Atomic writing and digests."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest

from mribench.errors import MribenchError
from mribench.files import (
    Record,
    append_json_line,
    atomic,
    check_seal,
    differing,
    digest_json,
    digest_volume,
    read_array,
    read_json,
    read_json_lines,
    sealed,
    write_array,
    write_json,
    write_sums,
)


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
    assert read_json_lines(path) == (['{"a": 1}', '{"b": 2}'], 1)


def flips(content, seed, count):
    """Copies of `content`, each with one bit flipped."""
    rng = np.random.default_rng(seed)
    for place, bit in zip(rng.integers(len(content), size=count), rng.integers(8, size=count), strict=True):
        yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_a_line_with_a_flipped_bit_is_left_out_and_one_without_digest_is_read(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_json_line(path, {"step": 1, "loss": float("nan")})
    line = path.read_bytes()
    for damaged in flips(line[:-1], 0, 300):
        path.write_bytes(damaged + b"\n")
        lines, torn = read_json_lines(path)
        assert lines == [] and torn
    path.write_text('{"step": 1}\n')
    assert read_json_lines(path) == (['{"step": 1}'], 0)


def test_an_array_with_a_flipped_bit_another_name_or_no_seal_is_computed_again(tmp_path):
    path, array = tmp_path / "pairs-1.npy", np.arange(12.0).reshape(3, 4)
    write_array(path, array)
    content = path.read_bytes()
    assert np.array_equal(read_array(path, 3), array) and np.array_equal(np.load(path), array)
    assert check_seal(path)
    for damaged in (*flips(content, 1, 300), content[:-86], content[:100], b""):
        path.write_bytes(damaged)
        assert read_array(path, 3) is None
    path.write_bytes(content)
    assert read_array(path.rename(tmp_path / "pairs-2.npy"), 3) is None


def test_a_seal_shows_every_flipped_bit(tmp_path):
    path = tmp_path / "state.pt"
    with sealed(path) as file:
        file.write(b"x" * 500)
    content = path.read_bytes()
    for damaged in flips(content, 2, 300):
        path.write_bytes(damaged)
        with pytest.raises(MribenchError, match="seal says"):
            check_seal(path)
    path.write_bytes(content[:500])
    assert not check_seal(path)


def test_sums_are_those_of_sha256sum(tmp_path):
    for name in ("a.csv", "b.html"):
        (tmp_path / name).write_text(name)
    write_sums(tmp_path, ["b.html", "a.csv"])
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 0
    assert differing(tmp_path) == []
    (tmp_path / "a.csv").write_text("other")
    (tmp_path / "b.html").unlink()
    assert differing(tmp_path) == ["a.csv", "b.html"]


class Pet(Record):
    """A record for these tests."""

    SCHEMA = "mribench/pet/2"
    REMEDY = "Run: adopt"

    name: str
    legs: tuple[int, ...] = ()


def test_a_record_is_read_as_it_was_written_and_begins_with_its_schema(tmp_path):
    pet = Pet(name="Mia", legs=(1, 2))
    pet.write(tmp_path / "pet.json")
    assert list(json.loads((tmp_path / "pet.json").read_text())) == ["schema", "sha256", "name", "legs"]
    assert Pet.read(tmp_path / "pet.json") == pet


def test_a_record_with_a_flipped_bit_is_refused_or_says_the_same(tmp_path):
    pet, path = Pet(name="Mia", legs=(1, 2)), tmp_path / "pet.json"
    pet.write(path)
    content, refused = path.read_bytes(), 0
    for damaged in flips(content, 3, 400):
        path.write_bytes(damaged)
        try:
            assert Pet.read(path) == pet  # a space for a line break, say
        except MribenchError:
            refused += 1
    assert refused > 390


def test_a_record_changed_on_purpose_is_read_without_its_digest(tmp_path):
    path = tmp_path / "pet.json"
    Pet(name="Mia").write(path)
    value = {**read_json(path), "name": "Leo"}
    write_json(path, value)
    with pytest.raises(MribenchError, match=r'changed by hand. Run: adopt .* without its line "sha256"'):
        Pet.read(path)
    del value["sha256"]
    write_json(path, value)
    assert Pet.read(path).name == "Leo"


def test_json_nested_without_end_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(MribenchError, match="must be readable JSON"):
        read_json(tmp_path / "a.json")


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
