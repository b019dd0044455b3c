"""Claim 16: population statistics at inference match training, unless batches are small."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from normwright.lab.book.along import look_along
from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.data import Data
from normwright.lab.recipe import Recipe
from normwright.lab.training import predict
from normwright.network.walk import find_normalisers
from normwright.statistics.recalibrate import recalibrate

RATES = (0.0008, 0.004, 0.02, 0.1, 0.5, 2.5, 12.5)
LARGE, SMALL = 60, 4
MODES = ("training mode", "population statistics", "moving average")

# Late steps at which inference is compared; several, for a few batches of 4 make a moving average.
LATE_LOOKS, LATE_EVERY = 8, 50
VALIDATION = 1_920
READ, READ_BATCH = 4_000, 500

# Where the lag is looked for: the network still moves fast, and what the averages started from is forgotten
# (0.9 to the power of 40 is 0.015).
NOW = (40, 60, 80, 100)
MOST_BACK, BACK_EVERY = 20, 2


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: accuracy by mode at both batch sizes, and the lag of the moving average."""
    large, small = (
        vary(recipe, seed=seed)
        for recipe in bench.best_rates([_recipe(bench, LARGE), _recipe(bench, SMALL)], RATES)
    )
    of_large, of_small = (_accuracies(bench, recipe) for recipe in (large, small))
    return Trial(
        values={
            "match": abs(of_large[0] - of_large[1]),
            "lag": lag(*_means_along(bench, large)),
            "small_training": abs(of_small[0] - of_small[1]),
            "small_average": of_small[1] - of_small[2],
        },
        series=tuple(
            Series(f"batch {size}", MODES, tuple(found))
            for size, found in ((LARGE, of_large), (SMALL, of_small))
        ),
    )


def accuracies(network: nn.Module, data: Data, batch_size: int) -> tuple[float, float, float]:
    """Accuracy in per cent of one network on the same validation images, in each of `MODES`.

    Args:
        network: stays as it is.
        data: population statistics are read from its training split.
        batch_size: of training mode.
    """
    x, y = data.validation_x[:VALIDATION], data.validation_y[:VALIDATION]
    with torch.no_grad():
        trained = copy.deepcopy(network).train()
        in_training = torch.cat([trained(part) for part in x.split(batch_size)])
    with_population = predict(population(network, data.train_x[:READ]), x)
    by_mode = (in_training, with_population, predict(copy.deepcopy(network), x))
    one, two, three = (100 * float((outputs.argmax(1) == y).float().mean()) for outputs in by_mode)
    return one, two, three


def population(network: nn.Module, x: Tensor) -> nn.Module:
    """A copy of the network with the statistics of these samples."""
    finished = copy.deepcopy(network).eval()
    recalibrate(finished, x.split(READ_BATCH))
    return finished


def lag(averages: Mapping[int, Tensor], populations: Mapping[int, Tensor], deviations: Tensor) -> float:
    """Steps back to the network whose population means the moving average is nearest to.

    Args:
        averages: moving averages of the means (channels of all layers), by step; those of `NOW` count.
        populations: population means, by step.
        deviations: of each channel.
    """

    def distance(back: int) -> float:
        gaps = [(averages[now] - populations[now - back]) / deviations for now in NOW]
        return statistics.fmean(float(gap.square().mean().sqrt()) for gap in gaps)

    return float(min(range(0, MOST_BACK + 1, BACK_EVERY), key=distance))


def _means_along(bench: Bench, recipe: Recipe) -> tuple[dict[int, Tensor], dict[int, Tensor], Tensor]:
    """Moving averages and population means of the early steps; deviations at the last of them."""
    x = bench.data(recipe).train_x[: READ // 2]
    averages: dict[int, Tensor] = {}
    populations: dict[int, Tensor] = {}
    deviations: list[Tensor] = []

    def look(step: int, network: nn.Module) -> None:
        finished = population(network, x)
        averages[step] = _joined(network, "running_mean")
        populations[step] = _joined(finished, "running_mean")
        if step == max(NOW):
            deviations.append(_joined(finished, "running_var").sqrt())

    look_along(bench, recipe, range(min(NOW) - MOST_BACK, max(NOW) + 1, BACK_EVERY), look)
    return averages, populations, deviations[0]


def _joined(network: nn.Module, buffer: str) -> Tensor:
    return torch.cat([norm.get_buffer(buffer) for norm in find_normalisers(network).values()])


def _accuracies(bench: Bench, recipe: Recipe) -> list[float]:
    """Means over the late looks."""
    data, found = bench.data(recipe), []
    last = recipe.training.max_steps
    steps = range(last - (LATE_LOOKS - 1) * LATE_EVERY, last + 1, LATE_EVERY)

    def look(step: int, network: nn.Module) -> None:
        found.append(accuracies(network, data, recipe.training.batch_size))

    look_along(bench, recipe, steps, look)
    return _means(found)


def _means(rows: Sequence[tuple[float, float, float]]) -> list[float]:
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


def _recipe(bench: Bench, batch_size: int) -> Recipe:
    steps = bench.size(1_200, 800)
    return make(
        "mlp",
        "fashion-mnist",
        norm="batch",
        batch_size=batch_size,
        depth=3,
        epochs=2,
        max_steps=steps,
        evaluations=2,
    )


CLAIM = Claim(
    number=16,
    sentence=(
        "With population statistics a network computes at inference what it computed in training; a moving "
        "average lags behind them, and small batches make both differ."
    ),
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1: population statistics take the batch's place",
        "Ioffe 2017, arXiv:1702.03275: with small batches training and inference differ",
        "Wu & Johnson 2021, arXiv:2105.07576, section 3: a moving average lags; population statistics do not",
    ),
    predictions=(
        Prediction(
            "match",
            f"at batch {LARGE}, accuracy with population statistics differs from that in training mode by at "
            "most 1 point",
            "points of accuracy",
            at_most=1.0,
        ),
        Prediction(
            "lag",
            "early in training, the moving average is nearest to the population means of the network of at "
            "least 3 steps before",
            "steps",
            at_least=3.0,
        ),
        Prediction(
            "small_training",
            f"at batch {SMALL}, accuracy with population statistics differs from that in training mode by at "
            "least 2 points",
            "points of accuracy",
            at_least=2.0,
        ),
        Prediction(
            "small_average",
            f"at batch {SMALL}, the moving average loses at least 1 point against population statistics",
            "points of accuracy",
            at_least=1.0,
        ),
    ),
    recipe=(
        "3 hidden layers of 100 sigmoid units with batch norm (momentum 0.1) on Fashion-MNIST, Xavier start, "
        "plain SGD at the best of seven learning rates for each batch size; 1,200 steps of 60 or of 4 images."
    ),
    measure=(
        "Accuracy of the same networks on 1,920 validation images: normalised by mini-batches of the "
        "training size; by population statistics, that is the moments of 4,000 training images through the "
        "finished network; by its own moving averages. Means over eight looks in the last 350 steps. The "
        "lag: among the population means of steps t, t − 2, …, t − 20, those nearest to the moving average "
        "of step t, by the root mean square over channels in deviations, averaged over t = 40, 60, 80 and "
        "100."
    ),
    conditions=(
        "Fully connected layers, where a batch of 4 has 4 elements per moment; in a convolution each image "
        "gives many. The learning rate is constant: where it falls to zero the moving average catches up. "
        "A moving average with momentum 0.1 has a mean age of 9 steps."
    ),
    practice={
        "supported": (
            "Batches of some tens make inference agree with training. With small ones it does not, and the "
            "moving average adds an error of its own: recalibrate after training (it costs a pass over a few "
            "thousand samples), and before every evaluation that is made while the learning rate is high."
        ),
        "not supported": (
            "Not each part of this could be shown here. Recalibrating after training is cheap, and the "
            "surest way to know whether the moving average costs anything in a network of yours."
        ),
        "refuted": (
            "At least one part of this does not hold here: look at the accuracies by mode below. Measure a "
            "gap between training and inference with the doctor before you blame it on the statistics, and "
            "recalibrate before you blame it on the moving average."
        ),
    },
    plot=Plot("Validation accuracy by what normalises", "statistics that normalise", "accuracy in per cent"),
    experiment=experiment,
)
