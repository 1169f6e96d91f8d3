"""What must hold of any input: what was written is read back, and numbers depend on nothing but the volumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mribench.bench.protocol import Protocol, load_protocol
from mribench.bench.records import NearestPair, NearestRecord, SampleFile, SamplesRecord
from mribench.data.grid import dequantise, paper_grid, quantise
from mribench.data.nifti import read_nifti, write_nifti
from mribench.files import append_json_line, digest_volume, read_array, read_json_lines, write_array
from mribench.metrics.arrays.nearest import nearest_neighbours
from mribench.metrics.arrays.pairs import pair_matrix
from mribench.metrics.arrays.similarity import definition_for
from mribench.metrics.fid import frechet_distance
from mribench.metrics.kid import kid
from mribench.metrics.mmd import mmd2
from mribench.metrics.prdc import prdc
from mribench.metrics.statistics.comparison import mean_ranks

EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, database=None)
TEXTS = st.text(max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("properties")


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: Path(name).name == name
)
sample_files = st.builds(SampleFile, index=st.integers(0, 10**6), name=names, digest=TEXTS, file_digest=TEXTS)
pairs = st.builds(NearestPair, sample=TEXTS, neighbour=TEXTS, similarity=NUMBERS, second=NUMBERS)


@EXAMPLES
@given(made_from=TEXTS, seed=st.integers(), files=st.lists(sample_files, max_size=4))
def test_a_record_of_samples_is_read_as_it_was_written(folder, made_from, seed, files):
    record = SamplesRecord(made_from=made_from, seed=seed, shape=(1, 2, 3), files=tuple(files))
    record.write(folder / "samples.json")
    assert SamplesRecord.read(folder / "samples.json") == record


@EXAMPLES
@given(st.lists(pairs, max_size=4), NUMBERS)
def test_every_finite_number_of_a_record_survives(folder, pairs, threshold):
    record = NearestRecord(pairs=tuple(pairs), copy_threshold=threshold)
    record.write(folder / "nearest.json")
    assert NearestRecord.read(folder / "nearest.json") == record


json_values = st.dictionaries(TEXTS, st.recursive(st.none() | st.booleans() | NUMBERS | TEXTS, st.lists))


@EXAMPLES
@given(st.lists(json_values.filter(lambda value: "sha256" not in json.dumps(value)), max_size=4))
def test_lines_are_read_as_they_were_written(folder, values):
    path = folder / "lines.jsonl"
    path.unlink(missing_ok=True)
    for value in values:
        append_json_line(path, value)
    lines, damaged = read_json_lines(path) if values else ([], 0)
    assert [json.loads(line) for line in lines] == values and damaged == 0


shapes = arrays.array_shapes(min_dims=1, max_dims=3, max_side=5)


@EXAMPLES
@given(arrays.arrays(st.sampled_from([np.float32, np.float64, np.uint16, np.int64]), shapes))
def test_an_array_is_read_as_it_was_written(folder, array):
    write_array(folder / "array.npy", array)
    again = read_array(folder / "array.npy", len(array))
    assert again is not None and again.dtype == array.dtype
    assert np.array_equal(again, array, equal_nan=array.dtype.kind == "f")


@EXAMPLES
@given(arrays.arrays(np.uint16, (4, 5, 6)))
def test_a_volume_keeps_its_digest_through_a_file(folder, voxels):
    voxels[0, 0, :2] = 0, 1  # a constant volume is refused
    affine = paper_grid(16).affine
    write_nifti(folder / "volume.nii.gz", dequantise(voxels), affine)
    volume = read_nifti(folder / "volume.nii.gz")
    assert np.array_equal(quantise(volume.data), voxels)
    assert digest_volume(quantise(volume.data), volume.affine) == digest_volume(voxels, affine)


@EXAMPLES
@given(
    st.integers(2, 50),
    st.integers(2, 50),
    st.integers(0, 9),
    st.integers(16, 64),
    st.dictionaries(TEXTS, TEXTS),
)
def test_a_protocol_is_read_as_it_was_written_and_training_is_no_part_of_it(
    train, reference, seed, size, training
):
    base = load_protocol("demo").model_dump(mode="json")
    cohort = {"source": "simulated", "size": size, "train": train, "reference": reference, "holdout": 2}
    protocol = Protocol.model_validate({**base, "cohort": cohort, "seed": seed})
    again = Protocol.model_validate_json(protocol.model_dump_json())
    assert again == protocol and again.digest == protocol.digest
    assert protocol.model_copy(update={"training": training}).digest == protocol.digest
    assert protocol.model_copy(update={"seed": seed + 1}).digest != protocol.digest


features = arrays.arrays(
    np.float64, st.tuples(st.integers(5, 9), st.just(4)), elements=st.floats(-8, 8, width=16)
)


def jittered(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows, no two of which are equal."""
    return rows + np.random.default_rng(seed).normal(0, 0.1, rows.shape)


@EXAMPLES
@given(features, features, st.randoms(use_true_random=False))
def test_distances_of_sets_depend_on_no_order_and_the_symmetric_ones_on_no_side(a, b, random):
    a, b = jittered(a, 1), jittered(b, 2)
    order = random.sample(range(len(a)), len(a))
    for distance in (frechet_distance, mmd2, kid, lambda x, y: mmd2(x, y, "gaussian")):
        value = distance(a, b)
        assert distance(a[order], b) == pytest.approx(value, rel=1e-7, abs=1e-7 * max(1.0, abs(value)))
        assert distance(b, a) == pytest.approx(value, rel=1e-6, abs=1e-6 * max(1.0, abs(value)))
    assert prdc(a[order], b, k=2) == pytest.approx(prdc(a, b, k=2))


@settings(EXAMPLES, max_examples=8)
@given(st.integers(0, 10**6), st.integers(3, 6), st.integers(2, 5), st.integers(2, 40))
def test_similarities_and_neighbours_do_not_depend_on_memory(seed, rows, columns, budget):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((n, 16, 16, 16), dtype=np.float32) for n in (rows, columns))
    kernel = definition_for(16)
    whole = pair_matrix(a, b, kernel)
    small = pair_matrix(a, b, kernel, memory=budget * 10**6)
    assert np.array_equal(whole, small) and np.array_equal(pair_matrix(b, a, kernel).T, whole)
    assert np.array_equal(pair_matrix(a[::-1].copy(), b, kernel)[::-1], whole)
    first, second = nearest_neighbours(a, b, 2), nearest_neighbours(a, b, 2, memory=budget * 10**6)
    assert np.array_equal(first.indices, second.indices) and np.array_equal(first.scores, second.scores)


@EXAMPLES
@given(arrays.arrays(np.float64, (3, 5), elements=st.integers(0, 6).map(float)), st.permutations(range(5)))
def test_ranks_move_with_the_entrants_and_do_not_depend_on_their_order(keys, order):
    table = dict(zip("abc", keys, strict=True))
    ranks = mean_ranks(table.__getitem__, [["a", "b"], ["c"]])
    moved = mean_ranks(lambda metric: table[metric][order], [["a", "b"], ["c"]])
    assert moved == pytest.approx(ranks[order]) and ranks.sum() == pytest.approx(15)
