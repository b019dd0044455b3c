"""The sentence on two ranges says no more than the rates that were run tell, and its numbers add up."""

from __future__ import annotations

import pytest

from normwright.lab.lr_range.records import RateCurve, UsableRange
from normwright.lab.lr_range.why import why


def _range(decades, *, cut_off=False, normalised=True):
    rates = (1.0, 10**decades)
    curve = RateCurve(0, rates, (), (), 0.0, 0.0, 1.0, 1.0, rates[1], False, cut_off, "")
    label = "with normalisers" if normalised else "without"
    return UsableRange(normalised, label, (curve,), 1.0, 1.0, rates[1], False, cut_off, decades)


def _ending(usable, bare):
    return why((usable, bare)).partition(" of ")[2]


def test_what_is_wider_is_the_difference_of_the_widths_shown():
    ending = _ending(_range(2.15 + 1e-9), _range(0.249))
    assert ending == "2.2 decades, which the normalisers make 2.0 decades wider (0.2 without)."
    ending = _ending(_range(0.34), _range(1.26))
    assert ending == "0.3 decades, which the normalisers make 1.0 decades narrower (1.3 without)."


def test_what_is_equal_but_for_rounding_is_neither_wider_nor_narrower():
    assert _ending(_range(1.62), _range(1.58)) == "1.6 decades, as without normalisers (1.6)."


@pytest.mark.parametrize("widths", [(2.0, 1.0), (1.0, 2.0)])
def test_of_two_that_are_cut_off_neither_is_called_the_wider(widths):
    ending = _ending(*(_range(width, cut_off=True) for width in widths))
    own, bare = widths
    assert ending.startswith(f"≥ {own} decades and of ≥ {bare} without normalisers; which is wider")


def test_of_one_that_is_cut_off_only_a_bound_is_told():
    wider = _ending(_range(2.0, cut_off=True), _range(1.0))
    assert wider == "≥ 2.0 decades, which the normalisers make at least 1.0 decades wider (1.0 without)."
    narrower = _ending(_range(1.0), _range(2.0, cut_off=True))
    assert (
        narrower == "1.0 decades, which the normalisers make at least 1.0 decades narrower (≥ 2.0 without)."
    )
    assert "do not tell" in _ending(_range(1.0, cut_off=True), _range(2.0))
    assert "do not tell" in _ending(_range(2.0), _range(1.0, cut_off=True))
