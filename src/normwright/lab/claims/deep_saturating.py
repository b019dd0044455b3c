"""Claim 4: batch norm makes deep networks with sigmoid or tanh trainable."""

from __future__ import annotations

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import deep_mlp
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.points import test_points
from normwright.lab.recipe import Recipe

DEPTH, QUICK_DEPTH = 12, 8
RATES = {
    ("sigmoid", "none"): (0.3, 1.0, 3.0),
    ("sigmoid", "batch"): (0.01, 0.03, 0.1, 0.3),
    ("tanh", "none"): (0.01, 0.03, 0.1, 0.3),
    ("tanh", "batch"): (0.01, 0.03, 0.1, 0.3),
}
# Without a normaliser a step costs less than half: given three times the steps, it is not short of time.
STEPS = {"none": (1800, 450), "batch": (600, 150)}

# What separates a network that trains from one that does not is more than what a better recipe gives.
MATTERS = 10.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: the accuracy of each activation with and without batch norm."""
    sides = [Entrant(_recipe(bench, *side), rates) for side, rates in RATES.items()]
    best = best_of(bench, sides)
    runs = {side: vary(recipe, seed=seed) for side, recipe in zip(RATES, best, strict=True)}
    results = bench.train(*runs.values())
    points = {side: test_points(bench, run) for side, run in runs.items()}
    return Trial(
        values={
            activation: points[activation, "batch"] - points[activation, "none"]
            for activation in ("sigmoid", "tanh")
        },
        series=tuple(
            Series(
                f"{activation}, {'batch norm' if norm == 'batch' else 'no normaliser'}",
                tuple(map(float, result.evaluation_steps)),
                tuple(100 * float(value) for value in result.validation),
                norm,
            )
            for (activation, norm), result in zip(runs, results, strict=True)
        ),
    )


def _recipe(bench: Bench, activation: str, norm: str) -> Recipe:
    return deep_mlp(
        bench,
        norm,
        activation=activation,
        depth=bench.size(DEPTH, QUICK_DEPTH),
        epochs=2,
        max_steps=bench.size(*STEPS[norm]),
        evaluations=bench.size(15, 60),
    )


def _prediction(activation: str) -> Prediction:
    return Prediction(
        activation,
        f"a deep network of {activation} units is at least {MATTERS:g} points better with batch norm",
        "points of accuracy",
        at_least=MATTERS,
    )


CLAIM = Claim(
    number=4,
    sentence="Batch norm makes deep networks with sigmoid or tanh trainable.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 4.2.2: Inception with sigmoids trains to 69.8 % "
        "with batch norm, and not at all without.",
        "Glorot & Bengio 2010: with a scaled start, deep networks of tanh train without it.",
    ),
    predictions=(_prediction("sigmoid"), _prediction("tanh")),
    recipe=f"An MLP of {DEPTH} hidden layers of 100 units ({QUICK_DEPTH} in a quick run) on Fashion-MNIST, "
    f"batch 60, Xavier start, plain SGD; {STEPS['batch'][0]} steps with batch norm ({STEPS['batch'][1]}), "
    f"{STEPS['none'][0]} without ({STEPS['none'][1]}).",
    measure="Test accuracy at the end, with batch norm less without, each side at its best of three or four "
    "rates.",
    conditions="Three times the steps go to the side without batch norm, as its steps cost less: where both "
    "sides train, it may lead by a point or two for that alone. A very long training may leave the "
    "standstill even so. Xavier's start was made for tanh, and not for sigmoid.",
    practice={
        "supported": "To train a deep network of sigmoid or tanh units, normalise before each activation. "
        "Where nothing else hinders, ReLU is simpler.",
        "not supported": "Look at the two activations apart. Where batch norm is shown to be needed, "
        "normalise before each activation; where it is not, a scaled start may do.",
        "refuted": "Batch norm is not what makes both activations trainable: for one of them a start scaled "
        "to the activation is enough at this depth. Where the accuracy without it stands at chance, "
        "normalise before each activation; where it does not, batch norm is a convenience.",
    },
    plot=Plot("Validation accuracy while training", "training step", "validation accuracy (%)", log_x=True),
    experiment=experiment,
)
