"""Races to an accuracy, on results written by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from normwright.errors import RunError
from normwright.lab.book.bench import PILOT_SEED, make
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.race import Heat, heats, plan, steps_held, steps_ratio

HERE = str(Path(__file__).parent.parent / "claims")

if HERE not in sys.path:
    sys.path.append(HERE)

from written_bench import WrittenBench, rising, written  # noqa: E402  # found by the line above


def test_a_target_is_reached_by_two_evaluations_in_a_row():
    assert steps_held(written([0.1, 0.8, 0.7, 0.8, 0.9]), 0.8) == 50
    assert steps_held(written([0.1, 0.8, 0.7, 0.8]), 0.8) is None
    assert steps_held(written([0.9, 0.9, 0.9], diverged=True), 0.8) is None


@pytest.mark.parametrize(
    ("slow", "fast", "ratio", "bound"),
    [
        (390, 40, 400 / 50, False),
        (None, 40, 600 / 50, True),  # it was given 600
        (590, None, 600 / 600, True),
        (None, None, math.nan, False),
    ],
)
def test_who_does_not_get_there_counts_with_what_it_was_given(slow, fast, ratio, bound):
    sides = [rising({0.8: at} if at else {}, length=600) for at in (slow, fast)]
    found, bounded = steps_ratio(*sides, 0.8)
    assert found == pytest.approx(ratio, nan_ok=True)
    assert bounded is bound


def test_a_fast_side_that_was_given_less_than_the_slow_one_took_says_nothing():
    found, bounded = steps_ratio(rising({0.8: 390}, length=600), rising({}, length=200), 0.8)
    assert math.isnan(found)
    assert not bounded


def test_each_side_has_the_rate_that_is_fastest_to_the_target():
    slow = {1.0: rising({0.7: 100, 0.8: 500}, length=600), 3.0: rising({0.7: 200, 0.8: 300}, length=600)}
    fast = {0.1: rising({0.7: 90}, length=600), 0.3: rising({0.7: 40, 0.8: 50}, length=600)}
    assert heats(slow, fast, (0.7, 0.8, 0.9)) == [
        Heat(0.7, 1.0, 0.3, 110 / 50),
        Heat(0.8, 3.0, 0.3, 310 / 60),
    ]


def test_a_pilot_run_that_gets_there_late_leaves_no_room_for_a_slower_seed():
    slow = {1.0: rising({0.7: 380, 0.8: 390}, length=600), 3.0: rising({0.8: 400}, length=600)}
    fast = {0.1: rising({0.7: 40, 0.8: 50}, length=600)}
    assert [heat.target for heat in heats(slow, fast, (0.7, 0.8), 2 / 3)] == [0.7, 0.8]  # at step 400 of 600
    slow[1.0] = rising({0.7: 380, 0.8: 400}, length=600)
    assert [heat.target for heat in heats(slow, fast, (0.7, 0.8), 2 / 3)] == [0.7]


def test_the_plan_is_made_of_pilot_runs_alone():
    slow, fast = (
        Entrant(make("mlp", "digits", norm=norm, batch_size=8, seed=3), (0.1, 1.0))
        for norm in ("none", "batch")
    )
    at = {("none", 0.1): 300, ("none", 1.0): 100, ("batch", 0.1): 40, ("batch", 1.0): 90}

    def result_of(recipe):
        assert recipe.training.seed == PILOT_SEED
        return rising({0.7: at[recipe.training.norm, recipe.training.lr]}, length=600)

    bench = WrittenBench(result_of)
    assert plan(bench, slow, fast, (0.7, 0.8)) == [Heat(0.7, 1.0, 0.1, 110 / 50)]
    assert len(bench.used) == 4
    with pytest.raises(RunError, match=r"one of the targets \[0.9\] in a pilot run"):
        plan(bench, slow, fast, [0.9])


def test_each_side_has_the_best_of_its_own_rates_and_all_pilots_are_asked_for_at_once():
    calls = []

    class Counting(WrittenBench):
        def train(self, *recipes):
            calls.append(len(recipes))
            return super().train(*recipes)

    bench = Counting(lambda recipe: written([0.9 if recipe.training.lr in (0.2, 3.0) else 0.5]))
    sides = [
        Entrant(make("mlp", "digits", norm="none", batch_size=8, seed=3), (1.0, 3.0)),
        Entrant(make("mlp", "digits", norm="batch", batch_size=8, seed=3), (0.1, 0.2, 0.3)),
    ]
    best = best_of(bench, sides)
    assert [(recipe.training.lr, recipe.training.seed) for recipe in best] == [(3.0, 3), (0.2, 3)]
    assert calls[0] == 5
