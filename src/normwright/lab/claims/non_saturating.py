"""Claim 13: non-saturating activations lessen vanishing gradients and converge faster."""

from __future__ import annotations

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import RATES, SLOW_EPOCHS, watched_mlp, watched_steps
from normwright.lab.book.entrant import Entrant
from normwright.lab.book.gradients import mean_gradients, top_over_bottom
from normwright.lab.book.race import at_fastest, steps_ratio

ACTIVATIONS = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "ReLU", "leaky_relu": "leaky ReLU"}
SATURATING = ("sigmoid", "tanh")
TARGET, QUICK_TARGET = 0.8, 0.7

FADES, FASTER = 2.0, 1.5


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: how far gradients fade, and the steps to the target, by activation."""
    target = bench.size(TARGET, QUICK_TARGET)
    sides = {name: Entrant(watched_mlp(bench, "none", name), RATES[name, "none"]) for name in ACTIVATIONS}
    bench.train(*(run for side in sides.values() for run in side.pilots().values()))
    runs = [vary(at_fastest(bench, side, target), seed=seed) for side in sides.values()]
    results = dict(zip(sides, bench.train(*runs), strict=True))
    fades = {
        name: top_over_bottom(mean_gradients(run, watched_steps(bench))) for name, run in results.items()
    }
    values, bounds = {}, {}
    for name in SATURATING:
        values[f"gradient_{name}"] = fades[name] / fades["relu"]
        key = f"steps_{name}"
        values[key], bounds[key] = steps_ratio(results[name], results["relu"], target)
    return Trial(
        values=values,
        series=tuple(
            Series(
                ACTIVATIONS[name],
                tuple(map(float, run.evaluation_steps)),
                tuple(100 * float(value) for value in run.validation),
            )
            for name, run in results.items()
        ),
        bounds=bounds,
    )


def _gradient(name: str) -> Prediction:
    return Prediction(
        f"gradient_{name}",
        f"gradients fade towards the input at least {FADES:g} times as much with {name} as with ReLU",
        "times",
        at_least=FADES,
        ratio=True,
    )


def _steps(name: str) -> Prediction:
    return Prediction(
        f"steps_{name}",
        f"to the target, {name} takes at least {FASTER:g} times the steps of ReLU",
        "times",
        at_least=FASTER,
        ratio=True,
    )


CLAIM = Claim(
    number=13,
    sentence="Non-saturating activations lessen vanishing gradients and converge faster.",
    references=(
        "Glorot, Bordes & Bengio 2011, Deep sparse rectifier neural networks.",
        "Krizhevsky, Sutskever & Hinton 2012, ImageNet classification with deep convolutional neural "
        "networks: ReLU reaches 25 % training error on CIFAR-10 six times faster than tanh.",
        "Glorot & Bengio 2010: tanh from a scaled start trains deep networks, where sigmoid does not.",
    ),
    predictions=(_gradient("sigmoid"), _gradient("tanh"), _steps("sigmoid"), _steps("tanh")),
    recipe="An MLP of 6 hidden layers of 100 units (5 in a quick run) on Fashion-MNIST, batch 60, Xavier "
    "start, plain SGD, no normaliser; sigmoid and tanh saturate, ReLU and leaky ReLU do not. Sigmoid has "
    f"{SLOW_EPOCHS} epochs (1,800 steps in a quick run), the others one (300 steps).",
    measure="How far gradients fade: the last hidden layer's over the second's, geometric means over the "
    f"first 900 steps (300). Steps until two evaluations in a row are at {TARGET:.0%} of validation accuracy "
    f"({QUICK_TARGET:.0%}), each activation at the rate that gets it there first in a pilot run.",
    conditions="The budgets are unequal: sigmoid stands still at first, and has more steps so that those it "
    "takes to the target are counted and not cut off. It is evaluated every 60 steps (50) and the others "
    "every 10, which adds less than two such spans to its count. Gradients are compared over the steps that "
    "all have. One start, Xavier's, for all: it is made for tanh, and is √2 too small for ReLU. "
    "Krizhevsky's figure is for a convolution network of four layers on CIFAR-10.",
    practice={
        "supported": "Take ReLU or one of its kin for hidden layers unless something speaks against it. "
        "Units that saturate, be it sigmoid or tanh, cost steps even at their best rate.",
        "not supported": "Take ReLU over sigmoid, but do not expect it to beat tanh by much from a scaled "
        "start. See the predictions one by one.",
        "refuted": "Saturation as such is not what slows a network: see which activation the prediction "
        "fails for. Sigmoid is hindered most by its small slope and its mean above zero; tanh from a scaled "
        "start is no worse a choice than ReLU at this depth.",
    },
    plot=Plot("Validation accuracy while training", "training step", "validation accuracy (%)", log_x=True),
    experiment=experiment,
    contested=True,
)
