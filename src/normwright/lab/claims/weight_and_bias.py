"""Claim 5: batch norm's weight and bias are needed, or a sigmoid network is confined to its linear part."""

from __future__ import annotations

import statistics
from functools import partial

import torch
from torch import Tensor, nn

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.points import test_points
from normwright.lab.recipe import Recipe

RATES = (0.1, 0.5, 2.5)

# Half a point to 2 points is what Frankle et al. find at stake in ResNets.
MATTERS = 0.5
# A straight line explains 98.4 % of the variance of a sigmoid of a standard Gaussian, and 88 % where its
# deviation is 3.
CONFINED = 0.95
LEAVES = 1.5

IMAGES = 1_024

SIDES = {True: "with weight and bias", False: "without"}


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: accuracy and how straight the sigmoids are, with weight and bias and without."""
    best = bench.best_rates([_recipe(bench, affine) for affine in SIDES], RATES)
    sides = dict(zip(SIDES, best, strict=True))
    runs = {affine: vary(side, seed=seed) for affine, side in sides.items()}
    bench.train(*runs.values())
    accuracy = {affine: test_points(bench, run) for affine, run in runs.items()}
    images = bench.data(runs[True]).validation_x[:IMAGES]
    straight = {affine: straightness(bench.network(run), images) for affine, run in runs.items()}
    return Trial(
        values=measures(
            accuracy, {affine: tuple(by_layer.values()) for affine, by_layer in straight.items()}
        ),
        series=tuple(
            Series(SIDES[affine], tuple(by_layer), tuple(by_layer.values()))
            for affine, by_layer in straight.items()
        ),
    )


def measures(accuracy: dict[bool, float], straight: dict[bool, tuple[float, ...]]) -> dict[str, float]:
    """The claim's measures.

    Args:
        accuracy: in points, with weight and bias (True) and without (False).
        straight: of each layer, likewise.
    """
    mean = {affine: statistics.fmean(layers) for affine, layers in straight.items()}
    return {
        "affine_gains": accuracy[True] - accuracy[False],
        "straight_without": mean[False],
        "bends_with": (1 - mean[True]) / (1 - mean[False]),
    }


def straightness(network: nn.Module, images: Tensor) -> dict[str, float]:
    """The share of a sigmoid's variance that a straight line in its input explains, by hidden layer.

    It is the squared correlation of a unit before its normaliser, which is affine in inference mode, with
    the same unit after its activation: the mean over the layer's units that vary.

    Args:
        network: of blocks `hidden1`, …, each a `linear` layer, its normaliser and activation.
        images: (N, ...).
    """
    seen: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = output

    blocks = {name: block for name, block in network.named_children() if name.startswith("hidden")}
    handles = [
        module.register_forward_hook(partial(note, label))
        for name, block in blocks.items()
        for label, module in ((name, block), (f"{name}.linear", block.get_submodule("linear")))
    ]
    try:
        with torch.no_grad():
            network.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _squared_correlation(seen[f"{name}.linear"], seen[name]) for name in blocks}


def _squared_correlation(x: Tensor, y: Tensor) -> float:
    """Mean over the columns of x and y, (N, C), that both vary."""
    x, y = (values.double() - values.double().mean(0) for values in (x, y))
    products = x.square().sum(0) * y.square().sum(0)
    vary_both = products > 0
    return float(((x * y).sum(0)[vary_both].square() / products[vary_both]).mean())


def _recipe(bench: Bench, affine: bool) -> Recipe:
    return make(
        "mlp",
        "fashion-mnist",
        norm="batch",
        affine=affine,
        batch_size=60,
        max_steps=bench.size(1_800, 600),
        evaluations=2,
        schedule="cosine",
    )


CLAIM = Claim(
    number=5,
    sentence=(
        "Batch norm's weight and bias are needed: without them a sigmoid network is confined to its linear "
        "part."
    ),
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167 (normalised inputs would keep a sigmoid in its linear "
        "regime)",
        "Frankle, Schwab & Morcos 2020, arXiv:2003.00152 (what weight and bias alone can learn; leaving them "
        "out costs ResNets 0.5 to 2 points)",
    ),
    predictions=(
        Prediction(
            "affine_gains",
            f"test accuracy with weight and bias is at least {MATTERS:g} points above that without",
            "points of accuracy",
            at_least=MATTERS,
        ),
        Prediction(
            "straight_without",
            f"without them, a straight line explains at least {CONFINED:g} of what a sigmoid gives",
            "share of variance",
            at_least=CONFINED,
        ),
        Prediction(
            "bends_with",
            f"with them, a straight line leaves at least {LEAVES:g} times as much unexplained as without",
            "times",
            at_least=LEAVES,
            ratio=True,
        ),
    ),
    recipe=(
        "Six hidden layers of 100 sigmoid units on Fashion-MNIST, 1,800 steps of batch 60, Xavier start, SGD "
        "with a cosine schedule; batch norm before every sigmoid, with and without weight and bias."
    ),
    measure=(
        "Accuracy on the 10,000 test images at the end; and the squared correlation between a sigmoid's "
        "input and its output on 1,024 validation images, mean over units and layers."
    ),
    conditions=(
        "Two passes over the data in a deep and narrow network. The paper makes the claim as an argument, "
        "and measures nothing for it."
    ),
    practice={
        "supported": (
            "Keep weight and bias in every batch norm before a sigmoid or tanh. The network uses them to "
            "widen its inputs beyond the straight part, and loses accuracy without them."
        ),
        "not supported": (
            "Keep weight and bias, which cost next to nothing. But expect little of them: at this length "
            "of training what they gain is not certain."
        ),
        "refuted": (
            "Weight and bias may be left out where a library or a kernel is simpler without them: six "
            "layers of nearly straight sigmoids still bend enough together, and the next layer's weights "
            "make up for the rest. Keep them where weights are to be exchanged with others."
        ),
    },
    plot=Plot("How straight each layer's sigmoids are used", "hidden layer", "variance that a line explains"),
    experiment=experiment,
)
