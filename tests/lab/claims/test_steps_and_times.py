"""Claims 15 and 19: steps to a target and times of a step, on results written by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from normwright.lab.book.bench import make
from normwright.lab.claims import decay_is_no_norm, weight_norm_speeds
from normwright.lab.claims.weight_norm_speeds import ratio_of_steps, step_times, steps_to_loss
from normwright.lab.data import load


def results(**steps):
    return {name: SimpleNamespace(loss=np.zeros(given)) for name, given in steps.items()}


def test_weight_decay_is_compared_with_batch_norm_and_with_neither():
    values, bounds = decay_is_no_norm.ratios(
        {"none": 1_000, "decay": 800, "batch": 200}, results(none=2_400, decay=2_400, batch=2_400)
    )
    assert values == {"decay_is_slower": 4.0, "decay_speeds_up": 1.25}
    assert not any(bounds.values())


def test_a_side_that_did_not_get_there_counts_with_the_steps_it_was_given():
    values, bounds = decay_is_no_norm.ratios(
        {"none": 1_000, "decay": None, "batch": 200}, results(none=2_400, decay=2_000, batch=2_400)
    )
    assert values == {"decay_is_slower": 10.0, "decay_speeds_up": 0.5}
    assert bounds == {"decay_is_slower": "at least", "decay_speeds_up": "at most"}


def test_a_bound_tells_on_which_side_the_ratio_lies_and_two_tell_nothing():
    given = results(none=2_400, decay=2_400, batch=2_400)
    values, bounds = decay_is_no_norm.ratios({"none": None, "decay": 500, "batch": None}, given)
    assert values == {"decay_is_slower": 500 / 2_400, "decay_speeds_up": 2_400 / 500}
    assert bounds == {"decay_is_slower": "at most", "decay_speeds_up": "at least"}
    values, bounds = decay_is_no_norm.ratios({"none": None, "decay": None, "batch": None}, given)
    assert all(map(math.isnan, values.values()))
    assert not any(bounds.values())


def test_steps_to_a_loss_are_counted_to_the_end_of_the_first_low_stretch():
    assert steps_to_loss(np.array([2.0] * 100 + [0.3] * 50, dtype=np.float32)) is None  # 0.3 rounds up
    assert steps_to_loss(np.array([2.0] * 100 + [0.29] * 50)) == 120
    assert steps_to_loss(np.array([0.1] * 20)) == 20
    lucky = np.full(200, 1.0)
    lucky[50] = 0.0
    assert steps_to_loss(lucky) is None


@pytest.mark.parametrize(
    ("slow", "fast", "expected"),
    [
        (200, 100, (2.0, "")),
        (None, 100, (3.0, "at least")),
        (200, None, (200 / 300, "at most")),
        (None, None, (math.nan, "")),
    ],
)
def test_the_ratio_of_steps(slow, fast, expected):
    def run(reached):
        """Of 20 losses, 15 that are 0 bring the mean of those that are 1.1 to the target."""
        values = np.full(300, 1.1)
        if reached is not None:
            values[reached - 15 :] = 0.0
        return SimpleNamespace(loss=values)

    ratio, bound = ratio_of_steps(run(slow), run(fast))
    assert (ratio, bound) == (pytest.approx(expected[0], nan_ok=True), expected[1])


def test_a_step_is_timed_on_each_side_in_turn(monkeypatch):
    """Time stands still but for what a step of either side is said to take."""
    order = []

    class Timed:
        def __init__(self, recipe, built, data):
            self.norm, self.seconds = recipe.norm, []

        def step(self, step, x, y):
            assert len(x) == len(y) == 32
            order.append(self.norm)
            self.seconds.append({"weight": 1.0, "batch": 3.0}[self.norm])

    monkeypatch.setattr(weight_norm_speeds, "Run", Timed)
    monkeypatch.setattr(weight_norm_speeds, "build", lambda recipe, data: None)
    recipes = {norm: make("mlp", "digits", norm=norm, batch_size=32) for norm in ("weight", "batch")}
    bench = SimpleNamespace(data=lambda recipe: load(recipe.data))
    assert step_times(bench, recipes) == {"weight": 1.0, "batch": 3.0}
    assert order[:4] == ["weight", "batch", "weight", "batch"]
