"""Runs that claims about generalisation share: a network that overfits a small set."""

from __future__ import annotations

from typing import Any

from normwright.lab.book.bench import Bench, make
from normwright.lab.recipe import Recipe

# Momentum of 0.9 multiplies a rate by ten in the long run.
RATES = (0.0025, 0.01, 0.04, 0.16)

SAYS = (
    "Three hidden layers of 200 ReLU units on 2,000 images of Fashion-MNIST, 30 epochs of batches of 50, SGD "
    "with momentum 0.9 and a cosine schedule"
)


def on_small_set(bench: Bench, norm: str, **options: Any) -> Recipe:
    """The network and its training; it comes to fit every training image.

    Args:
        bench: says which size.
        norm: one of `NORMS`.
        options: what else differs, such as dropout.
    """
    return make(
        "mlp",
        "fashion-mnist",
        norm=norm,
        activation="relu",
        depth=3,
        width=200,
        batch_size=50,
        samples=2_000,
        epochs=bench.size(30, 10),
        evaluations=1,
        momentum=0.9,
        schedule="cosine",
        **options,
    )
