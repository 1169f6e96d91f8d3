"""Blocks are computed once, survive a kill, and lose no score to another's trouble."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from torch import nn

from mribench.data.volume_set import VolumeSet
from mribench.errors import MribenchError, UsageError
from mribench.metrics import default_metrics
from mribench.metrics.arrays import cache as cache_module
from mribench.metrics.arrays import pairs
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.arrays.distances import VoxelDistance, join_views
from mribench.metrics.features import slices as features
from mribench.metrics.fid import frechet_distance
from mribench.metrics.kid import kid
from mribench.metrics.mmd import mmd2
from mribench.metrics.ms_ssim import ms_ssim_matrix
from mribench.metrics.prdc import prdc
from mribench.metrics.scoring import score_all
from mribench.runtime import Context

SHAPE = (14, 18, 16)
CENTRAL = {f"fid_{view}_central" for view in "acs"}
OF_VIEWS = {f"{kind}_{view}" for kind in ("fid", "kid") for view in "acs"} | CENTRAL
OF_FEATURES = OF_VIEWS | {"mmd", "precision", "recall", "density", "coverage"}


def brain(seed):
    """A smooth blob that differs between seeds; float32 `[14,18,16]` in [0,1]."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.linspace(-1, 1, side) for side in SHAPE], indexing="ij")
    inside = sum((axis / rng.uniform(0.75, 0.9)) ** 2 for axis in grid) < 1
    texture = gaussian_filter(rng.normal(size=SHAPE), 1.5)
    return np.where(inside, np.clip(0.5 + texture, 0, 1), 0).astype(np.float32)


def volume_set(name, volumes, slab=None):
    digests = tuple(hashlib.sha256(v.tobytes()).hexdigest() for v in volumes)
    names = tuple(f"{name}-{i}" for i in range(len(volumes)))
    return VolumeSet(name, names, digests, volumes[0].shape, lambda i: volumes[i], slab)


def several(name, first, count):
    return volume_set(name, [brain(seed) for seed in range(first, first + count)])


@pytest.fixture(scope="module")
def sets():
    everyone = {"train": (0, 6), "reference": (100, 8), "holdout": (200, 6), "samples": (300, 7)}
    return {name: several(name, *span) for name, span in everyone.items()}


class Coarse(nn.Module):
    """A network without weights: the slice on a 7 x 7 grid."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x[:, :1], 7).flatten(1)


@pytest.fixture(autouse=True, scope="module")
def coarse_network():
    """The real extractor is tested in metrics/test_features.py; here its place is what matters."""
    original = features.load_network

    def load(extractor, weights, device):
        if extractor.name == "effnet-lite0":
            return Coarse()
        return original(extractor, weights, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "load_network", load)
        yield


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network must not be needed")

    monkeypatch.setattr(features, "load_network", refuse)


@pytest.fixture(scope="module")
def cached(sets, tmp_path_factory):
    """The scores of a first evaluation, and the folder that holds its blocks."""
    folder = tmp_path_factory.mktemp("blocks")
    return score_all(Arrays(sets, folder)), folder


def test_every_default_metric_is_scored_in_order(cached):
    (scores, missing), _ = cached
    assert [one.metric for one in scores] == [name for name in default_metrics() if name != "anatomy"]
    assert [(one.metric, one.by_design) for one in missing] == [("anatomy", True)]  # the blobs are too coarse


def test_scores_are_the_public_functions_of_the_sets(cached, sets):
    (scores, _), folder = cached
    found = {one.metric: one for one in scores}
    arrays = Arrays(sets, folder)
    reference, samples = (sets[name].stack() for name in ("reference", "samples"))
    flat = [volumes.reshape(len(volumes), -1).astype(float) for volumes in (reference, samples)]
    joined = [join_views(arrays.features, name) for name in ("reference", "samples")]
    coronal = [arrays.features(name, "coronal") for name in ("reference", "samples")]
    by_position = list(zip(*(features.swapaxes(0, 1) for features in coronal), strict=True))
    assert arrays.positions("coronal") == (3, 9, 15)
    expected = {
        "ms_ssim": ms_ssim_matrix(samples)[np.triu_indices(7, 1)].mean(),
        "mmd": mmd2(*joined, kernel="gaussian-bank"),
        "mmd_voxel": mmd2(*flat) / reference[0].size,
        "mmd_legacy": mmd2(*flat, estimator="biased"),
        "fid_c": np.mean([frechet_distance(*at) for at in by_position]),
        "fid_c_central": frechet_distance(*by_position[1]),
        "kid_c": np.mean([kid(*at) for at in by_position]),
        **prdc(*joined)._asdict(),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected, rel=1e-6)
    assert found["ms_ssim"].target == pytest.approx(ms_ssim_matrix(reference)[np.triu_indices(8, 1)].mean())


def test_a_second_evaluation_computes_no_block(cached, sets, no_network, monkeypatch):
    (first, _), folder = cached
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr(cache_module, "pair_matrix", lambda *a, **k: pytest.fail("a pair was computed again"))
    second, missing = score_all(Arrays(sets, folder))
    assert set(reasons(missing)) == {"anatomy"}
    assert [one.value for one in second] == [one.value for one in first]
    assert [one.replicates for one in second] == [one.replicates for one in first]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert all(name.endswith(".npy") for name in before)


def test_without_a_cache_the_values_are_the_same(cached, sets):
    (first, _), _ = cached
    second, _ = score_all(Arrays(sets, None))
    assert [one.value for one in second] == pytest.approx([one.value for one in first], rel=1e-6)


def test_other_samples_reuse_the_real_blocks(cached, sets):
    _, folder = cached
    before = {path.name for path in folder.iterdir()}
    score_all(Arrays({**sets, "samples": several("samples", 900, 7)}, folder))
    # features; seams; two symmetric matrices; voxels x reference; nearest of train and of holdout, mirrored too
    assert len({path.name for path in folder.iterdir()} - before) == 9


def test_torn_cache_files_are_computed_again(sets, tmp_path, caplog):
    first = Arrays(sets, tmp_path).pairs("samples", "train")
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(Arrays(sets, tmp_path).pairs("samples", "train"), first)
    assert "computing it again" in caplog.text


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import test_evaluation as t
    from mribench.metrics.arrays import pairs
    pairs.GROUP_ROWS = 2
    def die(what, done, total):
        if done >= 4:
            os.kill(os.getpid(), signal.SIGKILL)
    sets = {{"samples": t.several("samples", 300, 7), "reference": t.several("reference", 100, 5)}}
    t.Arrays(sets, Path({cache!r}), context=t.Context(progress=die)).pairs("samples", "reference")
"""


def test_a_killed_pair_matrix_continues_where_it_stopped(tmp_path, monkeypatch):
    code = KILLED.format(tests=os.path.dirname(__file__), cache=str(tmp_path))
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    assert len(list(tmp_path.glob("*.parts/*.npy"))) == 2
    monkeypatch.setattr(pairs, "GROUP_ROWS", 2)
    computed = []
    original = pairs._row_group
    monkeypatch.setattr(pairs, "_row_group", lambda *a: computed.append(a[1:3]) or original(*a))
    sets = {"samples": several("samples", 300, 7), "reference": several("reference", 100, 5)}
    matrix = Arrays(sets, tmp_path).pairs("samples", "reference")
    assert computed == [(4, 6), (6, 7)]
    assert matrix == pytest.approx(
        ms_ssim_matrix(sets["samples"].stack(), sets["reference"].stack()), abs=1e-7
    )
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_progress_names_what_is_done(sets):
    seen = []
    Arrays(sets, None, context=Context(progress=lambda *report: seen.append(report))).pairs(
        "samples", "train"
    )
    assert seen == [("msssim3d samples x train", 7, 7)]


def test_nearest_are_best_first(sets):
    arrays = Arrays({**sets, "samples": several("samples", 3, 2)}, None)  # training volumes 3 and 4
    indices, similarities = arrays.nearest("samples", "train", 3)
    assert indices[:, 0].tolist() == [3, 4]
    assert similarities[:, 0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(similarities, axis=1) <= 0).all()
    with pytest.raises(MribenchError, match="7 nearest volumes"):
        arrays.nearest("samples", "train", 7)


def reasons(missing):
    return {one.metric: one.reason for one in missing}


def test_a_missing_holdout_costs_memorisation_alone(sets, no_network):
    chosen = ("ms_ssim", "memorisation", "copy_rate")
    scores, missing = score_all(Arrays({k: v for k, v in sets.items() if k != "holdout"}, None), chosen)
    assert [one.metric for one in scores] == ["ms_ssim", "copy_rate"]
    assert "'holdout'" in reasons(missing)["memorisation"]


def test_missing_weights_cost_the_feature_metrics_alone(sets):
    scores, missing = score_all(Arrays(sets, None, "inception-2015"))
    assert set(reasons(missing)) == OF_FEATURES | {"anatomy"}
    assert "--weights PATH" in reasons(missing)["fid_a"]
    assert len(scores) == len(default_metrics()) - len(OF_FEATURES) - 1


def test_too_few_samples_are_named(sets):
    scores, missing = score_all(Arrays({**sets, "samples": several("samples", 300, 2)}, None))
    assert {"fid_a", "mmd", "ms_ssim"} < set(reasons(missing))
    assert "at least 3 volumes in 'samples'" in reasons(missing)["fid_a"]
    assert [one.metric for one in scores] == ["memorisation", "copy_rate"]


def test_a_faulty_metric_loses_no_other_score(sets, monkeypatch, caplog):
    monkeypatch.setattr(Arrays, "nearest", lambda *a, **k: 1 / 0)
    scores, missing = score_all(Arrays(sets, None), ("copy_rate", "mmd_voxel"))
    assert [one.metric for one in scores] == ["mmd_voxel"]
    assert "ZeroDivisionError" in reasons(missing)["copy_rate"]
    assert "Traceback" in caplog.text


def test_a_spoiled_volume_is_named(sets):
    spoiled = [brain(1), brain(2), np.full(SHAPE, np.nan, np.float32)]
    samples = volume_set("samples", spoiled)
    _, missing = score_all(Arrays({**sets, "samples": samples}, None), ("ms_ssim", "fid_a"))
    assert all("samples-2" in reason for reason in reasons(missing).values())


def test_unknown_names_and_other_grids_are_refused_at_once(sets):
    with pytest.raises(UsageError, match="Did you mean 'fid_a'"):
        score_all(Arrays(sets, None), ("fida",))
    with pytest.raises(MribenchError, match=r"reference is \[14, 18, 15\]"):
        cut = volume_set("reference", [brain(i)[:, :, :15] for i in range(4)])
        score_all(Arrays({**sets, "reference": cut}, None))
    with pytest.raises(MribenchError, match="'reference', but it is empty"):
        score_all(Arrays({"samples": sets["samples"]}, None))


def test_a_held_out_volume_is_not_its_own_neighbour(sets):
    """The control real_heldout; without the exclusion its AUC would be 0."""
    (found,), _ = score_all(Arrays({**sets, "samples": sets["holdout"]}, None), ("memorisation",))
    assert 0 < found.value < 1


def test_an_exact_copy_of_a_training_volume_is_a_copy(sets):
    samples = sets["train"].subset([0, 1, 2])
    (auc, copies), _ = score_all(Arrays({**sets, "samples": samples}, None), ("memorisation", "copy_rate"))
    assert (auc.value, copies.value) == (1, 1)


@pytest.fixture
def slab(sets):
    """The same samples, but only their axial slices 5 to 9 of 14."""
    return volume_set("samples", [v[5:10] for v in sets["samples"].stack()], slab=(5, 10))


def test_a_slab_is_compared_with_the_same_slab(cached, sets, slab):
    (whole, _), folder = cached
    scores, missing = score_all(Arrays({**sets, "samples": slab}, folder))
    across = {"fid_c", "fid_s", "kid_c", "kid_s", "fid_c_central", "fid_s_central"}
    assert set(reasons(missing)) == {*across, "anatomy"}
    assert "axial slices 5 to 9" in reasons(missing)["fid_c"]
    by_name, full = ({one.metric: one for one in many} for many in (scores, whole))
    central = "fid_a_central"
    assert by_name[central].value == pytest.approx(full[central].value, rel=1e-4)
    assert by_name[central].version == full[central].version
    assert not [one.metric for one in scores if one.ranked]
    for name in ("ms_ssim", "fid_a", "kid_a", "slice_consistency"):
        assert "not ranked" in by_name[name].notes[0]
        assert by_name[name].version != full[name].version
    assert by_name["fid_a"].value == by_name[central].value  # the slab holds one of the three positions


def test_a_slab_beside_the_central_slice_has_no_fid_of_it(sets):
    samples = volume_set("samples", [v[:5] for v in sets["samples"].stack()], slab=(0, 5))
    (score,), missing = score_all(Arrays({**sets, "samples": samples}, None), ("fid_a", "fid_a_central"))
    assert "central axial slice 7" in reasons(missing)["fid_a_central"]
    assert "slice:2" in score.signature


def test_duplicates_are_noted(sets):
    samples = volume_set("samples", [brain(1)] * 4)
    (found,), _ = score_all(Arrays({**sets, "samples": samples}, None), ("ms_ssim",))
    assert found.value == pytest.approx(1, abs=1e-6)
    assert found.notes == ("3 of 4 samples are exact duplicates of others",)


def test_voxel_pairs_are_kept_apart_from_similarity(sets, tmp_path):
    arrays = Arrays(sets, tmp_path)
    assert arrays.pairs("samples", "train", VoxelDistance()).min() > 1
    assert arrays.pairs("samples", "train").max() < 1
    assert len(list(tmp_path.glob("pairs-*.npy"))) == 2
