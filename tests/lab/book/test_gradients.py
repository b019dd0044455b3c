"""Gradients by layer and the steadiness of the signal, on results written by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from normwright.lab.book.gradients import mean_gradients, top_over_bottom
from normwright.lab.book.points import test_points as points_of
from normwright.lab.book.points import validation_points
from normwright.lab.book.steadiness import drift, spreads, unevenness

HERE = str(Path(__file__).parent.parent / "claims")

if HERE not in sys.path:
    sys.path.append(HERE)

from written_bench import WrittenBench, written  # noqa: E402  # found by the line above


def test_means_are_geometric_and_over_the_first_steps_alone():
    run = written(records=(0, 10, 20), gradient=[[1, 8], [4, 2], [1000, 1000]])
    assert mean_gradients(run, 20).tolist() == pytest.approx([2, 4])
    assert mean_gradients(run, 1).tolist() == pytest.approx([1, 8])


def test_a_gradient_of_zero_is_counted_as_the_least_there_is():
    (mean,) = mean_gradients(written(gradient=[[0.0]]), 1)
    assert 0 < mean < 1e-37


def test_the_last_hidden_layer_is_held_against_the_second():
    assert top_over_bottom([100.0, 2.0, 4.0, 6.0, 100.0]) == 3.0


# Two layers at two records: the first widens about its middle, the second moves as a whole.
MOVING = written(records=(0, 10), output=[[[-1, 0, 1], [-2, 0, 2]], [[-2, 0, 2], [2, 4, 6]]])


def test_spread_and_unevenness_are_of_what_the_activation_receives():
    assert spreads(MOVING).tolist() == [[2, 4], [4, 4]]
    assert unevenness(MOVING) == 2.0


def test_drift_is_in_spreads_of_the_first_step():
    # (1/2 + 0 + 1/2)/3 in the first layer, (1 + 1 + 1)/3 in the second.
    assert drift(MOVING).tolist() == pytest.approx([0, (1 / 3 + 1) / 2])


def test_a_run_that_diverged_answers_by_chance():
    assert points_of(WrittenBench(lambda recipe: written(), lambda recipe: float("nan")), None) == 10.0
    assert points_of(WrittenBench(lambda recipe: written(), lambda recipe: 0.875), None) == 87.5
    assert validation_points(written([0.5, 0.75])) == 75.0
    assert str(validation_points(written([0.5], diverged=True))) == "nan"
