"""Runs that claims about generalisation share: a network that overfits a small set."""

from __future__ import annotations

from typing import Any

from normwright.lab.book.bench import Bench, make
from normwright.lab.recipe import Recipe

# Momentum of 0.9 multiplies a rate by ten in the long run.
RATES = (0.0025, 0.01, 0.04, 0.16)

_NETWORK = "Three hidden layers of 200 ReLU units"
_TRAINING = "SGD with momentum 0.9 and a cosine schedule"
SAYS = f"{_NETWORK} on 2,000 images of Fashion-MNIST, 30 epochs of batches of 50, {_TRAINING}"

# On the clean set dropout gains nothing. Here it gained 6 points in a pilot run, so that a normaliser that
# regularises has something to gain, too.
WRONG = 0.2
# At a smaller rate the network does not come to fit its images, wrong labels and all. To stop short of that
# regularises by itself (40 epochs at 0.0025 gained 4 points in a pilot run), and would hide what is compared.
NOISY_RATES = (0.01, 0.04, 0.16)
NOISY_SAYS = (
    f"{_NETWORK} on 1,000 images of Fashion-MNIST, a fifth of which bear a wrong label, 40 epochs of "
    f"batches of 50, {_TRAINING}"
)


def on_small_set(bench: Bench, norm: str, **options: Any) -> Recipe:
    """The network and its training; it comes to fit every training image.

    Args:
        bench: says which size.
        norm: one of `NORMS`.
        options: what else differs, such as dropout.
    """
    return _network(norm, samples=2_000, epochs=bench.size(30, 10), **options)


def on_noisy_set(bench: Bench, norm: str, **options: Any) -> Recipe:
    """As `on_small_set`, on fewer images of which a fifth are wrongly labelled: to fit them all does harm."""
    epochs = bench.size(40, 20)
    return _network(norm, samples=1_000, epochs=epochs, label_noise=WRONG, validation=0.05, **options)


def _network(norm: str, **options: Any) -> Recipe:
    return make(
        "mlp",
        "fashion-mnist",
        norm=norm,
        activation="relu",
        depth=3,
        width=200,
        batch_size=50,
        evaluations=1,
        momentum=0.9,
        schedule="cosine",
        **options,
    )
