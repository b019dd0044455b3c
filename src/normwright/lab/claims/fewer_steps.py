"""Claim 1: batch norm reaches a given accuracy in fewer training steps."""

from __future__ import annotations

import math

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.judge import steps_to
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult

# As the trial run found, half a percent below what the network without batch norm ends at.
TARGETS = (0.5, 0.6, 0.7, 0.75, 0.8)
RATES = (0.03, 0.3, 3.0)
MATTERS = 2.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: steps of each side to each target, both at their best rate."""
    batch, none = bench.best_rates([_recipe(bench, norm) for norm in ("batch", "none")], RATES)
    with_norm, without = bench.train(vary(batch, seed=seed), vary(none, seed=seed))
    ratios = {target: _ratio(with_norm, without, target) for target in TARGETS}
    return Trial(
        values={"speed_up": max((r for r in ratios.values() if math.isfinite(r)), default=math.nan)},
        series=(_curve("batch norm", "batch", with_norm), _curve("no normaliser", "none", without)),
    )


def _recipe(bench: Bench, norm: str) -> Recipe:
    epochs = bench.size(6, 2)
    return make("mlp", "fashion-mnist", norm=norm, batch_size=60, epochs=epochs, evaluations=18)


def _ratio(with_norm: RunResult, without: RunResult, target: float) -> float:
    """Steps without over steps with; NaN where not both sides reach the target."""
    fast, slow = steps_to(with_norm, target), steps_to(without, target)
    return slow / fast if fast and slow else math.nan


def _curve(name: str, norm: str, result: RunResult) -> Series:
    return Series(
        name, tuple(map(float, result.evaluation_steps)), tuple(map(float, result.validation)), norm
    )


CLAIM = Claim(
    number=1,
    sentence="Batch norm reaches a given accuracy in fewer training steps.",
    references=("Ioffe & Szegedy 2015, arXiv:1502.03167 (14 times fewer, Inception on ImageNet)",),
    predictions=(
        Prediction(
            "speed_up",
            f"steps without over steps with batch norm are at least {MATTERS:g}, where both get there",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
    ),
    recipe="6 hidden layers of 100 sigmoid units on Fashion-MNIST, batch 60, Xavier start, plain SGD.",
    measure="Training steps until the validation accuracy first reaches the target.",
    conditions="A small network on a small set of images; the paper's figure is for Inception on ImageNet.",
    practice={
        "supported": "Put batch norm into deep networks with saturating activations.",
        "not supported": "Do not count on it.",
        "refuted": "Batch norm is no way to train faster here.",
    },
    plot=Plot("Validation accuracy while training", "training step", "validation accuracy"),
    experiment=experiment,
)
