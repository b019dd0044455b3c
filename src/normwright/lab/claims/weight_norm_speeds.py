"""Claim 19: weight norm speeds training at lower cost than batch norm, with less regularisation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.bounds import ratio_of
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.points import test_points
from normwright.lab.book.race import steps_read
from normwright.lab.book.sides import height_of_curve
from normwright.lab.book.small_set import NOISY_RATES, RATES, SAYS, on_noisy_set, on_small_set
from normwright.lab.recipe import Recipe
from normwright.lab.run import Floats, RunResult
from normwright.lab.training import Run, build

NORMS = {"none": "no normaliser", "weight": "weight norm", "batch": "batch norm"}
COMPARED = ("weight", "batch")

# Half-way from the loss at the start, 2.3, to a fitted network, on a scale of logarithms.
TARGET = 0.3
SMOOTHED = 20

FASTER = 1.2
CHEAPER = 1.1
MATTERS = 0.5

TIMED_STEPS = 40
POINTS = 60


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: steps to the target, test accuracy, and the time of a step."""
    recipes = [on_small_set(bench, norm) for norm in NORMS]
    compared = [on_noisy_set(bench, norm) for norm in COMPARED]
    accurate = bench.best_rates(compared, NOISY_RATES, purpose="for accuracy")
    fast = bench.best_rates(recipes, RATES, score=height_of_curve, purpose="for speed")
    runs = [vary(side, seed=seed) for side in (*accurate, *fast)]
    results = dict(zip(NORMS, bench.train(*runs)[len(COMPARED) :], strict=True))
    judged = dict(zip(COMPARED, runs, strict=False))
    accuracy = {norm: test_points(bench, judged[norm]) for norm in COMPARED}
    speed_up, bound = ratio_of_steps(results["none"], results["weight"])
    times = step_times(bench, {norm: _timed(norm) for norm in COMPARED})
    return Trial(
        values={
            "speed_up": speed_up,
            "lower_cost": times["batch"] / times["weight"],
            "less_regularised": accuracy["batch"] - accuracy["weight"],
        },
        bounds={"speed_up": bound},
        series=tuple(_curve(norm, result) for norm, result in results.items()),
    )


def ratio_of_steps(without: RunResult, with_norm: RunResult) -> tuple[float, str]:
    """Steps to the target without weight norm over those with it, and what kind of bound that is."""
    return ratio_of(*(steps_read(steps_to_loss(result.loss), result) for result in (without, with_norm)))


def steps_to_loss(loss: Floats) -> int | None:
    """Steps until the mean training loss of the last 20 is at most the target; None if it never is."""
    low = np.flatnonzero(_smoothed(loss) <= TARGET)
    return int(low[0]) + SMOOTHED if len(low) else None


def step_times(bench: Bench, recipes: Mapping[str, Recipe]) -> dict[str, float]:
    """Median seconds of a training step of each recipe, in one process, taken in turn on one batch."""
    trainers: dict[str, Run] = {}
    for name, recipe in recipes.items():
        data = bench.data(recipe)
        trainers[name] = Run(recipe.training, build(recipe, data), data)
        batch = slice(recipe.training.batch_size)
    for step in range(TIMED_STEPS):
        for trainer in trainers.values():
            trainer.step(step, data.train_x[batch], data.train_y[batch])
    return {name: statistics.median(trainer.seconds) for name, trainer in trainers.items()}


def _timed(norm: str) -> Recipe:
    """What is timed: a network of the kind that the paper compares."""
    return make("lenet", "fashion-mnist", norm=norm, activation="relu", batch_size=64, lr=0.01)


def _smoothed(loss: Sequence[float] | Floats) -> Floats:
    """Means over the last 20 steps, from the 20th step on."""
    return np.convolve(np.asarray(loss, dtype=np.float64), np.full(SMOOTHED, 1 / SMOOTHED), "valid")


def _curve(norm: str, result: RunResult) -> Series:
    """The smoothed training loss at no more than 60 points."""
    values = _smoothed(result.loss)
    chosen = range(0, len(values), math.ceil(len(values) / POINTS))
    return Series(
        NORMS[norm],
        tuple(float(step + SMOOTHED) for step in chosen),
        tuple(float(values[step]) for step in chosen),
        norm,
    )


CLAIM = Claim(
    number=19,
    sentence=("Weight norm speeds training at lower cost than batch norm, with less regularisation."),
    references=(
        "Salimans & Kingma 2016, arXiv:1602.07868 (faster training of convolutional networks, at less "
        "overhead than batch norm)",
        "Gitman & Ginsburg 2017, arXiv:1709.08145 (on ImageNet weight norm fits better and generalises about "
        "6 points worse: it lacks batch norm's regularisation)",
    ),
    predictions=(
        Prediction(
            "speed_up",
            f"steps to a training loss of {TARGET:g} without a normaliser are at least {FASTER:g} times "
            "those with weight norm",
            "times",
            at_least=FASTER,
            ratio=True,
        ),
        Prediction(
            "lower_cost",
            f"a step of LeNet with batch norm takes at least {CHEAPER:g} times the time of one with weight "
            "norm",
            "times",
            at_least=CHEAPER,
            ratio=True,
        ),
        Prediction(
            "less_regularised",
            f"test accuracy with batch norm is at least {MATTERS:g} points above that with weight norm",
            "points of accuracy",
            at_least=MATTERS,
        ),
    ),
    recipe=(
        f"{SAYS}. For accuracy, 1,000 images of which a fifth bear a wrong label, and 40 epochs. The time of "
        "a step is taken in LeNet with ReLU at batch 64."
    ),
    measure=(
        "Steps until the mean training loss of the last 20 steps is at most the target, at the rate with the "
        "highest validation accuracy over training; accuracy on the 10,000 test images, which are rightly "
        "labelled, at the end of training with wrong labels, at the rate with the highest validation "
        "accuracy at its end; and the median time of a training step of both kinds, taken in turn in one "
        "process with nothing beside it."
    ),
    conditions=(
        "Weight norm starts from the same weights as no normaliser does, as in PyTorch, and without the "
        "paper's initialisation by a first batch: its gain is then the length of its direction, and its "
        "first step of SGD that of no normaliser. The time is that of this library's kernels on one CPU "
        "core: weight norm's grows with the weights, batch norm's with the activations. Accuracy is compared "
        "on the set of claim 6, on which dropout gains: on clean labels nothing would be left for a "
        "regulariser to gain."
    ),
    practice={
        "supported": (
            "Where batch statistics are unwanted (reinforcement learning, recurrent networks, tiny "
            "batches), weight norm gives part of the speed for less time in a step. Bring your own "
            "regularisation, which batch norm would have given."
        ),
        "not supported": (
            "Weight norm is no cheap stand-in for batch norm on this evidence. Measure steps, time and "
            "accuracy in your own network before you choose it, and look at the verdict of each part."
        ),
        "refuted": (
            "Do not expect speed, low cost and weaker regularisation of weight norm all at once; see which "
            "part failed. Where batch statistics are unwanted, group or layer norm is the better first "
            "choice."
        ),
    },
    plot=Plot(
        "Training loss with weight norm, batch norm and neither", "training step", "training loss", log_y=True
    ),
    experiment=experiment,
)
