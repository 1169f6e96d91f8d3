"""MS-SSIM against a float64 oracle, two other libraries, and its own invariances."""

import numpy as np
import pytest
import torch
from monai.metrics.regression import compute_ms_ssim
from pytorch_msssim import ms_ssim as other_ms_ssim

from mribench.errors import MribenchError
from mribench.metrics.arrays.similarity import Definition, Kwon2019, definition_for
from mribench.metrics.ms_ssim import mean_of_pairs, ms_ssim_matrix

ORACLE = 1e-5


@pytest.fixture(scope="module")
def big(formula_volume):
    return np.stack([formula_volume(seed) for seed in (1, 2, 3)])


@pytest.fixture(scope="module")
def small(formula_volume):
    return np.stack([formula_volume(seed, 64) for seed in (1, 2)])


@pytest.fixture
def odd():
    """Non-cubic random volumes with odd sides."""
    return np.random.default_rng(3).random((4, 26, 33, 37), dtype=np.float32)


def test_inputs_are_the_published_ones(big, small, expected):
    for seed, volume in zip((1, 2, 3), big, strict=True):
        known = expected[f"input/volume(seed={seed},n=128)"]
        assert volume.sum(dtype=np.float64) == pytest.approx(known["sum"], rel=1e-6)
        assert volume[64, 64, 64] == pytest.approx(known["v_centre"], rel=1e-6)
    assert small[0].sum(dtype=np.float64) == pytest.approx(
        expected["input/volume(seed=1,n=64)"]["sum"], rel=1e-6
    )


def test_oracle_at_128(big, expected):
    matrix = ms_ssim_matrix(big[:1], big)
    assert definition_for(128).name == "msssim3d/g7s1.5-5-valid-L1"
    assert matrix[0, 0] == pytest.approx(1, abs=1e-7)
    assert matrix[0, 1] == pytest.approx(expected["msssim128/pair1,2/oracle_f64 win7 5scales L1"], abs=ORACLE)
    assert matrix[0, 2] == pytest.approx(expected["msssim128/pair1,3/oracle_f64 win7 5scales L1"], abs=ORACLE)


def test_reference_engine_agrees_at_128(big, expected):
    value = ms_ssim_matrix(big[:1], big[1:2], engine="reference")[0, 0]
    assert value == pytest.approx(expected["msssim128/pair1,2/oracle_f64 win7 5scales L1"], abs=ORACLE)


@pytest.mark.parametrize(
    ("window", "scales", "key"),
    [
        (11, 4, "msssim128/pair1,2/oracle win11 4scales (W5[:4] renormalised)"),
        (11, 3, "msssim128/pair1,2/oracle win11 3scales (W5[:3] renormalised)"),
    ],
)
def test_oracle_of_other_windows_at_128(big, expected, window, scales, key):
    value = ms_ssim_matrix(big[:1], big[1:2], Definition(window, scales))[0, 0]
    assert value == pytest.approx(expected[key], abs=ORACLE)


@pytest.mark.parametrize(
    ("definition", "key"),
    [
        (None, "msssim64/pair1,2/oracle win3 5scales"),
        (Definition(7, 4), "msssim64/pair1,2/oracle win7 4scales (W5[:4] renormalised)"),
        (Definition(11, 3), "msssim64/pair1,2/oracle win11 3scales (W5[:3] renormalised)"),
        (Kwon2019(), "msssim64/pair1,2/alphaWGAN-lineage as shipped"),
    ],
)
def test_oracle_at_64(small, expected, definition, key):
    assert ms_ssim_matrix(small[:1], small[1:], definition)[0, 0] == pytest.approx(expected[key], abs=ORACLE)


def test_kwon2019_at_128_keeps_its_bug(big, expected):
    value = ms_ssim_matrix(big[:1], big[1:2], Kwon2019())[0, 0]
    key = "msssim128/pair1,2/alphaWGAN-lineage as shipped (L1 on [0,1])"
    assert value == pytest.approx(expected[key], abs=ORACLE)


def test_zero_padding_raises_the_score_as_published(big, expected):
    padded = np.pad(big[:2], [(0, 0), (16, 16), (16, 16), (16, 16)])
    value = ms_ssim_matrix(padded[:1], padded[1:])[0, 0]
    key = "msssim160/pair1,2 zero-padded by 16 on each side/oracle win7 5scales"
    assert value == pytest.approx(expected[key], abs=ORACLE)


def test_negative_factors_are_clipped_per_scale(big, expected):
    """Published for the inverted volume, whose covariance is negative almost everywhere."""
    inverted = np.where(big[0] > 0, 1 - big[0], 0).astype(np.float32)
    value = ms_ssim_matrix(big[:1], inverted[None])[0, 0]
    key = "msssim128/pair1,inverted/oracle per-scale terms (relu branch)"
    assert value == pytest.approx(expected[key][0], abs=ORACLE)
    noise = np.random.default_rng(0).random((2, 16, 16, 16), dtype=np.float32)
    assert ms_ssim_matrix(noise[:1], 1 - noise[:1])[0, 0] == 0


def test_agrees_with_monai_on_odd_sides_with_four_scales():
    volumes = np.random.default_rng(3).random((4, 32, 41, 37), dtype=np.float32)
    definition = Definition(3, 4)
    ours = ms_ssim_matrix(volumes[:2], volumes[2:], definition)
    for i in range(2):
        for j in range(2):
            pair = [torch.from_numpy(volumes[k])[None, None] for k in (i, j + 2)]
            theirs = compute_ms_ssim(*pair, spatial_dims=3, kernel_size=3, weights=definition.weights)
            assert ours[i, j] == pytest.approx(float(theirs), abs=ORACLE)


def test_agrees_with_pytorch_msssim_on_non_cubic_volumes():
    volumes = np.random.default_rng(4).random((3, 48, 80, 64), dtype=np.float32)
    volumes[1] = 0.5 * volumes[0] + 0.5 * volumes[1]
    definition = Definition(3, 5)
    ours = ms_ssim_matrix(volumes, definition=definition)
    tensors = torch.from_numpy(volumes)[:, None]
    theirs = other_ms_ssim(tensors[:2], tensors[1:], data_range=1.0, win_size=3, size_average=False)
    assert ours[[0, 1], [1, 2]] == pytest.approx(theirs.numpy(), abs=ORACLE)
    assert ms_ssim_matrix(volumes, definition=definition, engine="reference") == pytest.approx(
        ours, abs=ORACLE
    )


def test_symmetric_matrix_equals_the_full_one(odd):
    alone, both = ms_ssim_matrix(odd), ms_ssim_matrix(odd, odd.copy())
    assert alone == pytest.approx(both, abs=1e-7)
    assert np.array_equal(alone, alone.T)
    assert np.diag(alone) == pytest.approx(1, abs=1e-7)


def test_flipped_and_read_only_views_are_welcome(odd, recwarn):
    view = odd[:, ::-1]
    view.flags.writeable = False
    assert np.array_equal(ms_ssim_matrix(view), ms_ssim_matrix(np.ascontiguousarray(view)))
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("side", "window", "scales"),
    [(3, 3, 1), (11, 3, 2), (12, 3, 3), (32, 3, 4), (64, 3, 5), (111, 3, 5), (112, 7, 5)],
)
def test_size_rule(side, window, scales):
    definition = definition_for(side)
    assert definition == Definition(window, scales)
    definition.check((side, side + 5, side))  # the rule must be legal at its own size
    assert sum(definition.weights) == pytest.approx(1, abs=2e-4)  # Wang's five sum to 1.0001


def test_smallest_side_decides():
    volumes = np.random.default_rng(0).random((2, 12, 40, 36), dtype=np.float32)
    assert ms_ssim_matrix(volumes) == pytest.approx(ms_ssim_matrix(volumes, definition=Definition(3, 3)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v * 255, r"Volume 1 must lie in \[0,1\]"),
        (lambda v: v * 2 - 1, r"Volume 1 must lie in \[0,1\]"),
        (lambda v: np.where(v > 0.5, np.nan, v), "Volume 1 must be finite"),
    ],
)
def test_wrong_values_are_refused(odd, spoil, message):
    odd[1] = spoil(odd[1])
    with pytest.raises(MribenchError, match=message):
        ms_ssim_matrix(odd)


def test_wrong_shapes_are_refused(odd):
    with pytest.raises(MribenchError, match=r"\[N,D,H,W\]"):
        ms_ssim_matrix(odd[0])
    with pytest.raises(MribenchError, match="share one shape"):
        ms_ssim_matrix(odd, odd[:, :-1])
    with pytest.raises(MribenchError, match="at least 112 voxels"):
        ms_ssim_matrix(odd, definition=Definition(7, 5))
    with pytest.raises(MribenchError, match="at least 3 voxels"):
        ms_ssim_matrix(odd[:, :2])


@pytest.mark.parametrize("shape", [(32, 128, 128), (112, 120, 136)])
def test_reference_engine_refuses_what_that_package_gets_wrong(shape):
    """Its own check forgets the depth; and it pads odd sides with zeros."""
    volumes = np.zeros((1, *shape), dtype=np.float32)
    with pytest.raises(MribenchError, match="engine='native'"):
        ms_ssim_matrix(volumes, definition=Definition(7, 5), engine="reference")


def test_mean_of_pairs_is_over_unordered_pairs_of_different_volumes():
    matrix = np.array([[1, 0.2, 0.4], [0.2, 1, 0.6], [0.4, 0.6, 1]])
    assert mean_of_pairs(matrix, np.arange(3)) == pytest.approx(0.4)
    assert mean_of_pairs(matrix, np.array([0, 2])) == pytest.approx(0.4)
