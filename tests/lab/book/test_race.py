"""Races to an accuracy, on results written by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from normwright.errors import RunError
from normwright.lab.book.bench import PILOT_SEED, make
from normwright.lab.book.choice import ChosenRate, chosen_rates
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.race import Heat, at_fastest, heats, plan, steps_held, steps_ratio

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
        (390, 40, 400 / 50, ""),
        (None, 40, 600 / 50, "at least"),  # it was given 600, and needs more
        (590, None, 600 / 600, "at most"),
        (None, None, math.nan, ""),
    ],
)
def test_who_does_not_get_there_counts_with_what_it_was_given(slow, fast, ratio, bound):
    sides = [rising({0.8: at} if at else {}, length=600) for at in (slow, fast)]
    assert steps_ratio(*sides, 0.8) == (pytest.approx(ratio, nan_ok=True), bound)


def test_a_fast_side_that_was_given_less_than_the_slow_one_took_bounds_the_ratio_from_above():
    assert steps_ratio(rising({0.8: 390}, length=600), rising({}, length=200), 0.8) == (2.0, "at most")


def test_the_ratio_is_that_of_each_sides_fastest_rate_to_the_target():
    slow = {1.0: rising({0.7: 100, 0.8: 500}, length=600), 3.0: rising({0.7: 200, 0.8: 300}, length=600)}
    fast = {0.1: rising({0.7: 90}, length=600), 0.3: rising({0.7: 40, 0.8: 50}, length=600)}
    assert heats(slow, fast, (0.7, 0.8, 0.9)) == [
        Heat(0.7, 110 / 50),
        Heat(0.8, 310 / 60),
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
    assert plan(bench, slow, fast, (0.7, 0.8)) == [Heat(0.7, 110 / 50)]
    assert len(bench.used) == 4
    assert bench.choices == []  # of many targets, the experiment takes some
    with pytest.raises(RunError, match=r"one of the targets \[0.9\] in a pilot run"):
        plan(bench, slow, fast, [0.9])


def test_a_side_runs_at_its_fastest_rate_and_the_bench_is_told_to_which_target():
    side = Entrant(make("mlp", "digits", norm="batch", batch_size=8, seed=3), (0.1, 0.3, 1.0))
    steps = {0.1: {0.7: 100, 0.8: 300}, 0.3: {0.7: 40}, 1.0: {}}
    bench = WrittenBench(lambda recipe: rising(steps[recipe.training.lr], length=600))
    chosen = [at_fastest(bench, side, target) for target in (0.7, 0.8)]
    assert [(recipe.training.lr, recipe.training.seed) for recipe in chosen] == [(0.3, 3), (0.1, 3)]
    assert chosen_rates(bench.choices) == (
        ChosenRate("to 70%", 0.3, (0.1, 0.3, 1.0), "", ""),
        ChosenRate("to 80%", 0.1, (0.1, 0.3, 1.0), "smallest", "rising"),
    )
    with pytest.raises(RunError, match=r"must reach the target 0\.9 in a pilot run"):
        at_fastest(bench, side, 0.9)


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
