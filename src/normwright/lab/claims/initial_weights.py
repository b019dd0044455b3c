"""Claim 3: batch norm lessens the dependence on the initial weights."""

from __future__ import annotations

from collections.abc import Mapping

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import deep_mlp
from normwright.lab.book.points import test_points
from normwright.lab.recipe import Recipe

# About 0.12 keeps the size of what 100 ReLUs pass on; a factor of 12 below it, and 2.5 above.
DEVIATIONS = (0.01, 0.03, 0.1, 0.3)
# From the largest start a network without a normaliser asks for the smallest of them.
RATES = (1e-6, 1e-5, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
QUICK_RATES = (0.0001, 0.003, 0.1, 3.0)
STEPS, QUICK_STEPS = 300, 150

MATTERS = 10.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: the accuracies that one network reaches from several starts, with and without batch norm."""
    starts = {(norm, std): _recipe(bench, norm, std) for norm in ("none", "batch") for std in DEVIATIONS}
    best = bench.best_rates(list(starts.values()), bench.size(RATES, QUICK_RATES))
    runs = [vary(recipe, seed=seed) for recipe in best]
    bench.train(*runs)
    points = {start: test_points(bench, run) for start, run in zip(starts, runs, strict=True)}
    return Trial(
        values={"range": range_of(points, "none") - range_of(points, "batch")},
        series=tuple(
            Series(name, DEVIATIONS, tuple(points[norm, std] for std in DEVIATIONS), norm)
            for name, norm in (("no normaliser", "none"), ("batch norm", "batch"))
        ),
    )


def range_of(points: Mapping[tuple[str, float], float], norm: str) -> float:
    """The best accuracy of a side over its starts, less the worst."""
    own = [value for (side, _), value in points.items() if side == norm]
    return max(own) - min(own)


def _recipe(bench: Bench, norm: str, std: float) -> Recipe:
    steps = bench.size(STEPS, QUICK_STEPS)
    return deep_mlp(
        bench,
        norm,
        activation="relu",
        initialisation="normal",
        init_std=std,
        epochs=1,
        max_steps=steps,
        evaluations=1,
    )


CLAIM = Claim(
    number=3,
    sentence="Batch norm lessens the dependence on the initial weights.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, sections 1 and 3.3.",
        "Zhang, Dauphin & Ma 2019, arXiv:1901.09321: a careful start trains deep networks without "
        "normalisation.",
    ),
    predictions=(
        Prediction(
            "range",
            "the range of the accuracy over starts is smaller with batch norm by at least "
            f"{MATTERS:g} points",
            "points of accuracy",
            at_least=MATTERS,
        ),
    ),
    recipe="An MLP of 6 hidden layers of 100 ReLU units (5 in a quick run) on Fashion-MNIST, batch 60, plain "
    f"SGD for {STEPS} steps ({QUICK_STEPS}). Its weights start normal, with deviations "
    f"{', '.join(map(str, DEVIATIONS))}.",
    measure="Test accuracy from each start, at the best of eight rates (four) for that start and that side; "
    "the best accuracy over the starts less the worst, without batch norm less with it. A run that diverged "
    "counts as 10 %.",
    conditions="The paper speaks of gradients and of Inception. A rate chosen for every start is more than "
    "most people search; with one rate for all starts the difference could only be larger. Training is "
    "short: from the smallest starts the side without batch norm stands still at every rate, and whether it "
    "would leave that in a longer training is not asked.",
    practice={
        "supported": "With batch norm the scale of the initial weights hardly needs thought, though the "
        "learning rate still does. Without it, choose the scale by the activation (Xavier, Kaiming), for no "
        "learning rate makes up for a wrong one.",
        "not supported": "Choose the scale of the initial weights by the activation (Xavier, Kaiming) with "
        "batch norm as without it. It is free, and batch norm is not shown to replace it.",
        "refuted": "Batch norm is no remedy for a badly scaled start here: a learning rate chosen for the "
        "start does nearly as well. Scale the initial weights by the activation.",
    },
    plot=Plot(
        "Test accuracy by the scale of the initial weights",
        "standard deviation of the initial weights",
        "test accuracy (%)",
        log_x=True,
    ),
    experiment=experiment,
)
