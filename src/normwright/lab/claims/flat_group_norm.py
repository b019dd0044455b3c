"""Claim 17: group norm's error stays flat from batch 32 to batch 2."""

from __future__ import annotations

from collections.abc import Mapping

from normwright.lab.book.batch_sizes import at_best_rates
from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.points import test_points

SIZES = (2, 8, 32)
LARGE = SIZES[-1]
# Batch norm is shown beside it, and has no part in the verdict.
NORMS = ("group", "batch")

# The paper's own errors at these sizes lie within 0.2 points; a point is what a reader would call a rise.
MATTERS = 1.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: test error of group norm, and beside it of batch norm, at each batch size."""
    sides = at_best_rates(bench, [(norm, size) for norm in NORMS for size in SIZES])
    runs = {place: vary(side, seed=seed) for place, side in sides.items()}
    bench.train(*runs.values())
    errors = {norm: {size: 100 - test_points(bench, runs[norm, size]) for size in SIZES} for norm in NORMS}
    sizes = tuple(map(float, SIZES))
    return Trial(
        values=rises(errors["group"]),
        series=tuple(Series(f"{norm} norm", sizes, tuple(errors[norm].values()), norm) for norm in NORMS),
    )


def rises(errors: Mapping[int, float]) -> dict[str, float]:
    """Points of error by batch size -> points that each smaller batch adds to the largest one's."""
    return {f"rise_at_{size}": errors[size] - errors[LARGE] for size in SIZES if size != LARGE}


CLAIM = Claim(
    number=17,
    sentence="Group norm's error stays flat from batch 32 to batch 2.",
    references=(
        "Wu & He 2018, arXiv:1803.08494 (ResNet-50 on ImageNet: 24.1 % error at batch 32, 24.1 % at batch 2)",
    ),
    predictions=tuple(
        Prediction(
            f"rise_at_{size}",
            f"from batch {LARGE} to {size}, group norm's test error rises by at most {MATTERS:g} point",
            "points of error",
            at_most=MATTERS,
        )
        for size in SIZES
        if size != LARGE
    ),
    recipe=(
        "LeNet with ReLU, 12 passes over 600 images of Fashion-MNIST at batch 32, 8 and 2, SGD with momentum "
        "0.9 and a cosine schedule; group norm of at most 8 groups, each batch size at its own best rate."
    ),
    measure="Share of the 10,000 test images that are misclassified at the end of training.",
    conditions=(
        "All batch sizes see the same images as often, as in the paper, so that batch 2 takes 16 times as "
        "many steps, which a small network and a short training may use better: an error that falls with "
        "the batch size counts as one that does not rise. Few images and many passes keep that small."
    ),
    practice={
        "supported": (
            "With group norm let memory set the batch size: down to 2 samples per step it costs no accuracy, "
            "once the learning rate is chosen anew. The rate must come down with the batch size."
        ),
        "not supported": (
            "Group norm's error may rise somewhat as the batch shrinks. Choose the rate anew at every "
            "batch size, and measure before you rely on a batch of 2."
        ),
        "refuted": (
            "Group norm does not by itself make small batches free: the noise of the gradient remains. "
            "Accumulate gradients over several batches where memory forces the batch down."
        ),
    },
    plot=Plot("Test error by batch size", "samples per step", "test error (points)", log_x=True),
    experiment=experiment,
)
