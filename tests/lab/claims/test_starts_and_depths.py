"""Initial weights and depth: what the experiments find in results written by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from normwright.lab.claims import deep_saturating, initial_weights, large_weights, shallow_and_deep

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from written_bench import WrittenBench, written  # noqa: E402  # found by the line above


def test_the_range_over_starts_is_at_the_best_rate_of_each():
    tests = {
        ("none", 0.01): 0.1,
        ("none", 0.03): 0.7,
        ("none", 0.1): 0.8,
        ("none", 0.3): math.nan,
        ("batch", 0.01): 0.75,
        ("batch", 0.03): 0.8,
        ("batch", 0.1): 0.85,
        ("batch", 0.3): 0.85,
    }
    best = {0.01: 1.0, 0.03: 0.1, 0.1: 0.01, 0.3: 0.001}

    def result(recipe):
        return written([0.9 if recipe.training.lr == best[recipe.network.init_std] else 0.2])

    def test(recipe):
        assert recipe.training.lr == best[recipe.network.init_std]
        return tests[recipe.training.norm, recipe.network.init_std]

    trial = initial_weights.experiment(WrittenBench(result, test), 0)
    assert trial.values["range"] == pytest.approx(70 - 10)  # 10 to 80 %, one having diverged; 75 to 85 %
    assert trial.series[0].y == pytest.approx((10, 70, 80, 10))


def test_large_weights_are_judged_by_the_first_gradient_and_by_what_training_gives():
    norms = {"none": {0.1: 2.0, 0.3: 50.0, 1.0: 600.0}, "batch": {0.1: 2.0, 0.3: 1.0, 1.0: 1.0}}
    norms["layer"] = {0.1: 1.0, 0.3: 1.0, 1.0: 3.0}

    def result(recipe):
        first = norms[recipe.training.norm][recipe.network.init_std]
        best = {"none": 1e-6, "batch": 0.1}.get(recipe.training.norm)
        return written([0.9 if recipe.training.lr == best else 0.2], gradient=[[first, 7.0], [9.0, 9.0]])

    def test(recipe):
        assert recipe.network.init_std == 1.0
        return {1e-6: 0.3, 0.1: 0.8}[recipe.training.lr]

    trial = large_weights.experiment(WrittenBench(result, test), 0)
    expected = {"explodes": 300.0, "held_by_batch": 0.5, "held_by_layer": 3.0, "accuracy": 50.0}
    assert trial.values == pytest.approx(expected)


def test_a_first_gradient_that_is_not_finite_is_not_a_measure():
    assert math.isnan(large_weights.first_gradient(written(gradient=[[math.inf, 1.0]])))
    assert math.isnan(large_weights.first_gradient(written(diverged=True)))


@pytest.mark.parametrize("quick", [False, True])
def test_each_activation_is_judged_by_its_own_gain(quick):
    tests = {
        ("sigmoid", "batch"): 0.8,
        ("sigmoid", "none"): 0.1,
        ("tanh", "batch"): 0.85,
        ("tanh", "none"): 0.8,
    }

    def test(recipe):
        return tests[recipe.network.activation, recipe.training.norm]

    trial = deep_saturating.experiment(WrittenBench(lambda recipe: written(), test, quick=quick), 0)
    assert trial.values == pytest.approx({"sigmoid": 70.0, "tanh": 5.0})


def test_the_gain_is_that_of_the_shallowest_and_of_the_deepest_network():
    none = {1: 0.8, 2: 0.7, 4: 0.4, 8: 0.1}

    def test(recipe):
        return 0.82 if recipe.training.norm == "batch" else none[recipe.network.depth]

    trial = shallow_and_deep.experiment(WrittenBench(lambda recipe: written(), test), 0)
    assert trial.values == pytest.approx({"shallow": 2.0, "deep": 72.0})
    assert trial.series[0].y == pytest.approx((80, 70, 40, 10))
