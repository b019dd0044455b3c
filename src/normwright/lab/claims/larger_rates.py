"""Claim 2: batch norm allows larger learning rates without divergence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.bounds import Reading, ratio_of
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.deep_mlp import deep_mlp
from normwright.lab.book.points import validation_points
from normwright.lab.run import RunResult

# Factors of 2 (4 in a quick run) from a rate at which both sides learn.
LEAST_RATE, DOUBLINGS = 1 / 16, {"none": 6, "batch": 12}
STEPS, QUICK_STEPS = 300, 200

# The mean loss of answers that are all equally likely; a run that ends above has lost what it began with.
CHANCE = math.log(10)

# Points of accuracy below its own best rate at which a rate is of no more use.
LOST = 5.0

# The paper's networks of 5 times the rate train well; less than 3 is within what tuning moves a rate.
MATTERS = 3.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: the largest rates of each side."""
    rates = {
        norm: [LEAST_RATE * 2.0**k for k in range(0, last + 1, bench.size(1, 2))]
        for norm, last in DOUBLINGS.items()
    }
    steps = bench.size(STEPS, QUICK_STEPS)
    sides = {
        norm: deep_mlp(bench, norm, activation="relu", max_steps=steps, epochs=1, evaluations=1, seed=seed)
        for norm in rates
    }
    results = iter(bench.train(*(vary(sides[norm], lr=rate) for norm in rates for rate in rates[norm])))
    runs = {norm: {rate: next(results) for rate in rates[norm]} for norm in rates}
    largest = {
        "stable": {norm: largest_stable(runs[norm]) for norm in runs},
        "useful": {norm: largest_useful(runs[norm]) for norm in runs},
    }
    ratios = {
        key: ratio_of(*(_read(found[norm], rates[norm]) for norm in ("batch", "none")))
        for key, found in largest.items()
    }
    return Trial(
        values={key: ratio for key, (ratio, _) in ratios.items()},
        series=tuple(
            Series(
                name, tuple(runs[norm]), tuple(validation_points(run) for run in runs[norm].values()), norm
            )
            for name, norm in (("no normaliser", "none"), ("batch norm", "batch"))
        ),
        bounds={key: bound for key, (_, bound) in ratios.items()},
    )


def _read(largest: float, tried: Sequence[float]) -> Reading:
    """A largest rate; at the end of those tried it is the least that it can be."""
    return Reading(largest, ended=largest == max(tried))


def is_stable(result: RunResult) -> bool:
    """Whether the loss stayed finite and its mean over the last tenth of the steps is below chance."""
    last = result.loss[-max(1, len(result.loss) // 10) :]
    return not result.diverged and float(last.mean()) < CHANCE


def largest_stable(runs: Mapping[float, RunResult]) -> float:
    """The rate up to which every rate is stable; NaN where the first is not."""
    largest = math.nan
    for rate in sorted(runs):
        if not is_stable(runs[rate]):
            break
        largest = rate
    return largest


def largest_useful(runs: Mapping[float, RunResult]) -> float:
    """The rate up to which, from the best one on, every rate loses at most `LOST` points.

    NaN where all diverged.
    """
    points = {rate: validation_points(runs[rate]) for rate in sorted(runs)}
    lasting = [rate for rate in points if math.isfinite(points[rate])]
    if not lasting:
        return math.nan
    largest = best = max(lasting, key=lambda rate: points[rate])
    for rate in (rate for rate in points if rate > best):
        if not points[rate] >= points[best] - LOST:
            break
        largest = rate
    return largest


CLAIM = Claim(
    number=2,
    sentence="Batch norm allows larger learning rates without divergence.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.3; its networks train at 5 and 30 times the rate.",
        "Bjorck, Gomes, Selman & Weinberger 2018, arXiv:1806.02375: this is what batch norm's gain comes "
        "from.",
    ),
    predictions=(
        Prediction(
            "stable",
            f"the largest rate without divergence is at least {MATTERS:g} times as large with batch norm",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
        Prediction(
            "useful",
            f"the largest rate that loses at most {LOST:g} points against the best is at least {MATTERS:g} "
            "times as large with batch norm",
            "times",
            at_least=MATTERS,
            ratio=True,
        ),
    ),
    recipe="An MLP of 6 hidden layers of 100 ReLU units (5 in a quick run) on Fashion-MNIST, batch 60, "
    f"Xavier start, plain SGD for {STEPS} steps ({QUICK_STEPS}) at a constant rate.",
    measure="Rates rise by factors of 2 (4) from 1/16, to 4 without a normaliser and to 256 with batch norm. "
    "A run diverges if its loss or an output is not finite, or if the mean loss of its last tenth is not "
    "below that of equal answers, ln 10. The largest stable rate is the last before the first that diverges. "
    f"A rate is useful while the validation accuracy at the end is within {LOST:g} points of the best. "
    "Ratios are whole factors of the grid, so that their intervals may have no width.",
    conditions="The paper's figures are for Inception on ImageNet with a decaying rate and momentum. Here "
    "rates are constant, without warm-up or clipping, which both help networks without a normaliser.",
    practice={
        "supported": "When batch norm goes into a network, search the learning rate anew: more of "
        "them train, so a coarse search will do, but the best one need not be larger. Take batch norm out of "
        "a network that trains at a large rate and the rate must come down.",
        "not supported": "Search the learning rate anew after adding batch norm, but do not expect it to be "
        "several times as large. Warm-up and clipping may give the same at no cost in the network.",
        "refuted": "Networks like this one do not bear a rate several times as large with batch norm. Search "
        "around the old one when adding it.",
    },
    plot=Plot(
        "Validation accuracy by learning rate; a gap where it diverged",
        "learning rate",
        "validation accuracy (%)",
        log_x=True,
    ),
    experiment=experiment,
)
