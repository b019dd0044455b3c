"""Claim 25: a shift lowers accuracy, and statistics re-estimated on the new data recover part of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.data import Data
from normwright.lab.data.corruptions import CORRUPTIONS, corrupted
from normwright.lab.recipe import Recipe
from normwright.lab.training import evaluate
from normwright.statistics.adapt import adapt
from normwright.statistics.recalibrate import recalibrate

RATES = (0.1, 0.3, 1.0)
CLEAN = "none"
READ_BATCH = 250
LEAST_DROP = 5.0
LEAST_SHARE = 0.25


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: accuracy under each corruption, before and after re-estimating."""
    (best,) = bench.best_rates([_recipe(bench)], RATES)
    recipe = vary(best, seed=seed)
    bench.train(recipe)
    network, data = bench.network(recipe).eval(), bench.data(recipe)
    images, labels = data.test_x[: bench.size(5_000, 2_000)], data.test_y[: bench.size(5_000, 2_000)]
    sets = {CLEAN: images} | {name: under(name, images, data, seed) for name in CORRUPTIONS}
    source, renewed, adapted = {}, {}, {}
    for name, x in sets.items():
        source[name] = 100 * evaluate(network, x, labels, "accuracy")
        target = copy.deepcopy(network)
        recalibrate(target, x.split(READ_BATCH))
        renewed[name] = 100 * evaluate(target, x, labels, "accuracy")
        with adapt(network, x.split(READ_BATCH)):
            adapted[name] = 100 * evaluate(network, x, labels, "accuracy")
    return Trial(
        values={"drop": drop(source), "recovered": recovered(source, renewed)},
        series=tuple(
            Series(name, tuple(sets), tuple(found.values()))
            for name, found in (
                ("statistics of the training data", source),
                ("re-estimated on the new data", renewed),
                ("adapted, blending both", adapted),
            )
        ),
    )


def under(name: str, x: Tensor, data: Data, seed: int) -> Tensor:
    """Standardised images as they are under a corruption of their pixels.

    The darkest and the lightest value of the training images are the pixels 0 and 1.
    """
    darkest, lightest = data.train_x.min(), data.train_x.max()
    pixels = ((x - darkest) / (lightest - darkest)).clamp(0, 1)
    return corrupted(name, pixels, seed=seed) * (lightest - darkest) + darkest


def drop(source: Mapping[str, float]) -> float:
    """Points of accuracy that the corruptions cost, on average."""
    shifted = [value for name, value in source.items() if name != CLEAN]
    return source[CLEAN] - sum(shifted) / len(shifted)


def recovered(source: Mapping[str, float], renewed: Mapping[str, float]) -> float:
    """Share of that drop that re-estimating brings back."""
    gains = [renewed[name] - source[name] for name in source if name != CLEAN]
    return sum(gains) / len(gains) / drop(source)


def _recipe(bench: Bench) -> Recipe:
    return make(
        "lenet",
        "fashion-mnist",
        norm="batch",
        batch_size=64,
        activation="relu",
        epochs=1,
        max_steps=bench.size(0, 400),
        evaluations=2,
    )


CLAIM = Claim(
    number=25,
    sentence=(
        "A shift between training and test data lowers accuracy, and re-estimating the statistics of batch "
        "norm on the new data recovers part of it."
    ),
    references=(
        "Schneider et al. 2020, arXiv:2006.16971: ResNet-50 on ImageNet-C, corruption error 76.7 to 62.2",
        "Li et al. 2016, arXiv:1603.04779: adaptive batch normalisation for domain adaptation",
        "Hendrycks & Dietterich 2019, arXiv:1903.12261: the kinds of corruption",
    ),
    predictions=(
        Prediction(
            "drop",
            f"five corruptions cost at least {LEAST_DROP:g} points of accuracy on average",
            "points of accuracy",
            at_least=LEAST_DROP,
        ),
        Prediction(
            "recovered",
            f"re-estimating on the corrupted images brings back at least {LEAST_SHARE:g} of that",
            "share of the loss",
            at_least=LEAST_SHARE,
        ),
    ),
    recipe=(
        "LeNet with batch norm and ReLU on Fashion-MNIST, batch 64, one epoch of plain SGD at the best of "
        "three learning rates; 5,000 test images under noise, blur, contrast, brightness and rotation."
    ),
    measure=(
        "Test accuracy with the statistics of the training data, and after `recalibrate` on the corrupted "
        "test images without their labels: the loss averaged over the corruptions, and the share of it that "
        "comes back. The plot shows `adapt`, too, which blends old statistics and new."
    ),
    conditions=(
        "Schneider et al. adapt a ResNet-50 to ImageNet-C at five strengths; here is a small network, one "
        "strength for each corruption, and 5,000 images of the new domain, well mixed. A corruption that "
        "moves no moment of a channel, such as a rotation, can hardly be mended by moments."
    ),
    practice={
        "supported": (
            "Where inputs shift and labels are missing, re-estimating batch norm's statistics is the first "
            "thing to try: it needs some hundreds of samples and no training. Use `adapt` where few samples "
            "came, or where it is not known whether anything shifted, and look at each corruption: the mean "
            "hides those that moments cannot mend."
        ),
        "not supported": (
            "How much comes back depends on the corruption and on the network more than on the method. Try "
            "`adapt` on some hundreds of samples of your new domain, and keep a few labels to see whether it "
            "helped."
        ),
        "refuted": (
            "Do not count on re-estimated statistics to mend a shift. Measure with a few labels first; where "
            "they do not help, train on data like those that are met."
        ),
    },
    plot=Plot("Test accuracy under corruptions", "corruption of the test images", "accuracy in per cent"),
    experiment=experiment,
)
