"""Claim 21: the measures on rates that are written by hand."""

from __future__ import annotations

from normwright.lab.claims.rate_levels_off import CLAIM, NETWORKS, SIZES, last_gain, rise

RATES = dict(zip(SIZES, (100.0, 300.0, 450.0, 500.0, 600.0, 660.0), strict=True))


def test_the_rise_and_the_last_gain():
    assert rise(RATES) == 4.5
    assert last_gain(RATES) == 1.1


def test_what_is_timed_is_what_the_claim_speaks_of():
    assert (SIZES[0], SIZES[2]) == (2, 32)
    assert SIZES[-1] == 4 * SIZES[-2]
    assert {key for p in CLAIM.predictions for key in [p.key]} == {
        f"{measure}_{network}" for measure in ("rise", "level") for network in NETWORKS
    }
