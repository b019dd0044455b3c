"""Claim 22: folding batch norm into its neighbours changes no answer and saves time."""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.recipe import Recipe
from normwright.lab.training import predict
from normwright.network.acceleration.route import own_class
from normwright.network.calling import call_of
from normwright.network.folding.fold import fold_with_report
from normwright.network.folding.measure import time_in_turn
from normwright.network.folding.report import FoldReport
from normwright.network.walk import find_normalisers, replace_module

NETWORKS = ("lenet", "vgg")
FORMS = ("batch norm as a layer", "fused batch norm", "folded")
RATE = 0.1
BATCH = 64
SECONDS = 0.5
MOST_CHANGED = 1e-3
MOST_ERROR = 2.0
MATTERS = 1.1


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: folds two trained networks, compares answers and errors, and times them in turn."""
    recipes = [vary(_recipe(bench, name), seed=seed) for name in NETWORKS]
    bench.train(*recipes)
    values: dict[str, float] = {}
    series = []
    for recipe in recipes:
        name, x = recipe.network.name, bench.data(recipe).test_x
        network = bench.network(recipe).eval()
        plain = with_torch_norms(network)
        folded, report = fold_with_report(plain, x[:BATCH])
        speed = report.speed
        assert speed is not None, f"{name} was not folded"
        fused = time_in_turn([folded, network], call_of(x[:BATCH]), seconds=SECONDS)[0].after
        values |= {
            f"changed_{name}": changed(plain, folded, x[: bench.size(10_000, 2_000)]),
            f"error_{name}": error_ratio(report),
            f"time_{name}": 1 / speed.ratio,
        }
        milliseconds = tuple(1000 * value for value in (speed.before, fused, speed.after))
        series.append(Series(name, FORMS, milliseconds))
    return Trial(values=values, series=tuple(series))


def error_ratio(report: FoldReport) -> float:
    """The folded network's largest error against float64, over the unfolded one's."""
    error = report.error
    if error is None or error.folded is None or not error.unfolded:
        return math.nan
    return error.folded / error.unfolded


def changed(network: nn.Module, folded: nn.Module, x: Tensor) -> float:
    """Per cent of the samples to which the two give another class."""
    before, after = (predict(each, x).argmax(1) for each in (network, folded))
    return 100 * float((before != after).float().mean())


def with_torch_norms(network: nn.Module) -> nn.Module:
    """A copy as it stands in most code: PyTorch's own batch norm as a layer of its own, nothing fused."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        object.__setattr__(module, "__class__", own_class(type(module)))
    for name, norm in find_normalisers(plain).items():
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        kind = nn.BatchNorm2d if isinstance(norm, nn.BatchNorm2d) else nn.BatchNorm1d
        own = kind(norm.num_features, eps=norm.eps).train(norm.training)
        own.load_state_dict(norm.state_dict())
        replace_module(plain, name, own)
    return plain


def _recipe(bench: Bench, name: str) -> Recipe:
    return make(
        name,
        "fashion-mnist",
        norm="batch",
        batch_size=BATCH,
        lr=RATE,
        activation="relu",
        width=16,
        epochs=1,
        max_steps=bench.size(200, 60),
        evaluations=1,
    )


def _predictions(name: str, words: str) -> tuple[Prediction, ...]:
    return (
        Prediction(
            f"changed_{name}",
            f"folding {words} gives another class to at most {MOST_CHANGED:g} % of the test images",
            "per cent of images",
            at_most=MOST_CHANGED,
        ),
        Prediction(
            f"error_{name}",
            f"the folded {words} is at most {MOST_ERROR:g} times as far from float64 as the unfolded one",
            "times",
            at_most=MOST_ERROR,
            ratio=True,
        ),
        Prediction(
            f"time_{name}",
            f"with batch norm as a layer of its own, {words} takes at least {MATTERS:g} times as long as "
            "folded",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
    )


CLAIM = Claim(
    number=22,
    sentence="Folding batch norm into the layers beside it changes no answer and saves time.",
    references=(
        "Jacob et al. 2018, arXiv:1712.05877, section 3.2: batch norm is folded before quantisation",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1: at inference it is a linear map",
    ),
    predictions=(*_predictions("lenet", "LeNet"), *_predictions("vgg", "VGG")),
    recipe=(
        "LeNet, and a VGG of six convolutions with 16, 32 and 64 channels, with batch norm and ReLU, trained "
        "on Fashion-MNIST for 200 steps of 64 images by plain SGD at 0.1; then folded in inference mode."
    ),
    measure=(
        "Test images (10,000) that get another class; the largest error of 64 images' outputs against the "
        "same network in float64, folded over unfolded; the median time of a call with 64 images on one "
        "thread, calls in turn, with PyTorch's batch norm as a layer of its own over folded. The plot "
        "shows, too, the batch norm that is fused with its activation, which `accelerate` makes."
    ),
    conditions=(
        "The claim is about networks as most code has them; against batch norm that is fused with its "
        "activation there is less left to save, and against a batch norm that a compiler has folded already "
        "nothing. Nothing here is compared by how well it trains: one learning rate serves."
    ),
    practice={
        "supported": (
            "Fold before you ship: the answers are the same to rounding, and time is saved. `normwright "
            "fold` checks both on an example of yours, and says which normalisers stay and why."
        ),
        "not supported": (
            "Answers and time are two questions, and not both are settled here. `normwright fold` measures "
            "both on your network: keep the folded one where its time is less."
        ),
        "refuted": (
            "Do not fold for its own sake: measure. `normwright fold` shows the error against float64 and "
            "the time before and after, and where batch norm is fused with its activation already there may "
            "be nothing to gain."
        ),
    },
    plot=Plot("Time of a call with 64 images", "form of the network", "milliseconds"),
    experiment=experiment,
)
