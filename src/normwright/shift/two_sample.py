"""A classifier is asked to tell two sets of rows apart: how well it can, and whether chance explains that.

The rows are dealt into folds. For the size of the difference, each fold is answered by a classifier that was
taught from all others. For the p-value that would not do: the classifier of one fold is taught from the rows
that another is tested on, so that the folds' results hang together, and permuting the labels of fixed
answers takes too narrow a spread for chance. (For scores linear in the rows the true variance is double, and
a level of 5 % becomes one of 12 %.) Teaching again for every permutation would be exact and costs a thousand
fits.

So the p-value comes from a chain: fold k is answered by a classifier that was taught from folds 0 … k − 1
alone. Given those folds, the order of the labels within fold k is pure chance where both sets come from one
distribution, so that permuting them is exact, without teaching again; and p-values each of which is valid
given all before it may be joined by Fisher's rule. The last classifier of the chain is one of the others', so
that this costs three fits in addition to five.

References:
    Lopez-Paz & Oquab 2017, "Revisiting Classifier Two-Sample Tests", arXiv:1610.06545.
    Kim, Ramdas, Singh & Wasserman 2021, "Classification accuracy as a proxy for two-sample testing",
    arXiv:1602.02210.
    Bengio & Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from normwright.errors import DataError
from normwright.shift.chance import joined_p, permutation_p
from normwright.shift.classifier import Classifier
from normwright.shift.columns import Coded
from normwright.shift.folds import dealt
from normwright.shift.measures import auc_interval, auc_of, mcc_interval, mcc_of

FOLDS = 5

LEAST = 20
"""The fewest rows of a set. Ten rows of each, told apart without an error, have a p-value of about 0.07."""


@dataclass(frozen=True)
class Separation:
    """How well two sets can be told apart.

    Args:
        mcc, auc: of answers to rows that the classifier was not taught from; 0 and 0.5 by chance, 1 at best.
        mcc_interval, auc_interval: of 95 %.
        p_value: how likely both sets, if they came from one distribution, would rank as far apart.
    """

    mcc: float
    mcc_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True, eq=False)
class Taught:
    """A classifier, and the rows that it was not taught from.

    Args:
        classifier: see there.
        rows: (M,), their places.
        scores: (M,), what it gives for them.
    """

    classifier: Classifier
    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


def separated(
    data: Coded, *, seed: int, on_stage: Callable[[str], None] = lambda sentence: None
) -> tuple[Separation, list[Taught]]:
    """How well a classifier tells the sets apart, and its parts, one for each fold.

    Args:
        data: both sets.
        seed: of the folds, the classifiers and the permutations.
        on_stage: told of each fit.
    Raises:
        DataError: a set has fewer than `LEAST` rows.
    """
    current = data.current
    for name, rows in (("reference", int((~current).sum())), ("current", int(current.sum()))):
        if rows < LEAST:
            raise DataError(
                f"the {name} set must have at least {LEAST} rows to be judged, but has {rows}: with fewer, "
                "even sets without anything in common could hardly be told from chance. Collect more"
            )
    generator = np.random.default_rng(seed)
    fold = dealt(data.keys, FOLDS, generator)
    fits = 2 * FOLDS - 2

    def taught(from_: npt.NDArray[np.bool_], asked: int, number: int) -> Taught | None:
        on_stage(f"classifier {number} of {fits}")
        if not from_.any() or current[from_].all() or not current[from_].any():
            return None
        classifier = Classifier(data.codes[from_], current[from_], data.categories, seed)
        rows = np.flatnonzero(fold == asked)
        return Taught(classifier, rows, classifier.scores(data.codes[rows]))

    # With one thread, the same seed gives the same numbers whatever the cores; and on cores that others use,
    # scikit-learn's threads wait for each other for longer than they work.
    with threadpool_limits(1, user_api="openmp"):
        crossed = [taught(fold != k, k, k + 1) for k in range(FOLDS)]
        chain = [taught(fold < k, k, FOLDS + k) for k in range(1, FOLDS - 1)] + crossed[-1:]
    answered = [part for part in crossed if part is not None]
    return _separation(answered, [part for part in chain if part is not None], current, generator), answered


def _separation(
    crossed: list[Taught], chain: list[Taught], current: npt.NDArray[np.bool_], generator: np.random.Generator
) -> Separation:
    rows = np.concatenate([part.rows for part in crossed])
    answers = np.concatenate([part.scores for part in crossed]) > 0
    truth = current[rows]
    positives, negatives = int(truth.sum()), int((~truth).sum())
    found, kept = float(answers[truth].mean()), float((~answers[~truth]).mean())
    # Within each fold, because the scores of two classifiers have no common scale.
    weighed = [
        (auc_of(part.scores, labels), float(labels.sum() * (~labels).sum()))
        for part in crossed
        if (labels := current[part.rows]).any() and not labels.all()
    ]
    auc = sum(value * weight for value, weight in weighed) / sum(weight for _, weight in weighed)
    p_values = [
        permutation_p(part.scores, labels, generator)
        for part in chain
        if (labels := current[part.rows]).any() and not labels.all()
    ]
    return Separation(
        mcc_of(found, kept),
        mcc_interval(found, kept, positives, negatives, generator),
        auc,
        auc_interval(auc, positives, negatives),
        joined_p(p_values),
    )
