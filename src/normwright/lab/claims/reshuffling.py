"""Claim 23: reshuffling the training set each epoch helps batch norm."""

from __future__ import annotations

from collections.abc import Mapping

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.points import test_points
from normwright.lab.book.small_set import RATES, SAYS, on_small_set

# About 1 point of ImageNet's validation accuracy in the paper; half of that is still worth a shuffle.
MATTERS = 0.5

# What a network without a normaliser gains, the order of the samples gives by itself.
NORMS = {"batch": "batch norm", "none": "no normaliser"}
ORDERS = {False: "fixed batches", True: "reshuffled"}

Side = tuple[str, bool]


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: test accuracy with the same batches every epoch and with new ones."""
    places = [(norm, shuffle) for norm in NORMS for shuffle in ORDERS]
    best = bench.best_rates([on_small_set(bench, norm, shuffle=shuffle) for norm, shuffle in places], RATES)
    sides = dict(zip(places, best, strict=True))
    runs = {place: vary(side, seed=seed) for place, side in sides.items()}
    bench.train(*runs.values())
    accuracy = {place: test_points(bench, run) for place, run in runs.items()}
    orders = tuple(ORDERS.values())
    return Trial(
        values=gains(accuracy),
        series=tuple(
            Series(name, orders, tuple(accuracy[norm, shuffle] for shuffle in ORDERS), norm)
            for norm, name in NORMS.items()
        ),
    )


def gains(accuracy: Mapping[Side, float]) -> dict[str, float]:
    """Points that reshuffling adds: with batch norm, and by how much more than without it."""
    gain = {norm: accuracy[norm, True] - accuracy[norm, False] for norm in NORMS}
    return {"gain": gain["batch"], "beyond_none": gain["batch"] - gain["none"]}


CLAIM = Claim(
    number=23,
    sentence="Reshuffling the training set each epoch helps batch norm.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167 (shuffling more thoroughly adds about 1 point: the same "
        "samples do not always share a batch)",
        "Wu, Yun & Sra 2023, arXiv:2302.12444 (with fixed batches, batch norm may settle at a distorted "
        "optimum or diverge)",
    ),
    predictions=(
        Prediction(
            "gain",
            f"with batch norm, reshuffling adds at least {MATTERS:g} points of test accuracy",
            "points of accuracy",
            at_least=MATTERS,
        ),
        Prediction(
            "beyond_none",
            "what it adds with batch norm, less what it adds without a normaliser, is at least 0",
            "points of accuracy",
            at_least=0.0,
        ),
    ),
    recipe=f"{SAYS}; in a new order every epoch, or in the first epoch's batches throughout.",
    measure="Accuracy on the 10,000 test images at the end of training.",
    conditions=(
        "A small network and 40 batches that come 30 times each. In the paper the batches of a file were "
        "reshuffled, not fixed, and the set was ImageNet."
    ),
    practice={
        "supported": (
            "Reshuffle every epoch, and see that your loader does: a fixed sampler seed, or files read in "
            "one order, keeps the batches as they were. With batch norm it matters who shares a batch."
        ),
        "not supported": (
            "Reshuffle every epoch, which costs nothing. But do not look to it for accuracy that you "
            "miss: the gain is too small to be certain here, or no greater with batch norm than without."
        ),
        "refuted": (
            "See which prediction fails. If the gain is below half a point, a good shuffle once is enough "
            "where reshuffling is dear, as it is for large files read in order; if it is no larger than "
            "without a normaliser, reshuffle for all networks alike, and not for batch norm's sake."
        ),
    },
    plot=Plot(
        "Accuracy with fixed and with reshuffled batches", "order of the samples", "test accuracy (points)"
    ),
    experiment=experiment,
)
