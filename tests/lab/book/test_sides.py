"""Which setting stands for a side, from results written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from normwright.lab.book.bench import PILOT_SEED, make, vary
from normwright.lab.book.choice import Choice
from normwright.lab.book.sides import best_of_pilots, best_setting, height_of_curve
from normwright.lab.run import LayerTrace, RunResult


def result(*validation, diverged=False):
    nothing = np.zeros(0)
    return RunResult(
        diverged=diverged,
        loss=np.ones(30),
        evaluation_steps=np.arange(1, len(validation) + 1) * 10,
        validation=np.array(validation),
        milliseconds=1.0,
        peak_bytes=1,
        places=1,
        left_out=0,
        trace=LayerTrace(nothing, (), nothing, nothing, (), nothing, nothing),
    )


class Pilots:
    """A bench that has the pilot runs of some dropouts, and no others."""

    def __init__(self, **results):
        self.results = {float(name.removeprefix("p")) / 10: value for name, value in results.items()}
        self.choices = []

    def train(self, *recipes):
        assert {recipe.training.seed for recipe in recipes} == {PILOT_SEED}
        return tuple(self.results[recipe.network.dropout] for recipe in recipes)


@pytest.fixture
def settings():
    base = make("mlp", "digits", norm="none", batch_size=2, seed=3)
    return [vary(base, dropout=share, lr=rate) for share, rate in ((0.0, 0.1), (0.2, 0.3), (0.5, 1.0))]


def test_the_best_setting_is_that_of_the_best_last_validation_metric(settings):
    bench = Pilots(p0=result(0.9, 0.5), p2=result(0.1, 0.7), p5=result(0.3, 0.6))
    assert best_setting(bench, settings) is best_of_pilots(bench, settings) is settings[1]


def test_the_bench_forgets_the_rates_of_settings_that_do_not_stand_for_the_side(settings):
    bench = Pilots(p0=result(0.5), p2=result(0.7), p5=result(0.6))
    other = vary(settings[0], norm="batch")
    bench.choices = [Choice(recipe, {recipe.training.lr: (1, 0.5)}) for recipe in (*settings, other)]
    best_of_pilots(bench, settings)
    assert len(bench.choices) == 4
    best_setting(bench, settings)
    assert [choice.recipe for choice in bench.choices] == [settings[1], other]


def test_a_setting_that_diverged_is_not_the_best(settings):
    bench = Pilots(p0=result(0.5), p2=result(0.99, diverged=True), p5=result(0.4))
    assert best_setting(bench, settings) is settings[0]


def test_the_height_of_a_curve_favours_the_run_that_is_good_sooner():
    assert height_of_curve(result(0.8, 0.8, 0.8)) > height_of_curve(result(0.1, 0.5, 0.9))
    assert height_of_curve(result(0.25, 0.75)) == 0.5
