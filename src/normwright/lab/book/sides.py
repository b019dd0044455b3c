"""The sides of a comparison: which of several settings stands for a side, and at which rate it is judged."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from normwright.lab.book.bench import PILOT_SEED, Bench, final_score, vary
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult


def best_setting(bench: Bench, recipes: Sequence[Recipe]) -> Recipe:
    """The setting that stands for a side; the bench forgets the rates of the others, which are not judged.

    Args:
        bench: see `best_of_pilots`.
        recipes: one side of a comparison at several settings, each at its own best rate.
    Raises:
        NeedsRunsError: a pilot run is not done yet.
    """
    best = best_of_pilots(bench, recipes)
    others = [recipe for recipe in recipes if recipe != best]
    bench.choices = [choice for choice in bench.choices if choice.recipe not in others]
    return best


def best_of_pilots(bench: Bench, recipes: Sequence[Recipe]) -> Recipe:
    """The recipe that is best on validation data, by the pilot run of each.

    Args:
        bench: whose pilot runs of these recipes are done, as they are after `best_rates`.
        recipes: each at its own best rate.
    Raises:
        NeedsRunsError: a pilot run is not done yet.
    """
    pilots = bench.train(*(vary(recipe, seed=PILOT_SEED) for recipe in recipes))
    scores = [final_score(pilot) for pilot in pilots]
    return recipes[scores.index(max(scores))]


def height_of_curve(result: RunResult) -> float:
    """Mean validation accuracy over training: the higher, the sooner a run is good."""
    return statistics.fmean(result.validation)
