"""The deep plain network of several claims: hidden layers of 100 units on Fashion-MNIST."""

from __future__ import annotations

from typing import Any

from normwright.lab.book.bench import Bench, make
from normwright.lab.recipe import Recipe

# Six layers of sigmoids stand at 10 % for their first 1,500 steps, at the best of these rates.
DEPTH, QUICK_DEPTH = 6, 5
SLOW_EPOCHS = 12
RATES = {
    ("sigmoid", "none"): (1.0, 3.0, 10.0),
    ("sigmoid", "batch"): (0.03, 0.1, 0.3, 1.0),
    ("tanh", "none"): (0.03, 0.1, 0.3),
    ("tanh", "batch"): (0.03, 0.1, 0.3, 1.0),
    ("relu", "none"): (0.03, 0.1, 0.3),
    ("relu", "batch"): (0.03, 0.1, 0.3, 1.0),
    ("leaky_relu", "none"): (0.03, 0.1, 0.3),
}


def deep_mlp(bench: Bench, norm: str, **options: Any) -> Recipe:
    """6 hidden layers (5 in a quick run) of 100 sigmoid units, batch 60, Xavier start, plain SGD.

    Args:
        bench: says whether the run is quick.
        norm: one of `NORMS`.
        options: of the recipe, where it is another.
    """
    plain = {"depth": bench.size(DEPTH, QUICK_DEPTH), "batch_size": 60}
    return make("mlp", "fashion-mnist", norm=norm, **{**plain, **options})


def watched_mlp(bench: Bench, norm: str, activation: str = "sigmoid", **options: Any) -> Recipe:
    """`deep_mlp` over as many steps as it needs to learn, with its layers recorded at equal distances.

    Sigmoids without a normaliser have 12 epochs (1,800 steps in a quick run), evaluated every 60 steps (50).
    All others have one epoch (300 steps), evaluated every 10.
    """
    if (norm, activation) == ("none", "sigmoid"):
        epochs, steps, evaluations, records = bench.size(
            (SLOW_EPOCHS, 0, 15, 60 * SLOW_EPOCHS), (2, 0, 18, 360)
        )
    else:
        epochs, steps, evaluations, records = bench.size((1, 0, 90, 60), (1, 300, 90, 60))
    watched = {"epochs": epochs, "max_steps": steps, "evaluations": evaluations, "records": records}
    return deep_mlp(bench, norm, activation=activation, **{**watched, **options})


def watched_steps(bench: Bench) -> int:
    """Steps from the start over which the layers of `watched_mlp` are compared: all that the shortest has."""
    return bench.size(900, 300)
