"""The parts that the page is made of: cubes, scales, colours."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from normwright.errors import OptionError
from normwright.lab.recipe import NORMS
from normwright.lab.records import Band, RateMap
from normwright.report.cubes import NEAREST, SHAPE, coloured, cube
from normwright.report.curves import MOST_POINTS, thinned
from normwright.report.palette import INK, PAPER, STYLES, along, contrast, ink_on, style_of
from normwright.report.rates import SCALE, rates
from normwright.report.ribbons import scales


def test_every_normaliser_has_a_colour_a_marker_and_a_cube() -> None:
    assert tuple(STYLES) == NORMS
    assert len({style.colour for style in STYLES.values()}) == len(NORMS)
    assert len({style.marker for style in STYLES.values()}) == len(NORMS)
    assert all(cube(norm).words for norm in NORMS)


def test_an_unknown_normaliser_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match="did you mean 'batch'"):
        style_of("bach")


def test_the_coloured_elements_are_those_of_the_definition() -> None:
    n, c, s = np.indices(SHAPE)
    last_n, last_c, last_s = NEAREST
    expected = {
        "none": np.zeros(SHAPE, dtype=bool),
        "batch": c == last_c,
        "layer": n == last_n,
        "instance": (n == last_n) & (c == last_c),
        "group": (n == last_n) & (c // 2 == last_c // 2),  # three groups of two channels
        "rms": n == last_n,
        "lrn": (n == last_n) & (s == last_s) & (c >= last_c - 4),
        "renorm": c == last_c,
        "ghost": (c == last_c) & (n >= 2),  # virtual batches of two of the four samples
        "whitening": c // 2 == last_c // 2,
        "frn": (n == last_n) & (c == last_c),
        "dyt": np.zeros(SHAPE, dtype=bool),
        "weight": np.zeros(SHAPE, dtype=bool),
        "ws": (n == last_n) & (c // 2 == last_c // 2),
        "recurrent-batch": (c == last_c) & (s == last_s),
        "recurrent-layer": (n == last_n) & (s == last_s),
    }
    for norm in NORMS:
        np.testing.assert_array_equal(coloured(norm), expected[norm])


def test_a_cube_shows_its_three_sides() -> None:
    samples, channels, places = SHAPE
    assert len(cube("batch").faces) == samples * channels + channels * places + samples * places
    # Batch: a row of the top, a column of the left side, the whole of the right side.
    plain = {face.fill for face in cube("none").faces}
    assert sum(face.fill not in plain for face in cube("batch").faces) == samples + places + samples * places


def test_text_on_the_scale_of_the_map_can_be_read() -> None:
    for step in range(101):
        background = along(SCALE, step / 100)
        assert contrast(ink_on(background), background) >= 4.5


def test_the_scale_of_the_map_darkens_throughout() -> None:
    brightness = [contrast(along(SCALE, step / 50), "#000000") for step in range(51)]
    assert all(first > second for first, second in itertools.pairwise(brightness))
    assert contrast(INK, PAPER) > 12


def test_thinning_keeps_the_mean_and_the_length_within_bounds() -> None:
    steps = tuple(range(9 * MOST_POINTS))
    values = tuple(float(step % 9) for step in steps)
    thin = thinned(Band(steps, values, values, values))
    assert len(thin.steps) == MOST_POINTS
    assert set(thin.mean) == {4.0}
    assert thin.low == thin.high


def test_thinning_drops_what_is_not_finite() -> None:
    thin = thinned(Band((0, 1, 2), (1.0, math.nan, 3.0), (1.0, 2.0, 3.0), (1.0, 2.0, math.inf)))
    assert thin.steps == (0,)


def test_panels_share_a_scale_but_for_one_that_would_flatten_them() -> None:
    small, other, huge = [(-1.0, 0.0, 1.0)], [(-2.0, 0.0, 2.0)], [(-900.0, 0.0, 900.0)]
    first, second, third = scales([small, other, huge])
    assert first == second
    assert not first.own
    assert third.own
    assert third.range[1] > 900
    assert first.range[0] < -2
    assert first.range[1] > 2


def test_scales_of_constant_and_missing_values_have_a_width() -> None:
    for scale in scales([[(0.0, 0.0, 0.0)], [(math.nan, math.nan, math.nan)], []]):
        low, high = scale.range
        assert low < high


def test_the_framed_rate_is_the_one_that_is_judged(make_comparison):
    """Of a rate at which seeds diverged the mean is of those alone that lasted."""
    seen = RateMap("batch", (0.1, 0.3, 1.0), (32,), ((0.9, 0.95, 0.99),), ((0, 0, 2),))
    tied = RateMap("none", (0.1, 0.3, 1.0), (32,), ((0.9, 0.9, None),), ((0, 0, 3),))
    [grid] = rates(dataclasses.replace(make_comparison(), rate_maps=(seen, tied))).grids
    framed = [[cell.best for cell in line.cells] for line in grid.lines]
    assert framed == [[False, True, False], [True, False, False]]
