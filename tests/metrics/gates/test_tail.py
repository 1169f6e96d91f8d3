"""The predictive Gumbel tail against simulation and a double integral; Holm's correction against its definition."""

import numpy as np
from scipy import integrate

from mribench.metrics.gates.tail import gumbel_p, holm, of_more


def test_p_values_of_a_gumbel_null_have_their_level_even_with_ten_people():
    draws = np.random.default_rng(0).gumbel(3, 2, (3000, 11))
    p_values = np.array([gumbel_p(row[:10], row[10:])[0] for row in draws])
    for level in (0.01, 0.05, 0.2):
        assert abs((p_values <= level).mean() - level) < 3.5 * np.sqrt(level * (1 - level) / len(draws))


def test_p_value_is_the_double_integral_over_location_and_scale():
    null = np.random.default_rng(1).gumbel(0, 1, 12)

    def weight(location, log_scale):
        z = (null - location) / np.exp(log_scale)
        return np.exp(
            -len(null) * log_scale - z.sum() - np.exp(-z).sum()
        )  # flat in the logarithm of the scale

    def beyond(location, log_scale):
        return weight(location, log_scale) * -np.expm1(-np.exp(-(6 - location) / np.exp(log_scale)))

    (numerator, _), (total, _) = (integrate.dblquad(f, -2.0, 1.5, -4, 5) for f in (beyond, weight))
    assert abs(gumbel_p(null, np.array([6.0]))[0] / (numerator / total) - 1) < 1e-3


def test_p_value_falls_with_the_value_and_reaches_far_below_one_over_the_number_of_people():
    null = np.random.default_rng(2).gumbel(0, 1, 48)
    p_values = gumbel_p(null, np.array([0.0, 2.0, 5.0, 20.0, 200.0]))
    assert (np.diff(p_values) < 0).all()
    assert p_values[3] < 1e-5 and p_values[4] > 0


def test_p_value_does_not_depend_on_unit_and_origin():
    null = np.random.default_rng(3).gumbel(0, 1, 20)
    values = np.array([1.0, 4.0])
    np.testing.assert_allclose(gumbel_p(7 + 100 * null, 7 + 100 * values), gumbel_p(null, values), rtol=1e-9)


def test_holm_multiplies_by_what_is_left_and_keeps_the_order():
    np.testing.assert_allclose(holm(np.array([0.01, 0.9, 0.005, 0.012])), [0.03, 0.9, 0.02, 0.03])


def test_largest_of_twice_as_many_has_the_complement_of_the_squared_complement():
    np.testing.assert_allclose(of_more(np.array([0.1, 1e-9]), 2), [0.19, 2e-9], rtol=1e-6)
    np.testing.assert_allclose(of_more(np.array([0.1]), 0.5), [0.1])
