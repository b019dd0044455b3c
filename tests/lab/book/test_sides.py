"""Which setting stands for a side, from results written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from normwright.lab.book.bench import PILOT_SEED, make, vary
from normwright.lab.book.sides import best_setting, height_of_curve, rates_note
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

    def train(self, *recipes):
        assert {recipe.training.seed for recipe in recipes} == {PILOT_SEED}
        return tuple(self.results[recipe.network.dropout] for recipe in recipes)


@pytest.fixture
def settings():
    base = make("mlp", "digits", norm="none", batch_size=2, seed=3)
    return [vary(base, dropout=share, lr=rate) for share, rate in ((0.0, 0.1), (0.2, 0.3), (0.5, 1.0))]


def test_the_best_setting_is_that_of_the_best_last_validation_metric(settings):
    bench = Pilots(p0=result(0.9, 0.5), p2=result(0.1, 0.7), p5=result(0.3, 0.6))
    assert best_setting(bench, settings) is settings[1]


def test_a_setting_that_diverged_is_not_the_best(settings):
    bench = Pilots(p0=result(0.5), p2=result(0.99, diverged=True), p5=result(0.4))
    assert best_setting(bench, settings) is settings[0]


def test_the_height_of_a_curve_favours_the_run_that_is_good_sooner():
    assert height_of_curve(result(0.8, 0.8, 0.8)) > height_of_curve(result(0.1, 0.5, 0.9))
    assert height_of_curve(result(0.25, 0.75)) == 0.5


def test_the_note_tells_of_rates_at_the_edge(settings):
    sides = dict(zip(("none", "little", "much"), settings, strict=True))
    assert rates_note(sides, (0.1, 0.3, 1.0)) == (
        "Learning rates: none 0.1 (the smallest tried), little 0.3, much 1 (the largest tried)."
    )
    own = {"none": (0.01, 0.1, 1.0), "little": (0.03, 0.3), "much": (0.1, 1.0, 10.0)}
    assert rates_note(sides, own) == "Learning rates: none 0.1, little 0.3 (the largest tried), much 1."
