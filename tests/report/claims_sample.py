"""Records of claims made by hand: every verdict, quick and contested, and what can be missing."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from normwright.lab.book.choice import ChosenRate
from normwright.lab.book.claim import Plot, Prediction, Series, Trial
from normwright.lab.book.record import ClaimRecord, Cost, make_record
from normwright.lab.book.verdict import LEAST_SEEDS

FASTER = Prediction(
    "speed_up", "steps without over steps with batch norm are at least 2", "times", at_least=2.0, ratio=True
)
BETTER = Prediction("gain", "test accuracy rises by at least 1 point", "points of accuracy", at_least=1.0)
FLAT = Prediction("spread", "the error moves by at most 1 point", "points of accuracy", at_most=1.0)
STEADY = Prediction(
    "drift", "drift without over drift with is at least 1.5", "times", at_least=1.5, ratio=True
)
NULL = Prediction("gain", "test accuracy rises at all", "points of accuracy", at_least=0.0)

RATES = (
    ChosenRate("batch norm", 0.1, (0.01, 0.1), "largest", "rising"),
    ChosenRate("no normaliser", 1.0, (0.1, 1.0, 10.0), "", ""),
)

SENTENCES = (
    "Batch norm reaches a given accuracy in fewer training steps.",
    "It allows larger learning rates without divergence.",
    "It lessens dependence on the initial weights.",
    "It makes deep networks with sigmoid or tanh trainable.",
    "Weight and bias are needed: without them a sigmoid network is confined to its linear part.",
    "It regularises: dropout can go, and dropout with batch norm does no better than either alone.",
    "It fails with small batches, where group and layer norm do not.",
    "It belongs before the activation.",
)


def record(number: int = 1, *predictions: Prediction, **asked: Any) -> ClaimRecord:
    """A record by its predictions' measures.

    Args:
        number: of the claim.
        predictions: FASTER by default.
        asked: `values`, by the key of a prediction; `quick`; `categories`; `series`; `bounds`; `rates`; or
            any field of `ClaimRecord`, which replaces what came out.
    """
    predictions = predictions or (FASTER,)
    quick = asked.pop("quick", False)
    seeds = LEAST_SEEDS - 1 if quick else LEAST_SEEDS
    values = asked.pop("values", {})
    categories, series = asked.pop("categories", False), asked.pop("series", True)
    bounds, rates = asked.pop("bounds", {}), asked.pop("rates", ())
    trials = [
        Trial(
            {p.key: values.get(p.key, (3.0, 3.4, 2.6, 3.2, 2.9))[seed] for p in predictions},
            _series(seed, categories) if series else (),
            bounds,
        )
        for seed in range(seeds)
    ]
    made = make_record(
        _claim(number, predictions, asked.pop("contested", False)),
        trials,
        Cost(40, 185.0, 4.2),
        rates=rates,
        quick=quick,
        machine="cpu (x86_64, 2 cores), Python 3.11.7, PyTorch 2.13.0",
        command=f"normwright claims run {number}" + (" --quick" if quick else ""),
    )
    return dataclasses.replace(made, **asked)


def book() -> list[ClaimRecord]:
    """Eight claims: each verdict, and each thing that can be missing."""
    return [
        record(1, rates=RATES),
        record(2, values={"speed_up": (1.1, 1.0, 0.9, 1.2, 1.05)}),
        record(3, values={"speed_up": (2.5, 1.2, 3.3, 1.6, 2.4)}, categories=True),
        record(4, BETTER, values={"gain": (60.0, 62.0, 58.5, 61.0, 59.0)}, bounds={"gain": "at least"}),
        record(5, FLAT, values={"spread": (0.2, -0.1, 0.3, 0.1, 0.0)}),
        record(6, BETTER, values={"gain": (1.0, math.nan, 2.0, 0.5, 1.5)}, series=False),
        record(
            7,
            FASTER,
            STEADY,
            contested=True,
            values={"speed_up": (3.0, 3.4, 2.6, 3.2, 2.9), "drift": (1.0, 0.9, 1.1, 1.0, 0.95)},
        ),
        record(8, BETTER, values={"gain": (0.2, 2.2, -0.5, 1.5)}, quick=True),
    ]


def extremes() -> list[ClaimRecord]:
    """What seldom comes: nothing measured, a limit that is no effect, an end beyond every number."""
    nothing = (math.nan,) * 5
    return [
        record(9, values={"speed_up": nothing}),
        record(10, NULL, values={"gain": (0.2, 0.3, 0.1, 0.2, 0.25)}),
        record(11, values={"speed_up": (1e300, 1e-300, 1e300, 1.0, 1e300)}),
        record(12, BETTER, values={"gain": (-900.0, -901.0, -899.0, -900.0, -900.5)}),
    ]


def _series(seed: int, categories: bool) -> tuple[Series, ...]:
    if categories:
        names = ("batch 2", "batch 8", "batch 32 and a longer name")
        return (
            Series("batch norm", names, (0.5 + 0.02 * seed, 0.7, 0.8), "batch"),
            Series("group norm", names, (0.7, 0.7 + 0.01 * seed, 0.75), "group"),
            Series("nothing was measured", names, (math.nan,) * 3, "layer"),
        )
    steps = tuple(100.0 * i for i in range(1, 19))
    return (
        Series("batch norm", steps, tuple(0.9 - 0.6 / (1 + i) - 0.01 * seed for i in range(18)), "batch"),
        Series("batch norm, deep", steps, tuple(0.85 - 0.7 / (1 + i) for i in range(18)), "batch"),
        Series(
            "no normaliser",
            steps,
            tuple(math.nan if i in (7, 8) else 0.1 + 0.03 * i + 0.01 * seed for i in range(18)),
            "none",
        ),
        Series("chance", steps, (0.1,) * 18),
    )


def _claim(number: int, predictions: tuple[Prediction, ...], contested: bool) -> Any:
    from normwright.lab.book.claim import Claim

    return Claim(
        number=number,
        sentence=SENTENCES[(number - 1) % len(SENTENCES)],
        references=("Ioffe & Szegedy 2015, arXiv:1502.03167", "Santurkar et al. 2018, arXiv:1805.11604"),
        predictions=predictions,
        recipe="6 hidden layers of 100 sigmoid units on Fashion-MNIST, batch 60, Xavier start, plain SGD.",
        measure="Training steps until the validation accuracy first reaches the target.",
        conditions="A small network on small images; the paper's figure is for Inception on ImageNet.",
        practice={
            "supported": "Put batch norm into deep networks with saturating activations. Expect a few times.",
            "not supported": "Do not count on it: try both on your own data.",
            "refuted": "Batch norm is no way to train faster here.",
        },
        plot=Plot("Validation accuracy while training", "training step", "validation accuracy"),
        experiment=_experiment,
        contested=contested,
    )


def _experiment(bench: Any, seed: int) -> Trial:
    raise AssertionError("a record made by hand is not run")
