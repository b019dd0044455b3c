"""Ratios of what was read off and of what did not come by the end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normwright.errors import OptionError
from normwright.lab.book.bounds import Reading, ratio_of
from normwright.lab.book.claim import Trial

COUNTS = st.integers(1, 10_000)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_true_ratio_lies_on_the_side_that_is_told(over, under, over_given, under_given):
    """The true numbers are `over` and `under`; each run ended after so many steps."""
    read = [
        Reading(min(true, given), ended=true > given)
        for true, given in ((over, over_given), (under, under_given))
    ]
    ratio, bound = ratio_of(*read)
    if math.isnan(ratio):
        assert over > over_given
        assert under > under_given
        assert bound == ""
    else:
        holds = {
            "": over / under == ratio,
            "at least": over / under >= ratio,
            "at most": over / under <= ratio,
        }
        assert holds[bound]
        assert (bound == "") == (over <= over_given and under <= under_given)


def test_a_bound_of_no_known_kind_is_told():
    assert Trial({"gain": 1.0}, bounds={"gain": "at most", "loss": ""}).bounds["gain"] == "at most"
    with pytest.raises(OptionError, match="the bound of 'gain' must be 'at least' or 'at most'"):
        Trial({"gain": 1.0}, bounds={"gain": "about"})
