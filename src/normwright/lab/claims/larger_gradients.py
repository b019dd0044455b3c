"""Claim 11: batch norm enlarges gradients in the lower layers."""

from __future__ import annotations

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import RATES, watched_mlp, watched_steps
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.gradients import mean_gradients

# A gradient twice as large is what doubling the rate gives; less is no matter.
MATTERS = 2.0

ACTIVATIONS = {"sigmoid": "sigmoids", "relu": "ReLUs"}
SIDES = {
    ("sigmoid", "none"): "sigmoid",
    ("sigmoid", "batch"): "sigmoid, batch norm",
    ("relu", "none"): "ReLU",
    ("relu", "batch"): "ReLU, batch norm",
}


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: gradients by layer, at the first step and over the first epoch, by activation."""
    sides = [
        Entrant(watched_mlp(bench, norm, activation), RATES[activation, norm]) for activation, norm in SIDES
    ]
    results = bench.train(*(vary(recipe, seed=seed) for recipe in best_of(bench, sides)))
    runs = dict(zip(SIDES, results, strict=True))
    steps = watched_steps(bench)
    epoch = {side: mean_gradients(run, steps) for side, run in runs.items()}
    values = {}
    for activation in ACTIVATIONS:
        without, with_norm = ((activation, norm) for norm in ("none", "batch"))
        first = [mean_gradients(runs[side], 1)[0] for side in (without, with_norm)]
        values[f"{activation}_first_step"] = float(first[1] / first[0])
        values[f"{activation}_first_epoch"] = float(epoch[with_norm][0] / epoch[without][0])
    layers = (*(f"hidden {i}" for i in range(1, len(epoch["relu", "none"]))), "output")
    return Trial(
        values=values,
        series=tuple(
            Series(name, layers, tuple(map(float, epoch[side])), "batch" if side[1] == "batch" else "")
            for side, name in SIDES.items()
        ),
    )


def _predictions(activation: str, name: str) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(
            f"{activation}_{key}",
            f"with {name}, the first layer's gradient {when} is at least {MATTERS:g} times as large with "
            f"batch norm",
            "times",
            at_least=MATTERS,
            ratio=True,
        )
        for key, when in (("first_step", "at the first step"), ("first_epoch", "over the first epoch"))
    )


CLAIM = Claim(
    number=11,
    sentence="Batch norm enlarges gradients in the lower layers.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.3.",
        "Bjorck, Gomes, Selman & Weinberger 2018, arXiv:1806.02375, measure the opposite in a residual "
        "network: gradients are larger without batch norm.",
    ),
    predictions=tuple(
        prediction
        for activation, name in ACTIVATIONS.items()
        for prediction in _predictions(activation, name)
    ),
    recipe="An MLP of 6 hidden layers of 100 sigmoid or ReLU units (5 in a quick run) on Fashion-MNIST, "
    "batch 60, Xavier start, plain SGD.",
    measure="Euclidean norm of the gradient of the first hidden layer's weight, with batch norm over "
    "without: at the first step, from equal weights and the same batch; and as the geometric mean over what "
    "is recorded in the first 900 steps (300 in a quick run), each side at its best of three or four rates.",
    conditions="Told of deep networks at large, and with saturating units in mind: a sigmoid's slope of at "
    "most a quarter makes gradients vanish from layer to layer. ReLUs from a scaled start pass gradients on, "
    "so that there is less to enlarge; the measurements that contest the claim are of such a network.",
    practice={
        "supported": "If the first layers of a deep network with saturating units hardly move, batch norm "
        "brings them gradients; look at the gradient by layer before and after. Take the learning rate down "
        "with it, for the rate that made up for small gradients is then too large.",
        "not supported": "Do not count on larger gradients from batch norm; record them by layer in your own "
        "network. That it trains faster may have other causes.",
        "refuted": "Larger gradients in the first layers are not what batch norm gives in general: see for "
        "which activation the prediction fails. Where gradients vanish it brings them back; where they do "
        "not, look for other reasons if it trains faster.",
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
