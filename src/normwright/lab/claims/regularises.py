"""Claim 6: batch norm regularises, so that dropout can go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.points import test_points
from normwright.lab.book.sides import best_of_pilots, best_setting
from normwright.lab.book.small_set import NOISY_RATES, NOISY_SAYS, on_noisy_set
from normwright.lab.run import RunResult

DROPOUTS = (0.2, 0.5, 0.7)

# Half a point: less is within what another draw of 10,000 test images would give (one standard error is 0.4
# points), which five seeds on one test set do not average out.
MATTERS = 0.5
# Below this loss a network gives every training image the right class: what is left to gain is
# generalisation, and not speed.
FITTED = 0.1

SIDES = {"none": "neither", "dropout": "dropout", "batch": "batch norm", "both": "both"}


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: test accuracy with neither, with dropout, with batch norm and with both."""
    dropouts, rates = bench.size((DROPOUTS, NOISY_RATES), (DROPOUTS[1:2], NOISY_RATES[:2]))
    settings = {
        "none": [on_noisy_set(bench, "none")],
        "dropout": [on_noisy_set(bench, "none", dropout=share) for share in dropouts],
        "batch": [on_noisy_set(bench, "batch")],
        "both": [on_noisy_set(bench, "batch", dropout=share) for share in dropouts],
    }
    flat = bench.best_rates([recipe for side in settings.values() for recipe in side], rates)
    rated = {name: [flat.pop(0) for _ in side] for name, side in settings.items()}
    sides = {name: best_setting(bench, recipes) for name, recipes in rated.items()}
    better = best_of_pilots(bench, [sides["batch"], sides["dropout"]])
    alone = "batch" if better is sides["batch"] else "dropout"
    runs = {name: vary(side, seed=seed) for name, side in sides.items()}
    results = dict(zip(runs, bench.train(*runs.values()), strict=True))
    accuracy = {name: test_points(bench, run) for name, run in runs.items()}
    names, heights = tuple(SIDES.values()), tuple(accuracy[name] for name in SIDES)
    return Trial(
        values=measures(accuracy, alone),
        series=(Series("test accuracy", names, heights),),
        notes=(
            f"The better of dropout and batch norm alone, on validation data: {SIDES[alone]}.",
            control(seed, accuracy),
            *unfitted(results),
        ),
    )


def measures(accuracy: Mapping[str, float], alone: str) -> dict[str, float]:
    """The three differences, in points.

    Args:
        accuracy: test accuracy of each side.
        alone: `batch` or `dropout`, whichever was the better alone on validation data.
    """
    return {
        "batch_gains": accuracy["batch"] - accuracy["none"],
        "dropout_can_go": accuracy["batch"] - accuracy["dropout"],
        "both_gain": accuracy["both"] - accuracy[alone],
    }


def control(seed: int, accuracy: Mapping[str, float]) -> str:
    """What dropout alone adds, without which there is nothing that a regulariser could gain."""
    gain = accuracy["dropout"] - accuracy["none"]
    said = f"Control, seed {seed}: dropout alone adds {gain:+.2f} points to neither"
    return (
        f"{said}." if gain >= MATTERS else f"{said}; so little that this seed cannot tell what regularises."
    )


def unfitted(results: Mapping[str, RunResult]) -> tuple[str, ...]:
    """A note where a network without dropout did not come to fit its training images."""
    left = [SIDES[name] for name in ("none", "batch") if np.mean(results[name].loss[-40:]) > FITTED]
    return (f"Not fitted to the training images at the end: {', '.join(left)}.",) if left else ()


CLAIM = Claim(
    number=6,
    sentence=(
        "Batch norm regularises: dropout can go, and dropout with batch norm does no better than either "
        "alone."
    ),
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167 (without dropout, Inception with batch norm does as well)",
        "Luo et al. 2018, arXiv:1809.00846 (what regularisation batch norm amounts to)",
        "Li et al. 2018, arXiv:1801.05134 (together they often do worse: dropout changes the variance "
        "between training and inference; with dropout after the last batch norm they may do better)",
    ),
    predictions=(
        Prediction(
            "batch_gains",
            f"test accuracy with batch norm is at least {MATTERS:g} points above that with neither",
            "points of accuracy",
            at_least=MATTERS,
        ),
        Prediction(
            "dropout_can_go",
            f"test accuracy with batch norm, less that with dropout, is at least {-MATTERS:g} points",
            "points of accuracy",
            at_least=-MATTERS,
        ),
        Prediction(
            "both_gain",
            f"test accuracy with both is at most {MATTERS:g} points above that of the better alone",
            "points of accuracy",
            at_most=MATTERS,
        ),
    ),
    recipe=f"{NOISY_SAYS}; dropout of 0.2, 0.5 or 0.7 after every hidden layer.",
    measure=(
        "Accuracy on the 10,000 test images, which are rightly labelled, at the end of training, when the "
        "networks without dropout fit every training image. Rate, probability of dropout and the better one "
        "alone are chosen on validation data, by runs of a seed of their own."
    ),
    conditions=(
        "A set on which regularisation has something to gain, for a network that fits every image fits the "
        "wrong labels, too: this holds only while dropout alone gains, which the notes say seed by seed. On "
        "clean labels dropout gained nothing in a small network like this, so that nothing could be told. "
        "Smaller rates are left out: at them training stops short of the wrong labels, and that regularises "
        "by itself. The claim was made for Inception on ImageNet, rightly labelled. Batch norm's noise grows "
        "as the batch shrinks: here it is of 50. Each dropout stands before the next layer's batch norm, as "
        "it does in most networks."
    ),
    practice={
        "supported": (
            "With batch norm in the network, leave dropout out at first: it costs steps and gains nothing "
            "that the noise of the batch has not brought. Try it again only after the last batch norm."
        ),
        "not supported": (
            "Do not count on batch norm as the regulariser of a small data set, and do not drop dropout "
            "unmeasured. Compare both, each at its own rate and probability, on validation data."
        ),
        "refuted": (
            "Batch norm and regularisation are two decisions: choose batch norm for its optimisation, and a "
            "regulariser by validation accuracy. Where the network can fit wrong labels, keep dropout, stop "
            "early or clean the labels, with batch norm as without it."
        ),
    },
    plot=Plot("Accuracy with dropout, batch norm, both and neither", "regulariser", "test accuracy (points)"),
    experiment=experiment,
)
