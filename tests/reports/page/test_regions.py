"""The forest plots: which entrants have one, what is said of the others, and what the alternative text says."""

import dataclasses

import numpy as np
import pytest

from mribench.metrics.regions import RegionRow
from mribench.reports.page.regions import forest, forests


def row(trait="ventricles", **changes):
    values = {"change": 12.0, "d": 0.9, "d_low": 0.3, "d_high": 1.5, "spread": 1.1, "spread_low": 0.7}
    return RegionRow(
        trait=trait, **{**values, "spread_high": 1.6, "p_mean": 0.01, "p_spread": 1.0, **changes}
    )


def entrants(make_entrant):
    whole = dataclasses.replace(make_entrant("whole"), regions=(row(), row("cerebellum", d=0.0)))
    slab = dataclasses.replace(make_entrant("slab"), missing={"anatomy": "Anatomy needs whole volumes."})
    return whole, slab, make_entrant("unscored", scores={})


def test_every_scored_entrant_has_a_plot_or_its_reason(make_entrant):
    groups, reason = forests(entrants(make_entrant))
    assert not reason
    assert [group.entrant.name for group in groups] == ["whole", "slab"]
    assert groups[0].picture and groups[1].problem == "Anatomy needs whole volumes."


def test_without_any_rows_the_reason_is_said_once(make_entrant):
    assert forests(entrants(make_entrant)[1:]) == ([], "Anatomy needs whole volumes.")


def test_the_alternative_text_has_every_number():
    alt = forest([row()], "cDPM").alt
    assert "ventricles: +12.0 %, d 0.90 [0.30, 1.50] p 0.01, spread 1.10 [0.70, 1.60] p 1" in alt
    assert "of cDPM against the reference" in alt


@pytest.mark.parametrize("d", [-40.0, 40.0])
def test_values_beyond_the_axis_are_drawn_at_its_edge(d):
    far = row(d=d, d_low=d - 1, d_high=d + 1, spread=np.exp(d / 2), spread_low=1e-12, spread_high=1e12)
    plain, beyond = forest([row()], "a"), forest([far], "a")
    assert (beyond.width, beyond.height) == (plain.width, plain.height) and beyond.uri != plain.uri
