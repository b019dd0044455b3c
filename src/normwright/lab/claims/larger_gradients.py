"""Claim 11: batch norm enlarges gradients in the lower layers."""

from __future__ import annotations

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import RATES, watched_mlp, watched_steps
from normwright.lab.book.gradients import mean_gradients

# A gradient twice as large is what doubling the rate gives; less is no matter.
MATTERS = 2.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: gradients by layer, at the first step and over the first epoch."""
    sides = {
        norm: bench.best_rates([watched_mlp(bench, norm)], RATES["sigmoid", norm])[0]
        for norm in ("none", "batch")
    }
    without, with_norm = bench.train(*(vary(recipe, seed=seed) for recipe in sides.values()))
    steps = watched_steps(bench)
    first = mean_gradients(with_norm, 1) / mean_gradients(without, 1)
    epoch = {"none": mean_gradients(without, steps), "batch": mean_gradients(with_norm, steps)}
    layers = (*(f"hidden {i}" for i in range(1, len(epoch["none"]))), "output")
    return Trial(
        values={
            "first_step": float(first[0]),
            "first_epoch": float(epoch["batch"][0] / epoch["none"][0]),
        },
        series=tuple(
            Series(name, layers, tuple(map(float, epoch[norm])), norm)
            for name, norm in (("no normaliser", "none"), ("batch norm", "batch"))
        ),
    )


CLAIM = Claim(
    number=11,
    sentence="Batch norm enlarges gradients in the lower layers.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.3.",
        "Bjorck, Gomes, Selman & Weinberger 2018, arXiv:1806.02375, measure the opposite in a residual "
        "network: gradients are larger without batch norm.",
    ),
    predictions=(
        Prediction(
            "first_step",
            f"at the first step the first layer's gradient is at least {MATTERS:g} times as large with batch "
            f"norm",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
        Prediction(
            "first_epoch",
            f"over the first epoch it is at least {MATTERS:g} times as large",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
    ),
    recipe="An MLP of 6 hidden layers of 100 sigmoid units (5 in a quick run) on Fashion-MNIST, batch 60, "
    "Xavier start, plain SGD.",
    measure="Euclidean norm of the gradient of the first hidden layer's weight, with batch norm over "
    "without: at the first step, from equal weights and the same batch; and as the geometric mean over what "
    "is recorded in the first 900 steps (300 in a quick run), each side at its best of three or four rates.",
    conditions="Sigmoids, whose slope of at most a quarter makes gradients vanish from layer to layer. With "
    "units that pass gradients on, and with skip connections, there is nothing to enlarge.",
    practice={
        "supported": "If the first layers of a deep network with saturating units hardly move, batch norm "
        "brings them gradients; look at the gradient by layer before and after. Take the learning rate down "
        "with it, for the rate that made up for small gradients is then too large.",
        "not supported": "Do not count on larger gradients from batch norm; record them by layer in your own "
        "network. That it trains faster may have other causes.",
        "refuted": "Larger gradients in the first layers are not what batch norm gives. Look for other "
        "reasons if it trains faster, and for another remedy if these layers stand still.",
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
