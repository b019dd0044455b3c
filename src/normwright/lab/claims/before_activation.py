"""Claim 8: batch norm belongs before the activation."""

from __future__ import annotations

import math
import statistics
from functools import partial

import torch
from torch import Tensor, nn

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.gaussian import gaussian_distance
from normwright.lab.book.points import test_points
from normwright.lab.recipe import PLACES, Recipe

RATES = (0.01, 0.04, 0.16, 0.64)
PLACES_SAID = {"before": "what a layer gives", "after": "what its ReLU gives"}

# Half a point of accuracy is what one would move a layer for. A Gaussian that a ReLU cuts off at its mean has
# distance 0.54; a layer whose values had half of that would still be far from Gaussian.
MATTERS = 0.5
NEARER = 1.5

IMAGES = 256


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: accuracy with batch norm before and after the ReLU, and what it gets to see there."""
    best = bench.best_rates([_recipe(bench, place) for place in PLACES], RATES)
    sides = dict(zip(PLACES, best, strict=True))
    runs = {place: vary(side, seed=seed) for place, side in sides.items()}
    bench.train(*runs.values())
    accuracy = {place: test_points(bench, run) for place, run in runs.items()}
    images = bench.data(runs["before"]).validation_x[:IMAGES]
    distances = {place: input_distances(bench.network(run), images) for place, run in runs.items()}
    means = {place: statistics.fmean(by_layer.values()) for place, by_layer in distances.items()}
    return Trial(
        values={
            "before_gains": accuracy["before"] - accuracy["after"],
            "relu_is_farther": means["after"] / means["before"],
        },
        series=tuple(
            Series(PLACES_SAID[place], tuple(by_layer), tuple(by_layer.values()))
            for place, by_layer in distances.items()
        ),
    )


def input_distances(network: nn.Module, images: Tensor) -> dict[str, float]:
    """How far what reaches each normaliser lies from a Gaussian, by the name of its layer, in inference mode.

    Args:
        network: whose normalisers are named `norm` in their layer's block.
        images: (N, C, H, W).
    """
    distances: dict[str, float] = {}

    def note(layer: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        distances[layer] = gaussian_distance(args[0])

    places = {name: m for name, m in network.named_modules() if name.endswith(".norm")}
    handles = [
        module.register_forward_pre_hook(partial(note, name.removesuffix(".norm")))
        for name, module in places.items()
    ]
    try:
        with torch.no_grad():
            network.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: distance for layer, distance in distances.items() if math.isfinite(distance)}


def _recipe(bench: Bench, place: str) -> Recipe:
    return make(
        "lenet",
        "fashion-mnist",
        norm="batch",
        place=place,
        activation="relu",
        batch_size=64,
        max_steps=bench.size(600, 200),
        evaluations=1,
        momentum=0.9,
        schedule="cosine",
    )


CLAIM = Claim(
    number=8,
    sentence=(
        "Batch norm belongs before the activation; what comes out of a linear or convolution layer is nearer "
        "to a Gaussian than what comes out of a ReLU."
    ),
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167 (before: a layer's output is symmetric, not sparse, more "
        "Gaussian)",
        "Mishkin, Sergievskiy & Matas 2016, arXiv:1606.02228 (contests it: after the ReLU does slightly "
        "better in a network like AlexNet)",
    ),
    predictions=(
        Prediction(
            "before_gains",
            f"test accuracy with batch norm before the ReLU is at least {MATTERS:g} points above that after "
            "it",
            "points of accuracy",
            at_least=MATTERS,
        ),
        Prediction(
            "relu_is_farther",
            f"what a ReLU gives lies at least {NEARER:g} times as far from a Gaussian as what a layer gives",
            "times",
            at_least=NEARER,
            ratio=True,
        ),
    ),
    recipe=(
        "LeNet with ReLU on Fashion-MNIST, 600 steps of batch 64, SGD with momentum 0.9 and a cosine "
        "schedule; batch norm before or after all four ReLUs."
    ),
    measure=(
        "Accuracy on the 10,000 test images at the end; and the 2-Wasserstein distance from a Gaussian of "
        "what reaches each normaliser, every unit standardised, on 256 validation images: mean over units, "
        "then over layers; that of the network with batch norm after its ReLUs over that of the one with "
        "it before."
    ),
    conditions=(
        "A small convolutional network with ReLU and short training. The paper argues for any activation, "
        "and its sigmoids would saturate without a normaliser before them, which ReLUs do not."
    ),
    practice={
        "supported": (
            "Put batch norm between the layer and its activation. It sees the more Gaussian values there, "
            "its bias stands in for the layer's, and it can be folded into the layer before it."
        ),
        "not supported": (
            "For accuracy the place is not settled in a network such as this. Keep batch norm before the "
            "activation for the reasons that do not depend on accuracy: it folds into the layer before it, "
            "takes over that layer's bias, and is where published weights expect it."
        ),
        "refuted": (
            "Do not move normalisers for the sake of accuracy: with ReLU the place before the activation "
            "gains nothing that matters. It remains the customary one, which folds into the layer before it "
            "and where published weights expect it."
        ),
    },
    plot=Plot("Distance from a Gaussian of what reaches the normaliser", "layer", "2-Wasserstein distance"),
    experiment=experiment,
    contested=True,
)
