"""The sides of a comparison: which of several settings stands for a side, and at which rate it is judged."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from normwright.lab.book.bench import PILOT_SEED, Bench, final_score, vary
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult


def best_setting(bench: Bench, recipes: Sequence[Recipe]) -> Recipe:
    """The recipe that is best on validation data, by the pilot run of each.

    Args:
        bench: whose pilot runs of these recipes are done, as they are after `best_rates`.
        recipes: one side of a comparison at several settings, each at its own best rate.
    Raises:
        NeedsRunsError: a pilot run is not done yet.
    """
    pilots = bench.train(*(vary(recipe, seed=PILOT_SEED) for recipe in recipes))
    scores = [final_score(pilot) for pilot in pilots]
    return recipes[scores.index(max(scores))]


def height_of_curve(result: RunResult) -> float:
    """Mean validation accuracy over training: the higher, the sooner a run is good."""
    return statistics.fmean(result.validation)


def rates_note(sides: Mapping[str, Recipe], rates: Sequence[float] | Mapping[str, Sequence[float]]) -> str:
    """A sentence for the reader: the learning rate at which each side was judged.

    Args:
        sides: a recipe at its best rate, by the name of its side.
        rates: those tried, for all sides or by the name of each.
    Example:
        >>> from normwright.lab.book.bench import make
        >>> plain = make("mlp", "digits", norm="none", batch_size=2, lr=0.1)
        >>> rates_note({"plain": plain, "normalised": vary(plain, lr=1.0)}, (0.01, 0.1, 1.0))
        'Learning rates: plain 0.1, normalised 1 (the largest tried).'
    """
    said = []
    for name, side in sides.items():
        tried = rates[name] if isinstance(rates, Mapping) else rates
        edges = {min(tried): " (the smallest tried)", max(tried): " (the largest tried)"}
        said.append(f"{name} {side.training.lr:g}{edges.get(side.training.lr, '')}")
    return f"Learning rates: {', '.join(said)}."
