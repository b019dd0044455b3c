"""Where a range begins and ends, on losses that are given."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from normwright.lab.lr_range.rules import Ends, ends, is_fall, lowest_place, out_of_hand, smooth
from normwright.lab.lr_range.sweep import rates_between

# Falls from 2.0 to 1.0 and rises again; a tenth of the fall is 0.1.
VALLEY = (2.0, 2.0, 1.95, 1.8, 1.4, 1.1, 1.0, 1.05, 1.09, 1.2, 5.0)


def ends_of(noise, smoothed, **limits):
    return ends(noise, smoothed, lowest_place(smoothed, 1), **limits)


def test_the_ends_of_a_valley():
    found = ends_of(0.0, VALLEY, start=2.0, lowest=1.0)
    assert found == Ends(lower=3, steepest=4, upper=8)


def test_noise_that_is_larger_than_a_tenth_decides():
    # Four times 0.05 is a change of 0.2: at 1.8 exactly the range has begun, at 1.2 it has not ended.
    assert ends_of(0.05, VALLEY, start=2.0, lowest=1.0) == Ends(lower=3, steepest=4, upper=9)
    assert ends_of(0.06, VALLEY, start=2.0, lowest=1.0) == Ends(lower=4, steepest=4, upper=9)
    assert ends_of(0.3, VALLEY, start=2.0, lowest=1.0) is None


def test_a_network_that_hardly_learns_is_held_against_the_other():
    shallow = (2.0, 1.97, 1.92, 1.95, 2.5)
    assert ends_of(0.0, shallow, start=2.0, lowest=1.92) is not None
    assert ends_of(0.0, shallow, start=2.0, lowest=1.0) is None


def test_a_larger_beginning_is_no_gain():
    late = (9.0, 7.0, 5.0, 3.0, 2.1, 1.8, 1.4, 4.0)
    assert ends_of(0.0, late, start=2.0, lowest=1.0) == Ends(lower=5, steepest=6, upper=6)


def test_a_dip_before_the_range_does_not_begin_it():
    dipping = (2.0, 1.5, 2.0, 1.8, 1.4, 1.0, 1.5)
    assert ends_of(0.0, dipping, start=2.0, lowest=1.0).lower == 3


def test_a_range_that_is_cut_off_at_both_ends():
    assert ends_of(0.0, (1.5, 1.2, 1.0), start=2.0, lowest=1.0) == Ends(lower=0, steepest=0, upper=2)


def test_nothing_that_falls_has_no_range():
    assert lowest_place((), 1) is None
    assert ends_of(0.0, (2.0, 2.0), start=2.0, lowest=2.0) is None


def test_smoothing_is_centred_and_keeps_straight_lines():
    line = [3.0 - 0.5 * step for step in range(20)]
    assert smooth(line, 5) == pytest.approx(line)
    spike = [0.0] * 9
    spike[4] = 5.0
    assert smooth(spike, 5) == pytest.approx([0, 0, 1, 1, 1, 1, 1, 0, 0])


def test_the_lowest_is_of_a_whole_window():
    assert lowest_place((0.0, 3.0, 2.0, 2.5, 1.0), 3) == 2
    assert lowest_place((0.0, 3.0), 3) is None


def test_a_fall_is_held_against_how_losses_scatter():
    generator = random.Random(0)
    noise = [generator.gauss(0.0, 0.1) for _ in range(4000)]
    places = range(10, 3990)
    # The standard error of a mean over five is 0.045, four of them 0.18; none of these lies above the start.
    believed = [sum(is_fall(noise, place, 5, start=start) for place in places) for start in (0.5, 0.1)]
    assert believed[0] > len(places) * 99 / 100
    assert believed[1] < len(places) / 5


def test_a_slope_and_what_diverges_after_it_are_no_scatter():
    slope = [2.0 - 0.1 * step for step in range(20)]
    assert is_fall(slope, 1, 3, start=2.0)
    assert is_fall([*slope, 2.5, 40.0, 1e9], 18, 3, start=2.0)


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_out_of_hand(last):
    assert out_of_hand(2.0, 0.1, [last], 5)


def test_noise_and_a_lost_gain_are_not_out_of_hand():
    # Nine standard errors above the start; then a loss that gave back what it had gained, and as much more.
    assert not out_of_hand(2.0, 0.1, [2.9] * 5, 5)
    assert out_of_hand(2.0, 0.1, [3.1] * 5, 5)
    assert not out_of_hand(2.0, 0.01, [1.0] * 5 + [3.0] * 5, 5)
    assert out_of_hand(2.0, 0.01, [1.0] * 5 + [4.1] * 5, 5)


def test_rates_have_equal_ratios_and_both_ends():
    rates = rates_between(1e-5, 10.0, 61)
    assert (rates[0], rates[-1]) == (1e-5, pytest.approx(10.0))
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([10**0.1] * 60)
