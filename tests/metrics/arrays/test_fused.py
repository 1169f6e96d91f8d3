"""The CPU's MS-SSIM loops against a spelled-out float64 oracle, torch's own operations, and their promises."""

import numpy as np
import pytest
import torch

from mribench.metrics.arrays import kernels, pairs, similarity
from mribench.metrics.arrays.kernels import fused
from mribench.metrics.arrays.similarity import Definition, gaussian_window
from mribench.metrics.ms_ssim import ms_ssim_matrix

EXACT = 1e-6
FEW_WINDOWS = 2e-6  # at the last scale of these small volumes, so float32's rounding hardly averages out


def cut(volumes):
    """Zeros wherever a scan has none: a frame, whole planes, and single rows inside."""
    volumes = volumes.copy()
    volumes[:, :3], volumes[:, :, -4:], volumes[..., :5] = 0, 0, 0
    volumes[0, 12:], volumes[1, :, 10] = 0, 0
    return volumes


def noise(shape=(4, 21, 26, 35), seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


CASES = {
    "noise": noise(),
    "empty rows": cut(noise()),
    "near copies": np.clip(noise()[:1] + np.float32(0.01) * noise(seed=1), 0, 1),
    "disjoint": noise() * (np.arange(35) // 9 == np.arange(4)[:, None])[:, None, None],
    "empty and full": np.stack([np.zeros((21, 26, 35), np.float32), *noise()[:3]]),
}


def dense(volume, window):
    """Weighted mean of every window^3 neighbourhood that fits, in float64, no axis at a time."""
    g = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / 1.5) ** 2)
    cube = np.multiply.outer(np.multiply.outer(g, g), g) / g.sum() ** 3
    views = np.lib.stride_tricks.sliding_window_view(volume, (window,) * 3)
    return np.einsum("dhwijk,ijk->dhw", views, cube)


def halved(volume):
    d, h, w = (side // 2 for side in volume.shape)
    return volume[: 2 * d, : 2 * h, : 2 * w].reshape(d, 2, h, 2, w, 2).mean(axis=(1, 3, 5))


def oracle(x, y, window, weights):
    """MS-SSIM by its formula in float64."""
    x, y, score = x.astype(np.float64), y.astype(np.float64), 1.0
    for scale, weight in enumerate(weights):
        x, y = (halved(x), halved(y)) if scale else (x, y)
        mx, my = dense(x, window), dense(y, window)
        vx, vy = dense(x * x, window) - mx**2, dense(y * y, window) - my**2
        local = (2 * (dense(x * y, window) - mx * my) + 9e-4) / (vx + vy + 9e-4)
        if scale == len(weights) - 1:
            local *= (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
        score *= max(local.mean(), 0) ** weight
    return score


@pytest.mark.parametrize(("window", "scales"), [(7, 1), (7, 2), (3, 1), (3, 3), (5, 2)])
@pytest.mark.parametrize("case", CASES)
def test_float64_oracle(case, window, scales):
    volumes, definition = CASES[case], Definition(window, scales)
    matrix = ms_ssim_matrix(volumes, definition=definition)
    for i in range(len(volumes)):
        for j in range(i, len(volumes)):
            truth = oracle(volumes[i], volumes[j], window, definition.weights)
            assert matrix[i, j] == pytest.approx(truth, abs=FEW_WINDOWS), (i, j)


def test_oracle_of_five_scales():
    volumes = np.random.default_rng(5).random((2, 48, 49, 55), dtype=np.float32)
    volumes[1] = 0.7 * volumes[0] + 0.3 * volumes[1]
    volumes[:, 40:], volumes[:, :, :9] = 0, 0
    definition = Definition(3, 5)
    truth = oracle(*volumes, 3, definition.weights)
    assert ms_ssim_matrix(volumes, definition=definition)[0, 1] == pytest.approx(truth, abs=EXACT)


def test_oracle_at_128(formula_volume, expected):
    volumes = np.stack([formula_volume(seed) for seed in (1, 2, 3)])
    matrix = ms_ssim_matrix(volumes)
    for other in (2, 3):
        truth = expected[f"msssim128/pair1,{other}/oracle_f64 win7 5scales L1"]
        assert matrix[0, other - 1] == pytest.approx(truth, abs=EXACT)


@pytest.mark.parametrize("window", [3, 7])
@pytest.mark.parametrize("last", [False, True])
def test_one_window_by_hand(window, last):
    """One window in all, so the mean over positions is one similarity."""
    rng = np.random.default_rng(2)
    x, y = rng.random((2, 1, window, window, window)).astype(np.float32)
    weights = gaussian_window(window)
    cube = np.einsum("i,j,k->ijk", weights, weights, weights)
    mx, my = (cube * x[0]).sum(), (cube * y[0]).sum()
    vx, vy = (cube * (x[0] - mx) ** 2).sum(), (cube * (y[0] - my) ** 2).sum()
    value = (2 * (cube * (x[0] - mx) * (y[0] - my)).sum() + 9e-4) / (vx + vy + 9e-4)
    if last:
        value *= (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
    states = [fused.statistics(volume, weights) for volume in (x, y)]
    assert fused.factors(*states, weights, last) == pytest.approx(value, abs=1e-5)


def test_constants_are_those_of_wang_2003():
    """(0.01 L)^2 and (0.03 L)^2 of volumes in [0,1], for a CPU and a GPU."""
    assert (
        (kernels.C1, kernels.C2) == (similarity.C1, similarity.C2) == pytest.approx((1e-4, 9e-4), rel=1e-12)
    )


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.0, 0.5), (0.25, 0.5), (1.0, 1.0), (0.3, 0.9)])
def test_constant_volumes(values):
    """float32 leaves up to 1e-7 in a covariance that is 0, the same in every window; C2 = 9e-4 magnifies it."""
    volumes = np.stack([np.full((14, 15, 29), value, np.float32) for value in values])
    truth = oracle(*volumes, 7, Definition(7, 2).weights)
    found = ms_ssim_matrix(volumes, definition=Definition(7, 2))
    assert found[0, 1] == pytest.approx(truth, abs=2e-4)
    assert np.array_equal(np.diag(found), [1, 1])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("window", [3, 7])
def test_torch_s_operations_give_the_same(case, window):
    """What a GPU computes."""
    volumes, weights = CASES[case], gaussian_window(window)
    ours = fused.statistics(volumes, weights)
    theirs = similarity.statistics(torch.from_numpy(volumes), weights)
    for mine, other in zip(ours, theirs, strict=False):
        assert mine[..., : other.shape[-1]] == pytest.approx(other.numpy(), abs=1e-6)
    assert not ours.volume[..., volumes.shape[-1] :].any()
    assert np.isinf(ours.variance[..., theirs[2].shape[-1] :]).all()
    for last in (False, True):
        means = similarity.factors(theirs, theirs, weights, last)
        assert fused.factors(ours, ours, weights, last) == pytest.approx(means.numpy(), abs=EXACT)


def test_torch_s_operations_in_pieces(monkeypatch):
    volumes, weights = torch.from_numpy(noise()), gaussian_window(7)
    states = similarity.statistics(volumes, weights)
    whole = similarity.factors(states, states, weights, True)
    for piece in (1, 3000, 40000):
        monkeypatch.setattr(similarity, "PIECE_VOXELS", piece)
        assert similarity.factors(states, states, weights, True).numpy() == pytest.approx(whole, abs=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_symmetric_and_one_with_itself_to_the_last_bit(case):
    volumes, definition = CASES[case], Definition(7, 2)
    states = definition.prepare(torch.from_numpy(volumes))
    matrix = definition.compare(states, states).numpy()
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(np.diag(matrix), np.ones(len(volumes)))


def test_tiles_threads_and_order_change_no_bit(monkeypatch):
    volumes = np.concatenate([cut(noise((4, 21, 26, 35), seed)) for seed in (3, 4)])
    definition = Definition(7, 2)
    one = np.array([[ms_ssim_matrix(x[None], y[None], definition).item() for y in volumes] for x in volumes])
    threads = torch.get_num_threads()
    try:
        for count, rows in ((1, 64), (2, 3), (3, 8)):
            torch.set_num_threads(count)
            monkeypatch.setattr(pairs, "GROUP_ROWS", rows)
            assert np.array_equal(ms_ssim_matrix(volumes, definition=definition), one)
            assert np.array_equal(ms_ssim_matrix(volumes, volumes.copy(), definition), one)
    finally:
        torch.set_num_threads(threads)
    shuffled = np.random.default_rng(0).permutation(len(volumes))
    moved = ms_ssim_matrix(volumes[shuffled], definition=definition)
    assert np.array_equal(moved, one[np.ix_(shuffled, shuffled)])


@pytest.mark.parametrize("taps", [3, 5, 7, 9, 11])
def test_weights_are_float32_and_sum_to_one(taps):
    weights = gaussian_window(taps)
    assert sum(weights) == 1
    assert np.array_equal(np.float32(weights).astype(np.float64), weights)
    g = np.exp(-0.5 * ((np.arange(taps) - (taps - 1) / 2) / 1.5) ** 2)
    assert weights == pytest.approx(g / g.sum(), abs=1e-7)


def test_spans_by_hand():
    """Registers of 16; a voxel reaches windows that begin up to two before it; a stripe is 32 rows of windows."""
    volume = np.zeros((1, 3, 70, 60), np.float32)
    volume[0, 0, 1, 17] = 0.5
    volume[0, 2, 69, 18:33] = 0.5
    spans = fused.statistics(volume, gaussian_window(3)).spans[0]
    assert spans[0, :, :2].tolist() == [[0, 2], [4, 0], [4, 0]]
    assert spans[1, :, :2].tolist() == [[4, 0], [4, 0], [4, 0]]
    assert spans[2, :, :2].tolist() == [[4, 0], [4, 0], [1, 3]]
    assert spans[0, :, 2:].tolist() == [[0, 2], [4, 0], [1, 3]]


def test_a_row_shared_by_two_stripes():
    volume = np.zeros((1, 3, 70, 60), np.float32)
    volume[0, 1, 33, 5] = 0.5
    spans = fused.statistics(volume, gaussian_window(3)).spans[0]
    assert spans[1, :, :2].tolist() == [[0, 1], [0, 1], [4, 0]]


@pytest.mark.parametrize(
    "shape", [(7, 7, 7), (8, 40, 17), (9, 70, 22), (7, 39, 16), (8, 38, 38), (7, 8, 133)]
)
def test_any_width_and_number_of_rows(shape):
    """Last registers and last stripes that are full, partly full and all but empty."""
    volumes = noise((2, *shape))
    found = ms_ssim_matrix(volumes, definition=Definition(7, 1))[0, 1]
    assert found == pytest.approx(oracle(*volumes, 7, (1.0,)), abs=2 * FEW_WINDOWS)


def test_groups_and_tiles_of_any_size_change_no_bit():
    volumes = torch.from_numpy(np.concatenate([cut(noise((4, 21, 50, 35), seed)) for seed in (3, 4, 5)]))
    definition = Definition(7, 2)
    states = definition.prepare(volumes)
    whole = definition.compare(states, states)
    for rows in (slice(0, 1), slice(2, 5), slice(3, 12)):
        for columns in (slice(1, 2), slice(0, 6)):
            x, y = (tuple(t[part] for t in states) for part in (rows, columns))
            assert torch.equal(definition.compare(x, y), whole[rows, columns])


def test_empty_windows_are_not_read():
    """Statistics of windows outside all spans may be anything."""
    volumes = np.zeros((2, 16, 48, 80), np.float32)
    volumes[:, 6:9, 40:43, 60:70] = noise((2, 3, 3, 10))
    weights = gaussian_window(3)
    state = fused.statistics(volumes, weights)
    clean = fused.factors(state, state, weights, False)
    for moments in state[1:3]:
        moments[:, :4], moments[:, :, :32], moments[:, 1:, :, :48] = np.nan, np.nan, np.nan
    state[2][:, 0, 0] = clean_row(state[2].shape[-1], 78)
    assert np.array_equal(fused.factors(state, state, weights, False), clean)


def clean_row(padded, width):
    """The row that says how wide the windows are."""
    return np.where(np.arange(padded) < width, np.float32(0), np.float32(np.inf))
