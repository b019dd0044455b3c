"""Accuracy in points, also of a run that diverged."""

from __future__ import annotations

import math

from normwright.lab.book.bench import Bench
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult


def test_points(bench: Bench, recipe: Recipe) -> float:
    """The test accuracy of a trained network in percent; one that diverged answers by chance.

    Raises:
        NeedsRunsError: it is not trained yet.
    """
    accuracy = bench.test(recipe)
    return 100 / len(bench.data(recipe).classes) if math.isnan(accuracy) else 100 * accuracy


def validation_points(result: RunResult) -> float:
    """The last validation accuracy in percent; NaN for a run that diverged."""
    return math.nan if result.diverged or not len(result.validation) else 100 * float(result.validation[-1])
