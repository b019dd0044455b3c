"""A side of a comparison, with learning rates of its own to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normwright.lab.book.bench import PILOT_SEED, Bench, Score, vary
from normwright.lab.recipe import Recipe


@dataclass(frozen=True)
class Entrant:
    """One side, and the learning rates that it may choose from."""

    recipe: Recipe
    rates: tuple[float, ...]

    def pilots(self) -> dict[float, Recipe]:
        """Its pilot run at each rate."""
        return {rate: vary(self.recipe, lr=rate, seed=PILOT_SEED) for rate in self.rates}


def best_of(bench: Bench, entrants: Sequence[Entrant], *, score: Score | None = None) -> list[Recipe]:
    """Each side at the best of its own rates; see `Bench.best_rates`, which gives all sides the same ones.

    Args:
        bench: trains the pilot runs.
        entrants: the sides.
        score: see `Bench.best_rates`.
    Raises:
        NeedsRunsError: some pilot runs are not done yet; those of all sides are asked for at once.
    """
    bench.train(*(run for side in entrants for run in side.pilots().values()))
    return [bench.best_rates([side.recipe], side.rates, score=score)[0] for side in entrants]
