"""Claim 14: Xavier initialisation steadies the start, batch norm the whole of training."""

from __future__ import annotations

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import RATES, watched_mlp
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.steadiness import drift, unevenness

SIDES = {"none": "Xavier start", "batch": "Xavier start, batch norm"}
EVENER, STEADIER = 2.0, 1.5


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: how even the layers are at the start, and how far they drift."""
    sides = [Entrant(watched_mlp(bench, norm, "tanh"), RATES["tanh", norm]) for norm in SIDES]
    xavier, batch, normal = bench.train(
        *(vary(recipe, seed=seed) for recipe in best_of(bench, sides)),
        watched_mlp(bench, "none", "tanh", initialisation="normal", max_steps=3, records=2, seed=seed),
    )
    return Trial(
        values={
            "start": unevenness(normal) / unevenness(xavier),
            "training": float(drift(xavier)[1:].mean() / drift(batch)[1:].mean()),
        },
        series=tuple(
            Series(name, tuple(map(float, run.trace.steps)), tuple(map(float, drift(run))), norm)
            for (norm, name), run in zip(SIDES.items(), (xavier, batch), strict=True)
        ),
    )


CLAIM = Claim(
    number=14,
    sentence="Xavier initialisation steadies the start, batch norm the whole of training.",
    references=(
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks.",
        "Ioffe & Szegedy 2015, arXiv:1502.03167.",
        "Santurkar, Tsipras, Ilyas & Madry 2018, arXiv:1805.11604, contest that the distributions of layers "
        "are steadier with batch norm.",
    ),
    predictions=(
        Prediction(
            "start",
            f"at the start the layers' spreads are at least {EVENER:g} times more even with Xavier's start "
            f"than with a plain normal one",
            "times",
            at_least=EVENER,
            ratio=True,
        ),
        Prediction(
            "training",
            f"from Xavier's start, layers drift at least {STEADIER:g} times as far without batch norm as "
            f"with it",
            "times",
            at_least=STEADIER,
            ratio=True,
        ),
    ),
    recipe="An MLP of 6 hidden layers of 100 tanh units (5 in a quick run) on Fashion-MNIST, batch 60, plain "
    "SGD for one epoch (300 steps), from Xavier's start or a normal one of deviation 0.01, each side at its "
    "best of three or four rates.",
    measure="What the activations receive, by its 15th, 50th and 85th percentile. Evenness: the widest "
    "layer's spread (85th less 15th) over the narrowest's, at the first step. Drift: how far the percentiles "
    "moved since the first step, in spreads of that step; the mean over layers, percentiles and the records "
    "of all training.",
    conditions="Tanh, for which Xavier's start was made. The normal start has a tenth of its deviation, so "
    "that each layer passes on about a tenth of what it gets: over six layers the first figure is little "
    "more than that arithmetic. The percentiles are over all units of a layer; a unit may move while its "
    "layer as a whole does not. Batch norm's output has a mean of 0 and a variance of 1 by construction, "
    "until its weight and bias are trained: part of its steadiness is that.",
    practice={
        "supported": "Scale the start by the activation in any case: it costs nothing. If the signal then "
        "wanders off in training (record the percentiles by layer), add batch norm, for no start can prevent "
        "that.",
        "not supported": "Scale the start by the activation, and do not reckon on batch norm to hold the "
        "signal still thereafter. See which of the two predictions is open.",
        "refuted": "One of the two halves is wrong here: see which. If layers drift as far with batch norm "
        "as without, its use lies elsewhere than in a steady signal; a scaled start stays worth its nothing "
        "of a price.",
    },
    plot=Plot(
        "How far the layers drifted since the first step",
        "training step",
        "drift (spreads of the first step)",
    ),
    experiment=experiment,
    contested=True,
)
