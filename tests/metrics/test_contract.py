"""What every metric must do, whoever wrote it: parametrised over the table."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mribench.errors import MribenchError, NotApplicable
from mribench.metrics import METRICS, get_metric
from mribench.metrics.arrays.cache import Arrays
from mribench.metrics.features import medicalnet
from mribench.metrics.features import slices as features
from mribench.metrics.score import Score
from mribench.metrics.scoring import score
from mribench.runtime import Context

SIZES = {"anatomy": 32}  # its coarsest; the others take 16
DISTANCES = [name for name in METRICS if get_metric(name).family not in ("memorisation", "prdc")]
SHARES = [name for name in METRICS if get_metric(name).family == "prdc"]
COPYING = [name for name in METRICS if get_metric(name).family == "memorisation"]


class Coarse(nn.Module):
    """A 2D network without weights: the slice on a 12 x 12 grid, of mean and spread."""

    def forward(self, x):
        grey = x[:, :1]
        mean = nn.functional.adaptive_avg_pool2d(grey, 12)
        spread = nn.functional.adaptive_avg_pool2d(grey**2, 12) - mean**2
        return torch.cat([mean, 10 * spread.clamp(min=0).sqrt()], 1).flatten(1)


class Coarse3D(nn.Module):
    """A 3D network without weights: the volume on a 6 x 6 x 6 grid, of mean and spread."""

    def forward(self, x):
        mean = nn.functional.adaptive_avg_pool3d(x, 6)
        spread = nn.functional.adaptive_avg_pool3d(x**2, 6) - mean**2
        return torch.cat([mean, 10 * spread.clamp(min=0).sqrt()], 1).flatten(1)


CONTEXT = Context(weights_3d=Path(__file__))  # any file


@pytest.fixture(autouse=True)
def coarse_network(monkeypatch):
    monkeypatch.setattr(features, "load_network", lambda extractor, weights, device: Coarse())
    monkeypatch.setattr(medicalnet, "load_network", lambda path, device: Coarse3D())


@pytest.fixture
def cohort(formula_volume, name):
    """Training, reference and held-out volumes of one distribution, at the size that the metric takes."""

    def volumes(first, count):
        return [formula_volume(seed, SIZES.get(name, 16)) for seed in range(first, first + count)]

    return {
        "train": volumes(100, 10),
        "reference": volumes(200, 10),
        "holdout": volumes(300, 10),
        "fresh": volumes(400, 8),
    }


@pytest.fixture
def evaluated(cohort, volume_set):
    """Score of one metric for given sample volumes."""

    def run(metric, volumes, **changes):
        sets = {role: volume_set(role, cohort[role]) for role in ("train", "reference", "holdout")}
        sets |= {"samples": volume_set("samples", volumes), **changes}
        return score(get_metric(metric), Arrays(sets, None, context=CONTEXT))

    return run


def noisy(volumes, sigma):
    rng = np.random.default_rng(7)
    return [np.clip(v + sigma * rng.normal(size=v.shape), 0, 1).astype(np.float32) for v in volumes]


@pytest.mark.parametrize("name", METRICS)
def test_value_lies_in_its_interval_and_the_score_survives_json(evaluated, cohort, name):
    found = evaluated(name, cohort["fresh"])
    assert found.low <= found.value <= found.high
    assert found.n["samples"] == 8
    assert all(len(found.replicates[side]) == found.n[side] for side in found.replicates)
    assert Score.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("name", METRICS)
def test_replicates_are_the_scores_without_a_volume(evaluated, cohort, volume_set, name):
    """Everything that is estimated from a set, bandwidths and scales included, is estimated without it."""
    found = evaluated(name, cohort["fresh"])
    for side in found.replicates:
        volumes = cohort["fresh" if side == "samples" else side]
        short = evaluated(name, cohort["fresh"], **{side: volume_set(side, volumes[1:])})
        expected = short.target if side in found.target_sides else short.value
        assert found.replicates[side][0] == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_order_of_volumes_is_irrelevant(evaluated, cohort, volume_set, name):
    first = evaluated(name, cohort["fresh"])
    turned = {role: volume_set(role, cohort[role][::-1]) for role in ("train", "reference", "holdout")}
    second = evaluated(name, cohort["fresh"][::-1], **turned)
    assert second.value == pytest.approx(first.value, rel=1e-6, abs=1e-12)
    assert second.high == pytest.approx(first.high, rel=1e-6, abs=1e-12)
    assert second.gap == pytest.approx(first.gap, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", DISTANCES)
def test_real_against_itself_is_best(evaluated, cohort, name):
    itself = evaluated(name, cohort["reference"])
    other = evaluated(name, noisy(cohort["fresh"], 0.05))
    if name.startswith("ms_ssim"):
        assert itself.gap == pytest.approx(0, abs=1e-9)
        assert itself.rank_key < other.rank_key
    else:  # the unbiased forms go below 0 here, because the two sets are not independent
        assert itself.value < other.value


@pytest.mark.parametrize("name", DISTANCES)
def test_worse_noise_never_scores_better(evaluated, cohort, name):
    rank_keys = [evaluated(name, noisy(cohort["fresh"], sigma)).rank_key for sigma in (0.1, 0.2, 0.4)]
    assert rank_keys == sorted(rank_keys)


@pytest.mark.parametrize("name", SHARES)
def test_real_covers_itself_wholly(evaluated, cohort, name):
    """Each volume lies in its own ball and in those of 4 others on average, since the fifth is not inside."""
    itself = evaluated(name, cohort["reference"])
    assert itself.value == 1
    assert itself.high - itself.low > 0.2  # though leaving a volume out changes no proportion
    assert itself.interval.endswith(
        ", at least Wilson's of 10 " + side if (side := get_metric(name).proportion_of) else "95 %"
    )


@pytest.mark.parametrize("name", [name for name in SHARES if "noise" in get_metric(name).detects])
def test_worse_noise_covers_less(evaluated, cohort, name):
    rank_keys = [evaluated(name, noisy(cohort["fresh"], sigma)).rank_key for sigma in (0.0, 0.05, 0.4)]
    assert rank_keys == sorted(rank_keys) and rank_keys[0] < rank_keys[-1]


@pytest.mark.parametrize("name", COPYING)
def test_more_copies_never_score_better(evaluated, cohort, name):
    rank_keys = []
    for copies in (0, 4, 8):
        samples = noisy(cohort["train"][:copies], 0.01) + cohort["fresh"][copies:]
        rank_keys.append(evaluated(name, samples).rank_key)
    assert rank_keys == sorted(rank_keys)
    assert rank_keys[-1] == (0.5 if name == "memorisation" else 1.0)


@pytest.mark.parametrize("name", METRICS)
def test_too_few_volumes_are_refused_by_name(evaluated, cohort, volume_set, name):
    for role, fewest in get_metric(name).needs.items():
        short = volume_set(role, cohort["fresh"][: fewest - 1])
        with pytest.raises(
            MribenchError,
            match=rf"{re.escape(get_metric(name).title)} needs at least {fewest} volumes in '{role}'",
        ):
            evaluated(name, cohort["fresh"], **{role: short})


@pytest.mark.parametrize("name", [name for name in METRICS if name != "ms_ssim_kwon2019"])  # needs 16 slices
def test_what_becomes_of_a_slab_is_what_the_metric_declares(evaluated, cohort, volume_set, name):
    """Slices 4 to 11 of 16, which hold the central one."""
    slab = volume_set("samples", [volume[4:12] for volume in cohort["fresh"]], slab=(4, 12))
    metric = get_metric(name)
    if metric.in_slab == "not applicable":
        with pytest.raises(NotApplicable, match="but the samples hold only axial slices 4 to 11"):
            evaluated(name, cohort["fresh"], samples=slab)
        return
    found = evaluated(name, cohort["fresh"], samples=slab)
    assert found.ranked == (metric.ranked and metric.in_slab == "compared")
    assert ("not ranked" in found.notes[0]) == (metric.in_slab == "not compared")
    if metric.in_slab == "compared":  # the slice is that of the whole volumes, so the value is too
        assert found.value == pytest.approx(evaluated(name, cohort["fresh"]).value, rel=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_a_p_value_is_of_this_definition(evaluated, cohort, name):
    found = evaluated(name, cohort["fresh"])
    assert (found.p_value is not None) == ("|p:permutation-2000-seed-0" in found.signature)
    if found.p_value is not None:
        assert evaluated(name, noisy(cohort["fresh"], 0.4)).p_value == pytest.approx(1 / 2001)
        assert evaluated(name, cohort["fresh"][::-1]).p_value == pytest.approx(found.p_value, abs=0.05)


@pytest.mark.parametrize("name", METRICS)
def test_the_signature_says_what_and_the_version_is_the_definition(evaluated, cohort, name):
    found = evaluated(name, cohort["fresh"])
    assert found.signature.startswith(f"metric:{name}|")
    assert "|n:8 samples" in found.signature
    assert found.version == evaluated(name, cohort["reference"][:7]).version
