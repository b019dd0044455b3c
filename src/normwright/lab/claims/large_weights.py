"""Claim 24: large initial weights explode gradients, and normalisation prevents it."""

from __future__ import annotations

import math

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import deep_mlp
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.points import test_points
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult

# He et al.: √(2/100) keeps the size of what 100 ReLUs pass on. The largest is 7 times that, in every layer.
DEVIATIONS = (0.1, 0.3, 1.0)
MODERATE, LARGE = DEVIATIONS[0], DEVIATIONS[-1]
NORMS = {"none": "no normaliser", "batch": "batch norm", "layer": "layer norm"}
RATES = {
    "none": tuple(10.0**k for k in range(-10, -2, 1)),
    "batch": (0.01, 0.1, 1.0, 10.0),
}
STEPS, QUICK_STEPS = 300, 150

EXPLODES, HELD, MATTERS = 10.0, 2.0, 10.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: first gradients by the scale of the weights, and what training from large ones gives."""
    sides = [Entrant(_training(bench, norm), RATES[norm]) for norm in RATES]
    best = best_of(bench, sides)
    looks = [_look(bench, norm, std, seed) for norm in NORMS for std in DEVIATIONS]
    trained = [vary(recipe, seed=seed) for recipe in best]
    results = iter(bench.train(*looks, *trained))
    first = {(norm, std): first_gradient(next(results)) for norm in NORMS for std in DEVIATIONS}
    without, with_norm = (test_points(bench, run) for run in trained)
    return Trial(
        values={
            "explodes": first["none", LARGE] / first["none", MODERATE],
            "held_by_batch": first["batch", LARGE] / first["batch", MODERATE],
            "held_by_layer": first["layer", LARGE] / first["layer", MODERATE],
            "accuracy": with_norm - without,
        },
        series=tuple(
            Series(name, DEVIATIONS, tuple(first[norm, std] for std in DEVIATIONS), norm)
            for norm, name in NORMS.items()
        ),
    )


def first_gradient(result: RunResult) -> float:
    """The norm of the first layer's gradient at the first step; NaN where it was not recorded."""
    recorded = result.trace.gradient
    return float(recorded[0, 0]) if len(recorded) and math.isfinite(recorded[0, 0]) else math.nan


def _network(bench: Bench, norm: str, std: float) -> Recipe:
    return deep_mlp(
        bench, norm, activation="relu", initialisation="normal", init_std=std, epochs=1, evaluations=1
    )


def _look(bench: Bench, norm: str, std: float, seed: int) -> Recipe:
    """A few steps, of which the first is recorded; its rate is too small to matter."""
    return vary(_network(bench, norm, std), lr=1e-12, max_steps=3, records=2, seed=seed)


def _training(bench: Bench, norm: str) -> Recipe:
    return vary(_network(bench, norm, LARGE), max_steps=bench.size(STEPS, QUICK_STEPS))


CLAIM = Claim(
    number=24,
    sentence="Large initial weights explode gradients, and normalisation prevents it.",
    references=(
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks.",
        "He, Zhang, Ren & Sun 2015, arXiv:1502.01852, section 2.2.",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.3: a layer's gradient does not grow with its "
        "weights.",
        "Yang et al. 2019, arXiv:1902.08129, contest it: in very deep networks batch norm itself explodes "
        "gradients at the start.",
    ),
    predictions=(
        Prediction(
            "explodes",
            f"without a normaliser, weights 10 times as large give at least {EXPLODES:g} times the gradient",
            "times",
            at_least=EXPLODES,
            ratio=True,
        ),
        Prediction(
            "held_by_batch",
            f"with batch norm they give at most {HELD:g} times the gradient",
            "times",
            at_most=HELD,
            ratio=True,
        ),
        Prediction(
            "held_by_layer",
            f"with layer norm they give at most {HELD:g} times the gradient",
            "times",
            at_most=HELD,
            ratio=True,
        ),
        Prediction(
            "accuracy",
            f"from large weights, batch norm trains to an accuracy at least {MATTERS:g} points higher",
            "points of accuracy",
            at_least=MATTERS,
        ),
    ),
    recipe="An MLP of 6 hidden layers of 100 ReLU units (5 in a quick run) on Fashion-MNIST, batch 60. Its "
    f"weights start normal, with deviations {', '.join(map(str, DEVIATIONS))}; from {LARGE:g}, plain SGD for "
    f"{STEPS} steps ({QUICK_STEPS}).",
    measure="Euclidean norm of the gradient of the first layer's weight at the first step, with weights of "
    f"deviation {LARGE:g} over {MODERATE:g}, on the same batch and from the same random numbers. Test "
    f"accuracy after training, each side at its best rate, of eight from 1e-10 without a normaliser and of "
    f"four from 0.01 with one; a run that diverged counts as 10 %.",
    conditions="Layers of ReLU; units that saturate make gradients vanish instead. The output layer is not "
    "normalised, so its weights still scale the gradient. Six layers are far from the depth at which batch "
    "norm's own gradients grow.",
    practice={
        "supported": "A gradient that is huge at the first step means weights that start too large: rescale "
        "them or normalise every hidden layer. With a normaliser the scale of the weights sets the effective "
        "learning rate and no longer the size of the signal.",
        "not supported": "Scale the initial weights by the activation, and look at the gradients of the "
        "first step. A normaliser alone is not shown to be enough against large weights.",
        "refuted": "Do not trust a normaliser to tame large initial weights: a part of the effect stays, "
        "most likely by the layers that are not normalised. Rescale the weights as well, or clip gradients "
        "at the start.",
    },
    plot=Plot(
        "Gradient of the first layer at the first step",
        "standard deviation of the initial weights",
        "norm of the gradient",
        log_x=True,
        log_y=True,
    ),
    experiment=experiment,
)
