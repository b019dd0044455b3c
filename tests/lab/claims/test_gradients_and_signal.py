"""Gradients by layer and the drift of the signal: what the experiments find in results written by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from normwright.lab.claims import gradients_by_layer, larger_gradients, non_saturating, steady_start

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from written_bench import WrittenBench, rising, written  # noqa: E402  # found by the line above


def test_the_first_layers_gradient_is_compared_at_the_first_step_and_over_the_epoch():
    def result(recipe):
        if recipe.network.activation == "relu":
            return written(gradient=[[3.0 if recipe.training.norm == "batch" else 6.0, 1, 1]])
        if recipe.training.norm == "none":
            return written(records=(0, 890, 900), gradient=[[0.01, 1, 1], [0.04, 1, 1], [99, 1, 1]])
        return written(records=(0, 890), gradient=[[0.5, 1, 1], [0.02, 1, 1]])

    trial = larger_gradients.experiment(WrittenBench(result), 0)
    # √(0.5 · 0.02) over √(0.01 · 0.04): what was recorded after the first 900 steps does not count.
    expected = {"sigmoid_first_step": 50.0, "sigmoid_first_epoch": 5.0}
    expected |= {"relu_first_step": 0.5, "relu_first_epoch": 0.5}
    assert trial.values == pytest.approx(expected)


def profile(recipe):
    """Gradients that fall towards the input by a factor of the activation's own."""
    factor = {"sigmoid": 4.0, "tanh": 1.5, "relu": 1.0, "leaky_relu": 1.0}[recipe.network.activation]
    if recipe.training.norm == "batch":
        factor = 1.0
    return [[50.0, *(factor**layer for layer in range(5)), 50.0]]


def test_layers_of_one_size_are_compared_by_activation():
    trial = gradients_by_layer.experiment(WrittenBench(lambda recipe: written(gradient=profile(recipe))), 0)
    assert trial.values == pytest.approx({"sigmoid": 4.0**4, "tanh": 1.5**4, "relu": 1.0})
    assert trial.series[0].x[-1] == "hidden 6"


def test_activations_are_judged_by_how_gradients_fade_and_by_the_steps_of_the_fastest_rate():
    steps = {
        "sigmoid": {3.0: 4490},
        "tanh": {0.1: 190, 0.3: 90},
        "relu": {0.1: 140},
        "leaky_relu": {0.1: 150},
    }

    def result(recipe):
        at = steps[recipe.network.activation].get(recipe.training.lr)
        run = rising({0.8: at} if at else {}, length=5000)
        return written(run.validation, gradient=profile(recipe))

    trial = non_saturating.experiment(WrittenBench(result), 0)
    assert trial.values == pytest.approx(
        {"gradient_sigmoid": 256.0, "steps_sigmoid": 30.0, "gradient_tanh": 1.5**4, "steps_tanh": 100 / 150}
    )


def test_the_start_is_judged_by_evenness_and_training_by_drift():
    def result(recipe):
        if recipe.network.initialisation == "normal":
            first, last = [[-8, 0, 8], [-1, 0, 1]], [[-8, 0, 8], [-1, 0, 1]]
        else:
            moved = 0.5 if recipe.training.norm == "batch" else 2.0
            first, last = [[-2, 0, 2], [-1, 0, 1]], [[-2 + 2 * moved, 2 * moved, 2 + 2 * moved], [-1, 0, 1]]
        return written(records=(0, 10, 20), output=[first, last, last])

    trial = steady_start.experiment(WrittenBench(result), 0)
    assert trial.values == pytest.approx({"start": 8 / 2, "training": 4.0})
