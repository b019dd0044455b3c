"""Claim 10: batch norm holds the distributions of layers' inputs steady; by two measures."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from normwright.doctor.subject import Subject
from normwright.doctor.training.covariate_shift import covariate_shift_of
from normwright.lab.book.along import look_along
from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.data import Data
from normwright.lab.recipe import Recipe
from normwright.lab.training import steps_in_all
from normwright.network.acceleration.fused_call import watch

RATES = (0.02, 0.1, 0.5, 2.5, 12.5)
PERCENTILES = (0.15, 0.50, 0.85)  # those of the paper's figure 1
LOOK_EVERY = 30
GRADIENT_EVERY = 90
IMAGES = 500
MATTERS = 1.5


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: both measures along the training of each side."""
    sides = bench.best_rates([_recipe(bench, norm) for norm in ("batch", "none")], RATES)
    batch, none = (_followed(bench, vary(side, seed=seed)) for side in sides)
    # A larger step moves everything further: the plot tells it apart from the normaliser.
    same_rate = _followed(bench, vary(sides[0], lr=sides[1].training.lr, seed=seed))
    drift, change = none.drift / same_rate.drift, none.change / same_rate.change
    return Trial(
        values={
            "drift": none.drift / batch.drift,
            "gradient": none.change / batch.change,
        },
        series=tuple(
            line
            for side, name, norm in (
                (batch, "batch norm", "batch"),
                (same_rate, "batch norm at the other's rate", "batch"),
                (none, "no normaliser", "none"),
            )
            for line in (
                Series(f"percentiles, {name}", tuple(side.steps[1:]), tuple(side.moves), norm),
                Series(f"gradient, {name}", tuple(side.gradient_steps), tuple(side.changes), norm),
            )
        ),
        notes=(
            f"Seed {seed}: against batch norm at the other's rate, percentiles travel {drift:.2f} times as "
            f"far and the gradient changes {change:.2f} times as much without batch norm.",
        ),
    )


def percentiles(network: nn.Module, x: Tensor) -> Tensor:
    """(3, units), over the images, of the inputs to the last hidden layer's activation.

    In training mode, as the layer sees them while it is trained.
    """
    seen: list[Tensor] = []
    *_, last = (module for name, module in network.named_modules() if name.endswith(".norm"))
    handle = watch(last, lambda _, y: seen.append(y.detach()))
    try:
        with torch.no_grad():
            network.train()(x)
    finally:
        handle.remove()
    return torch.quantile(seen[0], torch.tensor(PERCENTILES), dim=0)


def move(before: Tensor, after: Tensor) -> float:
    """How far a typical unit's percentiles moved, in the spread between the outer two.

        mean over p of |after_p − before_p| / mean of both (85th − 15th),  median over units

    Args:
        before, after: (3, units).
    """
    spread = ((before[2] - before[0]) + (after[2] - after[0])) / 2
    return float(((after - before).abs().mean(0) / spread).median())


def gradient_change(network: nn.Module, x: Tensor, y: Tensor, lr: float) -> float:
    """‖g' − g‖ / ‖g‖ of a layer's gradient, before and after a step of the layers below; mean over layers.

    The geometric mean: each layer weighs the same, whatever its scale.
    """
    layers = [name for name, module in network.named_modules() if list(module.parameters(recurse=False))]
    optimiser = torch.optim.SGD(network.parameters(), lr=lr)
    found = covariate_shift_of(
        Subject(network, ((x, y),), nn.functional.cross_entropy, optimiser), order=layers
    )
    return geometric([relative for layer in found for relative in layer.relative])


def geometric(values: Sequence[float]) -> float:
    """The geometric mean; NaN where a value is not above zero, or there is none."""
    return statistics.geometric_mean(values) if values and all(v > 0 for v in values) else math.nan


@dataclass
class _Side:
    """What was seen of one run: the moves end at all steps but the first.

    Args:
        last: the step of the last look; a run that diverged ends before it, and has no measure.
    """

    last: int
    steps: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    gradient_steps: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)

    @property
    def drift(self) -> float:
        """How far the percentiles went in all."""
        return sum(self.moves) if self._is_whole else math.nan

    @property
    def change(self) -> float:
        """Of gradients, the geometric mean over the looks."""
        return geometric(self.changes) if self._is_whole else math.nan

    @property
    def _is_whole(self) -> bool:
        return bool(self.steps) and self.steps[-1] == self.last


def _followed(bench: Bench, recipe: Recipe) -> _Side:
    data = bench.data(recipe)
    total = steps_in_all(recipe.training, len(data.train_y))
    looks = range(LOOK_EVERY, total + 1, LOOK_EVERY)
    side = _Side(last=looks[-1])
    seen: list[Tensor] = []

    def look(step: int, network: nn.Module) -> None:
        side.steps.append(float(step))
        seen.append(percentiles(network, data.validation_x[:IMAGES]))
        if step % GRADIENT_EVERY == 0:
            x, y = _batch(data, recipe, step // GRADIENT_EVERY)
            side.gradient_steps.append(float(step))
            side.changes.append(gradient_change(network, x, y, recipe.training.lr))

    look_along(bench, recipe, looks, look)
    side.moves = [move(a, b) for a, b in itertools.pairwise(seen)]
    return side


def _batch(data: Data, recipe: Recipe, number: int) -> tuple[Tensor, Tensor]:
    """A mini-batch of the training split, the same for both sides."""
    size = recipe.training.batch_size
    part = slice(number * size, (number + 1) * size)
    return data.train_x[part], data.train_y[part]


def _recipe(bench: Bench, norm: str) -> Recipe:
    epochs = bench.size(2, 1)
    return make("mlp", "fashion-mnist", norm=norm, batch_size=60, depth=3, epochs=epochs)


CLAIM = Claim(
    number=10,
    sentence="Batch norm holds the distributions of layers' inputs steady while the network is trained.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 4.1 and figure 1: claims it, and names it the cause",
        "Santurkar, Tsipras, Ilyas & Madry 2018, arXiv:1805.11604, section 2.2: contests it; a layer's "
        "gradient changes as much, or more, under updates of the layers below",
    ),
    predictions=(
        Prediction(
            "drift",
            "the percentiles of the inputs to the last activation travel at least "
            f"{MATTERS:g} times as far without batch norm",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
        Prediction(
            "gradient",
            "a step of the layers below changes a layer's gradient at least "
            f"{MATTERS:g} times as much without batch norm",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
    ),
    recipe=(
        "3 hidden layers of 100 sigmoid units on Fashion-MNIST, batch 60, Xavier start, plain SGD; 2 epochs. "
        "Each side at the best of five learning rates; batch norm once more at the rate that is best without."
    ),
    measure=(
        "Every 30 steps, the 15th, 50th and 85th percentile over 500 validation images of the input to each "
        "unit of the last hidden layer: how far they moved since the look before, in the spread between the "
        "15th and the 85th, of the median unit, summed over the training. Every 90 steps, ‖g′ − g‖ / ‖g‖ of "
        "a layer's gradient on a mini-batch before (g) and after (g′) a step of the layers below it alone; "
        "geometric mean over layers and looks."
    ),
    conditions=(
        "The network is that of the paper's figure 1, on Fashion-MNIST in place of MNIST, for 1,800 steps "
        "in place of 50,000; Santurkar et al. measured a VGG and a deep linear network. Both sides take "
        "their own best rate, as they would in practice. Larger steps move more, and the side without batch "
        "norm takes the larger ones: the plot shows batch norm at that rate, too."
    ),
    practice={
        "supported": (
            "By both measures, each side at its own best rate, layers see steadier inputs under batch norm; "
            "how much of that is the smaller rate, the notes say, which have both at one rate. Its "
            "account of itself may be used "
            "as a picture; that steadiness is what makes training faster is not shown by this."
        ),
        "not supported": (
            "The two measures do not both speak for steadier inputs. Do not choose a normaliser by how much "
            "internal covariate shift it removes: compare what it does to accuracy and to the range of "
            "learning rates."
        ),
        "refuted": (
            "By at least one measure batch norm does not steady layers' inputs by as much as would matter, "
            "though it may speed up training all the same. Take a drifting distribution in a monitor for a "
            "fact about the network, not for a fault that a normaliser must mend, and choose normalisers by "
            "accuracy and by the range of learning rates."
        ),
    },
    plot=Plot(
        "Move of the last inputs' percentiles in 30 steps, and change of gradients in one step",
        "training step",
        "relative change",
        log_y=True,
    ),
    experiment=experiment,
    contested=True,
)
