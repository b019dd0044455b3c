"""Claim 12: without batch norm, gradients near the loss are larger than gradients near the input."""

from __future__ import annotations

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import RATES, watched_mlp, watched_steps
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.gradients import mean_gradients, top_over_bottom

SIDES = {
    ("sigmoid", "none"): "sigmoid",
    ("tanh", "none"): "tanh",
    ("relu", "none"): "ReLU",
    ("sigmoid", "batch"): "sigmoid with batch norm",
}
MATTERS = 2.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: gradients by layer over the first epoch, by activation."""
    sides = [
        Entrant(watched_mlp(bench, norm, activation), RATES[activation, norm]) for activation, norm in SIDES
    ]
    results = bench.train(*(vary(recipe, seed=seed) for recipe in best_of(bench, sides)))
    steps = watched_steps(bench)
    gradients = {side: mean_gradients(result, steps) for side, result in zip(SIDES, results, strict=True)}
    hidden = len(gradients["sigmoid", "none"]) - 1
    return Trial(
        values={
            activation: top_over_bottom(gradients[activation, "none"])
            for activation in ("sigmoid", "tanh", "relu")
        },
        series=tuple(
            Series(
                name,
                tuple(f"hidden {i}" for i in range(1, hidden + 1)),
                tuple(map(float, gradients[side][:-1])),
                "batch" if side[1] == "batch" else "",
            )
            for side, name in SIDES.items()
        ),
    )


def _prediction(activation: str, name: str) -> Prediction:
    return Prediction(
        activation,
        f"with {name}, the last hidden layer's gradient is at least {MATTERS:g} times the second's",
        "times",
        at_least=MATTERS,
        ratio=True,
    )


CLAIM = Claim(
    number=12,
    sentence="Without batch norm, gradients near the loss are larger than gradients near the input.",
    references=(
        "Bengio, Simard & Frasconi 1994; Hochreiter 1991: gradients vanish on their way back.",
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks: "
        "with a scaled start the gradients of the weights are of one size in all layers.",
        "He, Zhang, Ren & Sun 2015, arXiv:1502.01852: the same for ReLU.",
    ),
    predictions=(
        _prediction("sigmoid", "sigmoids"),
        _prediction("tanh", "tanh"),
        _prediction("relu", "ReLUs"),
    ),
    recipe="An MLP of 6 hidden layers of 100 units (5 in a quick run) on Fashion-MNIST, batch 60, Xavier "
    "start, plain SGD, no normaliser.",
    measure="Euclidean norm of the gradient of the last hidden layer's weight over that of the second hidden "
    "layer's, weights of one size, each the geometric mean over what is recorded in the first 900 steps "
    "(300), at the best of three rates.",
    conditions="Told in lectures for deep networks at large. The start is Xavier's, made to keep gradients "
    "equal with units that are linear around zero; from a badly scaled start every activation may differ by "
    "layer.",
    practice={
        "supported": "Expect the first layers of a network without a normaliser to learn last, whatever its "
        "activation. Look at the gradient by layer, and normalise or raise the rate of the lower layers.",
        "not supported": "Record the gradient by layer before treating a network for vanishing gradients. "
        "Whether they vanish hangs on the activation and the start.",
        "refuted": "That lower layers get small gradients is a matter of the activation and of the start, "
        "and no law of networks without batch norm. Look at the predictions one by one: where gradients are "
        "equal over the layers, batch norm has nothing to mend there.",
    },
    plot=Plot(
        "Gradient by layer over the first epoch",
        "layer, from input to output",
        "norm of the gradient",
        log_y=True,
    ),
    experiment=experiment,
    contested=True,
)
