"""Real baselines: which real volumes they take, how a split of the reference is extrapolated, and what they cost."""

import hashlib

import numpy as np
import pytest
from torch import nn

from mribench.data.volume_set import VolumeSet
from mribench.metrics import default_metrics, get_metric
from mribench.metrics.arrays import cache as cache_module
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features import slices as features
from mribench.metrics.fid import FID_A, FrechetSubsets
from mribench.metrics.scoring import score_all
from mribench.metrics.statistics.real_baseline import RealBaselines, Split, continued, has_real_baseline
from mribench.runtime import Context

CHOSEN = ("ms_ssim", "mmd", "fid_a", "kid_a", "coverage", "mmd_voxel", "copy_rate")


def volumes(role, first, count, slab=None):
    """Smooth noise of one distribution, `[12,12,12]`."""

    def load(i):
        rng = np.random.default_rng(first + i)
        coarse = rng.random((3, 3, 3)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
        return (0.7 * coarse + 0.3 * rng.random((12, 12, 12))).astype(np.float32)

    names = tuple(f"{first + i}" for i in range(count))
    digests = tuple(hashlib.sha256(name.encode()).hexdigest() for name in names)
    whole = VolumeSet(role, names, digests, (12, 12, 12), load)
    return whole.crop(slab)


class Coarse(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x[:, :1], 4).flatten(1)


@pytest.fixture(autouse=True)
def coarse_network(monkeypatch):
    monkeypatch.setattr(features, "load_network", lambda *_: Coarse())


def real_baselines(metrics=CHOSEN, cache=None, **sets):
    everyone = {"samples": volumes("model", 0, 8), "reference": volumes("reference", 100, 16), **sets}
    scores, missing = score_all(Arrays(everyone, cache), metrics)
    assert not missing
    return {score.metric: score for score in scores}


def test_every_comparison_with_the_reference_has_a_real_baseline_and_nothing_else():
    without = {name for name in default_metrics() if not has_real_baseline(get_metric(name))}
    assert without == {"memorisation", "copy_rate"}


def test_held_out_volumes_come_first_and_score_as_if_they_were_samples():
    sets = {"holdout": volumes("holdout", 200, 9), "train": volumes("train", 300, 12)}
    found = real_baselines(**sets)
    real = real_baselines(**{**sets, "samples": volumes("real_heldout", 200, 8)})
    for name, score in found.items():
        if name == "copy_rate":
            assert score.real_baseline is None and score.notes == ()
            continue
        assert score.real_baseline.how == "8 held-out volumes"
        assert score.real_baseline.n == 8
        expected = (real[name].value, real[name].low, real[name].high)
        assert (
            score.real_baseline.value,
            score.real_baseline.low,
            score.real_baseline.high,
        ) == pytest.approx(expected, rel=1e-9)
        assert real[name].real_baseline.how == "8 held-out volumes: these samples themselves"


def test_a_collapsed_generator_has_a_score_and_a_small_p():
    """Thirty times the same volume against eight: most pooled distances are 0."""
    same = volumes("model", 0, 1).subset([0] * 30)
    found = real_baselines(("mmd",), samples=same, reference=volumes("reference", 100, 8))["mmd"]
    assert found.value > 0.1 and found.p_value < 0.01


def test_volumes_of_the_reference_are_never_their_own_real_baseline():
    """The folder mode's holdout is the reference itself, and a reference drawn from train shares volumes."""
    train = volumes("train", 100, 24)  # the first 16 are the reference
    found = real_baselines(holdout=volumes("reference", 100, 16), train=train)
    assert found["fid_a"].real_baseline.how == "8 training volumes outside the reference"
    fresh = real_baselines(("fid_a",), train=train, **{"samples": volumes("x", 116, 8)})
    assert found["fid_a"].real_baseline.value == pytest.approx(fresh["fid_a"].value, rel=1e-9)


def test_without_other_volumes_the_reference_is_split():
    found = real_baselines(metrics=CHOSEN[:-1], reference=volumes("reference", 100, 24))
    assert found["fid_a"].real_baseline.how == "parts of the reference, extrapolated from 6 against 18"
    assert found["fid_a"].real_baseline.n == 8
    assert found["mmd"].real_baseline.how == "parts of the reference, 6 against 18, not extrapolated"
    assert found["mmd"].real_baseline.n == 6
    assert found["coverage"].real_baseline is None
    assert "Coverage needs 7 real volumes in place of the samples" in found["coverage"].notes[0]
    for name in ("ms_ssim", "mmd", "fid_a", "kid_a", "mmd_voxel"):
        real_baseline = found[name].real_baseline
        assert real_baseline.low <= real_baseline.value <= real_baseline.high


def test_a_split_of_identical_samples_and_reference_is_about_no_difference():
    """The real baseline of an unbiased metric holds its target."""
    found = real_baselines(("ms_ssim", "mmd_voxel", "kid_a"))
    for score in found.values():
        assert score.real_baseline.low <= score.target <= score.real_baseline.high


def test_ms_ssim_of_a_split_keeps_the_gap_between_the_parts():
    rng = np.random.default_rng(0)
    half = rng.random((10, 10)) / 10
    matrix = half + half.T + np.eye(10)
    metric = get_metric("ms_ssim")
    split, prepared = Split(10, 10), {"samples": matrix, "reference": matrix}
    order = np.random.default_rng(0).permutation(10)
    first, second = (
        matrix[np.ix_(part, part)][np.triu_indices(5, 1)].mean() for part in (order[:5], order[5:])
    )
    value, low, high = split.measured(metric, prepared)
    assert value - matrix[np.triu_indices(10, 1)].mean() == pytest.approx(first - second)
    assert low < value < high


def test_too_small_a_reference_gives_a_note_and_keeps_the_score():
    found = real_baselines(("fid_a",), reference=volumes("reference", 100, 4))["fid_a"]
    assert found.real_baseline is None
    assert "no real baseline: FID-A needs 2 real volumes" in found.notes[0]


def test_a_fault_in_the_real_baseline_keeps_the_score(monkeypatch):
    monkeypatch.setattr(RealBaselines, "of", lambda *_: 1 / 0)
    found = real_baselines(("mmd_voxel",))["mmd_voxel"]
    assert found.real_baseline is None
    assert found.notes == ("no real baseline: ZeroDivisionError: division by zero",)


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_a_power_law_is_continued_exactly(power):
    sizes = [5 * (1 / 2**octave) ** -power for octave in range(3)]
    for count in (2, 3):
        assert continued(sizes[:count], 0.5) == pytest.approx(5 * 2 ** (-0.5 * power))


def test_a_parabola_is_continued_exactly_within_bounds():
    parabola = lambda octave: 2 ** (3 - 0.5 * octave - 0.1 * octave**2)  # noqa: E731
    assert continued([parabola(0), parabola(-1), parabola(-2)], 0.7) == pytest.approx(parabola(0.7))
    assert continued([4.0, 16.0, 64.0], 1) == 2  # a bias falls no faster than 1 / n
    assert continued([4.0, 3.0, 2.0], 1) == 4  # and does not rise


@pytest.mark.parametrize(("alpha", "error"), [(0.7, 0.06), (1.0, 0.06)])
def test_extrapolated_real_baseline_of_power_law_spectra(alpha, error):
    """Fewer volumes than features, where the bias is no power of n: within a few per cent of fresh volumes."""
    rng, d = np.random.default_rng(5), 512
    deviations = np.arange(1, d + 1) ** (-alpha / 2)
    reference, fresh = (rng.normal(size=(120, d)) * deviations for _ in range(2))
    expected = FrechetSubsets(reference, fresh).distance(np.arange(120), np.arange(120))
    value, low, high = Split(120, 120).extrapolated(FID_A, (FrechetSubsets(reference, reference),))
    assert value == pytest.approx(expected, rel=error)
    assert low < expected < high


def test_a_slab_has_the_real_baseline_of_the_same_slab():
    slab = (2, 9)
    sets = {"holdout": volumes("holdout", 200, 9)}
    found = real_baselines(("ms_ssim", "fid_a"), **sets, **{"samples": volumes("model", 0, 8, slab)})
    real = real_baselines(("ms_ssim", "fid_a"), **sets, **{"samples": volumes("real", 200, 8, slab)})
    for name, score in found.items():
        assert score.real_baseline.value == pytest.approx(real[name].value, rel=1e-9)


def test_a_second_entrant_reuses_the_real_baselines(tmp_path, monkeypatch):
    sets = {"holdout": volumes("holdout", 200, 9)}
    first = real_baselines(cache=tmp_path, metrics=("ms_ssim", "fid_a"), **sets)
    monkeypatch.setattr(Arrays, "with_samples", _reading_only(Arrays.with_samples))
    second = real_baselines(
        cache=tmp_path, metrics=("ms_ssim", "fid_a"), **sets, **{"samples": volumes("other", 50, 8)}
    )
    assert [s.real_baseline for s in second.values()] == [s.real_baseline for s in first.values()]


def _reading_only(with_samples):
    def wrapped(self, samples):
        other = with_samples(self, samples)
        monkey = lambda *_: pytest.fail("an array of the real baseline was computed again")  # noqa: E731
        other.features = other.pairs = monkey
        return other

    return wrapped


def test_real_baselines_of_two_n_are_kept_apart(tmp_path):
    """9 and 10 samples both split 24 volumes into 7 and 17, but are extrapolated to another n."""
    sets = {"reference": volumes("reference", 100, 24)}
    assert Split(9, 24).sizes(24) == Split(10, 24).sizes(24) == (7, 17)
    few, more = (
        real_baselines(("fid_a",), tmp_path, **sets, **{"samples": volumes("model", 0, n)})["fid_a"]
        for n in (9, 10)
    )
    assert few.real_baseline.value != more.real_baseline.value


def test_progress_names_the_volumes_of_the_real_baseline():
    seen = []
    sets = {"samples": volumes("model", 0, 8), "reference": volumes("reference", 100, 16)}
    arrays = Arrays(sets, None, context=Context(progress=lambda what, *_: seen.append(what)))
    arrays.with_samples(volumes("holdout", 200, 8)).features("samples", "axial")
    assert set(seen) == {"holdout: features holdout"}


def test_the_network_is_loaded_once(monkeypatch):
    loaded = []
    monkeypatch.setattr(cache_module.feature_module, "load_network", lambda *_: loaded.append(1) or Coarse())
    real_baselines(("fid_a", "kid_a"), holdout=volumes("holdout", 200, 9))
    assert loaded == [1]
