"""Records: written and read by one class, with a schema; older and newer files, damaged scores."""

from __future__ import annotations

import json

import pytest

from mribench.bench.folder import create_bench, open_bench
from mribench.bench.protocol import load_protocol
from mribench.bench.records import (
    RECORDS,
    BenchRecord,
    EmbeddingRecord,
    NearestPair,
    NearestRecord,
    RunRecord,
    SampleFile,
    SamplesRecord,
    ScoresRecord,
    WeightsRecord,
)
from mribench.data.records import CohortRecord
from mribench.errors import MribenchError
from mribench.files import read_json, write_json
from mribench.runtime import DeviceRecord

DEVICE = DeviceRecord(device="cpu", name="x86_64", threads=2, precision="fp32", tf32=False)
PROTOCOL = load_protocol("demo")
EXAMPLES = [
    BenchRecord(protocol=PROTOCOL, protocol_digest=PROTOCOL.digest, versions={"torch": "2.14"}),
    RunRecord(kind="model", model="cdpm", config={"size": 32, "widths": [1, 2]}, seed=3, device=DEVICE),
    WeightsRecord(digest="d", run_digest="r", step=3, seen=12, seconds=1.5, device=DEVICE),
    SamplesRecord(
        made_from="m",
        shape=(8, 16, 16),
        slab=(4, 12),
        sampler={"eta": 0.5},
        files=(SampleFile(index=0, name="000000.nii.gz", digest="d", file_digest="f", seconds=0.1),),
    ),
    ScoresRecord(entrant="cdpm", made_from="m", rescale=(0.0, 255.0)),
    NearestRecord(
        pairs=(
            NearestPair(
                sample="a", sample_index=0, neighbour="b", neighbour_index=1, similarity=0.9, second=0.8
            ),
        )
    ),
    EmbeddingRecord(made_from="m"),
]


def test_every_kind_of_record_has_an_example_here():
    assert {type(example) for example in EXAMPLES} == set(RECORDS.values()) - {CohortRecord}  # in tests/data


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_is_read_back_as_it_was_written(record, tmp_path):
    record.write(tmp_path / "record.json")
    assert type(record).read(tmp_path / "record.json") == record
    assert next(iter(read_json(tmp_path / "record.json"))) == "schema"


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_newer_schema_is_refused_with_the_way_out(record, tmp_path):
    kind, _, version = record.SCHEMA.rpartition("/")
    path = tmp_path / "record.json"
    write_json(path, {**record.as_json(), "schema": f"{kind}/{int(version) + 1}"})
    with pytest.raises(MribenchError, match=rf"{record.SCHEMA}, which this version reads.*Update mribench"):
        type(record).read(path)


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_the_published_schema_names_every_field_that_is_written(record):
    schema = type(record).json_schema()
    assert schema["$id"] == record.SCHEMA and schema["properties"]["schema"] == {"const": record.SCHEMA}
    assert set(record.as_json()) <= set(schema["properties"])
    assert set(schema.get("required", ())) <= set(record.as_json())
    json.dumps(schema)


def test_a_bench_of_version_0_1_0_is_opened(tmp_path):
    """Its files have no schema and no digest."""
    bench = create_bench(tmp_path / "bench", PROTOCOL)
    record = read_json(bench.folder / "bench.json")
    del record["schema"], record["sha256"]
    write_json(bench.folder / "bench.json", record)
    assert open_bench(bench.folder).protocol == PROTOCOL


def test_a_bench_changed_by_hand_is_refused(tmp_path):
    bench = create_bench(tmp_path / "bench", PROTOCOL)
    record = read_json(bench.folder / "bench.json")
    record["protocol"]["evaluation"]["samples"] = 3
    write_json(bench.folder / "bench.json", record)
    with pytest.raises(MribenchError, match="changed by hand"):
        open_bench(bench.folder)
    del record["sha256"]
    write_json(bench.folder / "bench.json", record)
    with pytest.raises(MribenchError, match="protocol digest expected"):
        open_bench(bench.folder)


def test_a_damaged_score_becomes_a_missing_metric_and_leaves_the_others(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, {"schema": ScoresRecord.SCHEMA, "scores": [{"metric": "mmd", "value": "plenty"}, 7]})
    record = ScoresRecord.read(path)
    assert record.scores == () and [absent.metric for absent in record.missing] == ["mmd", "unknown"]
    assert all("damaged" in absent.reason for absent in record.missing)


def test_samples_outside_their_folder_are_refused(tmp_path):
    record = SamplesRecord(made_from="", shape=(4, 4, 4), files=(SampleFile(name="a.nii.gz", digest=""),))
    path = tmp_path / "samples.json"
    write_json(path, {**record.as_json(), "files": [{"name": "../../a.nii.gz", "digest": ""}]})
    with pytest.raises(MribenchError, match="must lie in samples/"):
        SamplesRecord.read(path)


def test_what_decides_the_weights_decides_the_identity_of_a_run():
    run = RunRecord(kind="model", model="cdpm", config={"size": 32}, seed=0, cohort_digest="c")
    assert (
        run.model_copy(update={"title": "x", "device": DEVICE, "versions": {"a": "b"}}).digest == run.digest
    )
    for change in ({"seed": 1}, {"config": {"size": 16}}, {"cohort_digest": "d"}, {"model": "ha_gan"}):
        assert run.model_copy(update=change).digest != run.digest
