"""What the gate of anatomy asks: means and the spread of ventricles, beyond what honest faults do."""

import numpy as np
import pytest

from mribench.metrics.gates.anatomy import TOLERATED, departures
from mribench.metrics.gates.judge import judge
from mribench.metrics.regions import TRAITS

LEVEL = 0.001


def people(n, seed, spread=1.0, **shifts):
    """Traits of n people in units of people's deviations, with the means of some traits shifted."""
    rows = np.random.default_rng(seed).normal(size=(n, len(TRAITS)))
    rows[:, TRAITS.index("ventricles")] *= spread
    for trait, shift in shifts.items():
        rows[:, TRAITS.index(trait.replace("_", " "))] += shift
    return rows


def beyond(samples, others):
    return [departure.what for departure in departures(samples, others, 2.75) if departure.p_value <= LEVEL]


def test_people_and_what_is_tolerated_pass_in_a_thousand_draws():
    tolerated = {trait.replace(" ", "_"): fine for trait, (fine, _) in TOLERATED.items()}
    assert sum(bool(beyond(people(24, 2 * i), people(96, 2 * i + 1))) for i in range(500)) <= 3
    shifted = sum(bool(beyond(people(24, i, **tolerated), people(96, i + 9000))) for i in range(500))
    assert shifted <= 3


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"ventricles": 1.3}, "ventricles +1"),
        ({"ventricle_asymmetry": -1.5}, "ventricle asymmetry -1"),
        ({"grey_matter": -1.6}, "grey matter -1"),
        ({"spread": 0.3}, "spread of ventricles x 0.3"),
        ({"spread": 3.0}, "spread of ventricles x 3"),
    ],
)
def test_other_anatomy_is_named_first(fault, what):
    found = [departures(people(64, i, **fault), people(256, i + 500), 2.75)[0] for i in range(10)]
    assert all(each.what.startswith(what[:-1]) for each in found)
    assert np.median([each.p_value for each in found]) <= LEVEL


def test_what_blur_and_noise_do_to_fluid_outside_and_to_white_matter_is_tolerated():
    assert not beyond(people(64, 1, outer_CSF=2.0, white_matter=0.7), people(256, 2))
    assert beyond(people(64, 1, outer_CSF=5.0, white_matter=5.0), people(256, 2))


def test_coarse_volumes_are_allowed_what_blur_does_there():
    thin, others = people(64, 1, grey_matter=-1.5), people(256, 2)
    assert any(d.p_value <= LEVEL for d in departures(thin, others, 3.5))
    assert not any(d.p_value <= LEVEL for d in departures(thin, others, 5.5))


def test_noise_in_every_trait_is_no_way_to_pass():
    loose = 5 * people(16, 1)
    assert beyond(loose, people(96, 2))


def test_samples_that_never_vary_have_finite_departures():
    alike = np.repeat(people(1, 0), 12, axis=0)
    for pair in ((alike, people(40, 1)), (people(40, 1), alike), (alike, alike)):
        assert all(0 <= departure.p_value <= 1 for departure in departures(*pair, 2.75))


class _Measured:
    """Arrays whose regions are known."""

    slab, voxel_mm = None, 2.0

    def __init__(self, arrays, regions):
        self._arrays, self._regions = arrays, regions

    def __getattr__(self, name):
        return getattr(self._arrays, name)

    def region_volumes(self, name):
        return self._regions[name]


def test_wide_ventricles_fail_the_gate_without_holding_the_entrant_back(bench):
    rng = np.random.default_rng(0)
    centre = np.array([12, 12, 250, 350, 350, 230, 230, 130.0])
    regions = {
        name: centre * np.exp(rng.normal(0, 0.08, (len(volumes), 8))) for name, volumes in bench.sets.items()
    }
    assert judge(_Measured(bench, regions))[-1].passed
    regions["samples"][:, :2] *= 1.3
    result = judge(_Measured(bench, regions))[-1]
    assert (result.gate, result.passed, result.holds_back) == ("anatomy", False, False)
    assert "ventricles +" in result.reason
