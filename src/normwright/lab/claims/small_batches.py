"""Claim 7: batch norm fails with small batches, where group and layer norm do not."""

from __future__ import annotations

from collections.abc import Mapping

from normwright.lab.book.batch_sizes import Place, at_best_rates
from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.points import test_points

NORMS = ("batch", "group", "layer")
LARGE, SMALL = 32, 2

# In Wu & He's figure batch norm loses 11 points from batch 32 to 2, group norm none.
FAILS = 2.0
HOLDS = 1.0


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: test accuracy of each normaliser at batch 32 and at batch 2."""
    sides = at_best_rates(bench, [(norm, size) for norm in NORMS for size in (SMALL, LARGE)])
    runs = {place: vary(side, seed=seed) for place, side in sides.items()}
    bench.train(*runs.values())
    accuracy = {place: test_points(bench, run) for place, run in runs.items()}
    sizes = (float(SMALL), float(LARGE))
    return Trial(
        values=losses(accuracy),
        series=tuple(
            Series(f"{norm} norm", sizes, (accuracy[norm, SMALL], accuracy[norm, LARGE]), norm)
            for norm in NORMS
        ),
    )


def losses(accuracy: Mapping[Place, float]) -> dict[str, float]:
    """Points of accuracy that each normaliser loses from the large batch to the small one."""
    return {f"{norm}_loses": accuracy[norm, LARGE] - accuracy[norm, SMALL] for norm in NORMS}


CLAIM = Claim(
    number=7,
    sentence="Batch norm fails with small batches, where group and layer norm do not.",
    references=(
        "Wu & He 2018, arXiv:1803.08494 (ResNet-50 on ImageNet: at batch 2, 34.7 % error with batch norm "
        "and 24.1 % with group norm)",
        "Ioffe 2017, arXiv:1702.03275 (batch renormalisation, made for small batches)",
        "Wu & Johnson 2021, arXiv:2105.07576 (part of the loss is the gap between training and inference, "
        "and better population statistics recover it)",
    ),
    predictions=(
        Prediction(
            "batch_loses",
            f"from batch {LARGE} to {SMALL}, batch norm loses at least {FAILS:g} points of test accuracy",
            "points of accuracy",
            at_least=FAILS,
        ),
        Prediction(
            "group_loses",
            f"from batch {LARGE} to {SMALL}, group norm loses at most {HOLDS:g} point",
            "points of accuracy",
            at_most=HOLDS,
        ),
        Prediction(
            "layer_loses",
            f"from batch {LARGE} to {SMALL}, layer norm loses at most {HOLDS:g} point",
            "points of accuracy",
            at_most=HOLDS,
        ),
    ),
    recipe=(
        "LeNet with ReLU, 12 passes over 600 images of Fashion-MNIST at batch 32 and at batch 2, SGD with "
        "momentum 0.9 and a cosine schedule; each normaliser and batch size at its own best rate."
    ),
    measure="Accuracy on the 10,000 test images at the end of training: at batch 32 less that at batch 2.",
    conditions=(
        "Both batch sizes see the same images as often, so that batch 2 takes 16 times as many steps, as it "
        "does in the papers. LeNet's normalisers stand behind two convolutions, where a moment of a batch of "
        "2 has hundreds of elements, and behind two linear layers, where it has 2 and batch norm keeps no "
        "more than which sample is the larger; the papers' networks have convolutions alone, and lose less."
    ),
    practice={
        "supported": (
            "With very few samples per step take group or layer norm, or let batch norm see more samples "
            "(synchronised statistics, frozen statistics in fine-tuning, batch renormalisation). A batch "
            "that memory forces down to 2 is no reason to lose accuracy."
        ),
        "not supported": (
            "At small batches measure before you decide: batch norm may or may not lose accuracy in a "
            "network such as this. Group norm is the safer choice where memory sets the batch size."
        ),
        "refuted": (
            "The batch size alone does not rule out batch norm, nor does group or layer norm alone make "
            "small batches safe. Compare them in your own network, each at its own learning rate."
        ),
    },
    plot=Plot("Accuracy by batch size", "samples per step", "test accuracy (points)", log_x=True),
    experiment=experiment,
)
