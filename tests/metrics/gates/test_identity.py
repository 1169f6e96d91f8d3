"""Alignment undoes what is done to a copy; agreement is the plain correlation of residuals in each part."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from mribench.metrics.arrays.alignment import Frame, coarse
from mribench.metrics.gates.identity import PARTS, Identity

MOVES = {
    "shifted": lambda v: ndimage.shift(v, (1, -2, 1), order=1),
    "turned": lambda v: ndimage.rotate(v, 5, axes=(1, 2), reshape=False, order=1),
    "zoomed": lambda v: ndimage.affine_transform(v, np.eye(3) * 0.96, offset=0.04 * 11.5, order=1),
    "darker": lambda v: v * 0.8,
    "gamma": lambda v: v**0.7,
}


@pytest.fixture(scope="module")
def frame(people):
    return Frame(torch.from_numpy(people["train"].mean(axis=0)))


@pytest.mark.parametrize("name", MOVES)
def test_a_moved_or_recoloured_volume_gets_nearly_the_voxels_of_its_original(name, frame, people):
    original = people["train"][:4]
    moved = np.stack([MOVES[name](v) for v in original]).astype(np.float32)
    before, after = (frame.forms(torch.from_numpy(v))[:, 1].numpy() for v in (original, moved))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(before, after, strict=True)]
    strangers = [np.corrcoef(a, b)[0, 1] for a, b in zip(before, np.roll(after, 1, axis=0), strict=True)]
    assert min(alike) > 0.9 > max(strangers)


def test_intensities_in_the_brain_are_those_of_the_mean_volume_at_the_same_rank(frame):
    distinct = np.random.default_rng(0).permutation(frame.mean.numel()).reshape(1, *frame.mean.shape)
    form = frame.forms(torch.from_numpy(distinct.astype(np.float32)))[0, 0]
    values = torch.from_numpy(distinct[0])[frame.mask]
    np.testing.assert_array_equal(form[values.argsort()], frame.mean[frame.mask].sort().values)


def test_voxels_of_one_intensity_get_the_middle_one_of_their_ranks(frame):
    form = frame.matched(torch.full((1, *frame.mean.shape), 0.4))
    np.testing.assert_allclose(form, frame.mean[frame.mask].median(), atol=1e-3)


def test_coarse_volumes_are_means_of_cubes_and_small_ones_stay():
    volume = torch.arange(64**3, dtype=torch.float32).reshape(64, 64, 64)
    assert coarse(volume).shape == (32, 32, 32)
    assert coarse(volume)[3, 4, 5] == volume[6:8, 8:10, 10:12].mean()
    assert coarse(volume[:10, :32, :32]) is not None
    assert torch.equal(coarse(volume[:10, :32, :32]), volume[:10, :32, :32])


def test_agreement_is_the_correlation_in_whole_halves_and_eighths(frame, people):
    voxels = frame.forms(torch.from_numpy(people["train"]))[:, 1]
    identity = Identity.of(frame, voxels)
    residuals = identity.residuals(frame.forms(torch.from_numpy(people["samples"][:2]))[:, 1])
    others = identity.residuals(voxels[:3])
    agreement = identity.agreement(residuals, others).numpy()
    places = frame.mask.nonzero()[identity.order].numpy()
    upper = places >= np.median(np.sort(frame.mask.nonzero().numpy(), axis=0)[: len(places)], axis=0)
    names = [("bottom", "top"), ("back", "front"), ("left", "right")]
    for part, name in enumerate(PARTS):
        inside = np.ones(len(places), dtype=bool)
        for axis, sides in enumerate(names):
            for side, word in enumerate(sides):
                if word in name:
                    inside &= upper[:, axis] == bool(side)
        # Residuals have mean 0 in every cell, so the correlation needs no centring.
        x, y = residuals[:, inside].double().numpy(), others[:, inside].double().numpy()
        expected = x @ y.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)
        np.testing.assert_allclose(np.tanh(agreement[part]), expected, atol=2e-5)


def test_residuals_do_not_follow_what_blur_does_to_everybody(frame, people):
    voxels = frame.forms(torch.from_numpy(people["train"]))[:, 1]
    identity = Identity.of(frame, voxels)
    soft = np.stack([ndimage.gaussian_filter(v, 1) for v in people["samples"]])
    residuals = identity.residuals(frame.forms(torch.from_numpy(soft))[:, 1])
    agreement = np.tanh(identity.agreement(residuals, residuals)[0].numpy())
    assert abs(np.median(agreement[~np.eye(len(soft), dtype=bool)])) < 0.15
