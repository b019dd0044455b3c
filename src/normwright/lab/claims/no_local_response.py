"""Claim 20: batch norm makes local response normalisation needless."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from normwright.functional import local_response_norm
from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.points import test_points
from normwright.lab.networks import lenet
from normwright.lab.recipe import NetworkRecipe, Recipe

RATES = (0.01, 0.04, 0.16)

# AlexNet's 1e-4 is for pixels up to 255 and a sum over the channels: at a deviation of 65 it adds about 2 to
# the denominator's 2. For standardised pixels and PyTorch's mean over the channels, 1 adds 1 to 1.
CHANNELS, ALPHA, BETA = 5, 1.0, 0.75

MATTERS = 0.5

SIDES = {
    "none": "neither",
    "response": "local response",
    "batch": "batch norm",
    "both": "both",
}


class Responses(nn.Module):
    """Local response normalisation that stays where it stands: no place of a normaliser that is compared."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> the same shape."""
        return local_response_norm(x, CHANNELS, ALPHA, BETA)


def lenet_with_responses(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """LeNet with ReLU, and local response normalisation after the activation of both convolutions.

    Example:
        >>> network = lenet_with_responses((1, 28, 28), 10)
        >>> list(dict(network.conv1.named_children()))
        ['conv', 'norm', 'activation', 'response']
    """
    network = lenet.build(NetworkRecipe(name="lenet", activation="relu"), sample_shape, classes)
    for name in ("conv1", "conv2"):
        network.get_submodule(name).add_module("response", Responses())
    return network


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: test accuracy with neither, with local response or batch norm alone, and with both."""
    best = bench.best_rates([_recipe(bench, side) for side in SIDES], RATES)
    sides = dict(zip(SIDES, best, strict=True))
    runs = {name: vary(side, seed=seed) for name, side in sides.items()}
    bench.train(*runs.values())
    accuracy = {name: test_points(bench, run) for name, run in runs.items()}
    heights = tuple(accuracy[name] for name in SIDES)
    return Trial(
        values=measures(accuracy),
        series=(Series("test accuracy", tuple(SIDES.values()), heights),),
    )


def measures(accuracy: Mapping[str, float]) -> dict[str, float]:
    """The claim's differences, in points."""
    return {
        "response_adds": accuracy["both"] - accuracy["batch"],
        "batch_is_no_worse": accuracy["batch"] - accuracy["response"],
    }


def _recipe(bench: Bench, side: str) -> Recipe:
    with_responses = f"{__name__}:{lenet_with_responses.__name__}"
    return make(
        with_responses if side in ("response", "both") else "lenet",
        "fashion-mnist",
        norm="batch" if side in ("batch", "both") else "none",
        activation="relu",
        batch_size=32,
        max_steps=bench.size(400, 120),
        evaluations=1,
        momentum=0.9,
        schedule="cosine",
    )


CLAIM = Claim(
    number=20,
    sentence="Batch norm makes local response normalisation needless.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167 (Inception does without it, once it has batch norm)",
        "Krizhevsky, Sutskever & Hinton 2012 (local response normalisation lowers AlexNet's error)",
        "Simonyan & Zisserman 2014, arXiv:1409.1556 (contest that it helps at all)",
    ),
    predictions=(
        Prediction(
            "response_adds",
            f"beside batch norm, local response normalisation adds at most {MATTERS:g} points of test "
            "accuracy",
            "points of accuracy",
            at_most=MATTERS,
        ),
        Prediction(
            "batch_is_no_worse",
            "test accuracy with batch norm alone, less that with local response normalisation alone, is "
            f"at least {-MATTERS:g} points",
            "points of accuracy",
            at_least=-MATTERS,
        ),
    ),
    recipe=(
        "LeNet with ReLU on Fashion-MNIST, 400 steps of batch 32, SGD with momentum 0.9 and a cosine "
        "schedule; batch norm before every ReLU, local response normalisation over 5 channels after those "
        "of the convolutions, as in AlexNet."
    ),
    measure="Accuracy on the 10,000 test images at the end of training.",
    conditions=(
        "A small network, whose first convolution has 6 channels, and short training. The strength of local "
        "response normalisation (alpha 1, for standardised pixels) is AlexNet's by its size against the "
        "activations, and is not tuned."
    ),
    practice={
        "supported": (
            "Leave local response normalisation out of any network that has batch norm: it costs time, "
            "and adds nothing that matters. Keep it only to run old weights that were trained with it."
        ),
        "not supported": (
            "Whether local response normalisation adds anything beside batch norm is not certain here. "
            "Start without it, and in a network that has it already, measure before you take it out."
        ),
        "refuted": (
            "Local response normalisation still earns its place here. Try it after the activation of the "
            "first convolutions, and weigh the points that it adds against its time."
        ),
    },
    plot=Plot("Accuracy with either normaliser, both and neither", "normalisers", "test accuracy (points)"),
    experiment=experiment,
)
