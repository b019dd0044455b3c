"""Claim 9: in a shallow MLP batch norm does little, in a deep one much."""

from __future__ import annotations

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import deep_mlp
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.points import test_points
from normwright.lab.recipe import Recipe

DEPTHS, QUICK_DEPTHS = (1, 2, 4, 8), (1, 2, 6)
RATES = {"none": (0.3, 1.0, 3.0, 10.0), "batch": (0.03, 0.1, 0.3, 1.0)}
STEPS, QUICK_STEPS = 600, 150

LITTLE, MUCH = 3.0, 10.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: the gain in accuracy by depth."""
    depths = bench.size(DEPTHS, QUICK_DEPTHS)
    sides = [
        Entrant(_recipe(bench, norm, depth), rates[bench.size(0, len(rates) - 3) :])
        for norm, rates in RATES.items()
        for depth in depths
    ]
    judged = [vary(recipe, seed=seed) for recipe in best_of(bench, sides)]
    runs = {"none": judged[: len(depths)], "batch": judged[len(depths) :]}
    bench.train(*judged)
    points = {norm: [test_points(bench, run) for run in own] for norm, own in runs.items()}
    gains = [with_norm - without for with_norm, without in zip(points["batch"], points["none"], strict=True)]
    return Trial(
        values={"shallow": gains[0], "deep": gains[-1]},
        series=tuple(
            Series(name, tuple(map(float, depths)), tuple(points[norm]), norm)
            for name, norm in (("no normaliser", "none"), ("batch norm", "batch"))
        ),
    )


def _recipe(bench: Bench, norm: str, depth: int) -> Recipe:
    steps = bench.size(STEPS, QUICK_STEPS)
    return deep_mlp(bench, norm, depth=depth, epochs=1, max_steps=steps, evaluations=1)


CLAIM = Claim(
    number=9,
    sentence="In a shallow MLP batch norm does little, in a deep one much.",
    references=(
        "Zhang, Lipton, Li & Smola, Dive into Deep Learning, arXiv:2106.11342, section 8.5: batch norm is "
        "for deep networks.",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 1: small changes amplify as the network becomes "
        "deeper.",
    ),
    predictions=(
        Prediction(
            "shallow",
            f"with one hidden layer, batch norm gains at most {LITTLE:g} points",
            "points of accuracy",
            at_most=LITTLE,
        ),
        Prediction(
            "deep",
            f"with {DEPTHS[-1]} hidden layers ({QUICK_DEPTHS[-1]} in a quick run), it gains at least "
            f"{MUCH:g} points",
            "points of accuracy",
            at_least=MUCH,
        ),
    ),
    recipe=f"MLPs of {', '.join(map(str, DEPTHS))} hidden layers of 100 sigmoid units on Fashion-MNIST, "
    f"batch 60, Xavier start, plain SGD for {STEPS} steps ({QUICK_STEPS} in a quick run).",
    measure="Test accuracy at the end, with batch norm less without, each depth and side at its best of "
    "four rates (three).",
    conditions="A short training: with more steps the shallow networks meet, and the deep one without batch "
    "norm begins to learn. Sigmoids, which lose most by depth.",
    practice={
        "supported": "Leave batch norm out of a network of one hidden layer, where it costs time and "
        "dependence on the batch for little. Put it in from the depth on at which the plain network falls "
        "behind.",
        "not supported": "Decide on batch norm by a trial at your own depth. The gain by depth is not as "
        "plain here as it is told.",
        "refuted": "Depth alone does not say whether batch norm is worth it: it gains in a shallow network "
        "as well, or little in a deep one. Try it at any depth.",
    },
    plot=Plot("Test accuracy by depth", "hidden layers", "test accuracy (%)"),
    experiment=experiment,
)
