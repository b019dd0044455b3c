"""Runs that claims about the batch size share: LeNet at several batch sizes, over the same images."""

from __future__ import annotations

from collections.abc import Sequence

from normwright.lab.book.bench import Bench, make
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.recipe import Recipe

Place = tuple[str, int]
"""A normaliser and a batch size."""

# Those around the best of trial runs, a factor of 4 apart. Without batch norm a small batch asks for small
# steps.
_RATES = {
    2: (0.0002, 0.0008, 0.0032),
    8: (0.001, 0.004, 0.016),
    32: (0.001, 0.004, 0.016, 0.064),
}
_BATCH_RATES = {
    2: (0.004, 0.016, 0.064),
    8: (0.004, 0.016, 0.064, 0.256),
    32: (0.004, 0.016, 0.064, 0.256),
}


def at_best_rates(bench: Bench, places: Sequence[Place]) -> dict[Place, Recipe]:
    """Each normaliser at each batch size, at its own best rate.

    LeNet with ReLU, as many passes over the same few images of Fashion-MNIST whatever the batch size, SGD
    with momentum 0.9 and a cosine schedule. With few images and many passes it is the data that limit the
    accuracy, and not the number of steps, which is 16 times as large at batch 2 as at batch 32.

    Raises:
        NeedsRunsError: some pilot runs are not done yet.
    """
    sides = [Entrant(_recipe(bench, norm, size), rates_at(norm, size)) for norm, size in places]
    return dict(zip(places, best_of(bench, sides), strict=True))


def rates_at(norm: str, size: int) -> tuple[float, ...]:
    """The learning rates that are tried.

    Example:
        >>> rates_at("group", 2), rates_at("batch", 2)
        ((0.0002, 0.0008, 0.0032), (0.004, 0.016, 0.064))
    """
    return (_BATCH_RATES if norm == "batch" else _RATES)[size]


def _recipe(bench: Bench, norm: str, size: int) -> Recipe:
    return make(
        "lenet",
        "fashion-mnist",
        norm=norm,
        activation="relu",
        batch_size=size,
        samples=bench.size(600, 300),
        epochs=bench.size(12, 6),
        evaluations=1,
        validation=0.03,
        momentum=0.9,
        schedule="cosine",
    )
