"""The bench of an experiment: trains what it asks for, once, and keeps it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from normwright.errors import StoreError, unknown_name
from normwright.lab.book.choice import Choice
from normwright.lab.data import Data
from normwright.lab.grid import make_base
from normwright.lab.judge import final_metric
from normwright.lab.recipe import DataRecipe, Recipe
from normwright.lab.run import RunResult
from normwright.lab.store import Store
from normwright.lab.training import build, evaluate, load_once, reproducible

# Learning rates are chosen by runs of other seeds than those that are judged.
PILOT_SEED = 1_000

T = TypeVar("T")
Score = Callable[[RunResult], float]


class NeedsRunsError(Exception):
    """An experiment asked for runs that are not done yet: a request, which the book serves."""

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        super().__init__(f"{len(recipes)} runs are to be done first")
        self.recipes = tuple(recipes)


class Bench:
    """What an experiment has at hand.

    `train` gives results from the store. Where a run is not done yet it raises `NeedsRunsError`; the book
    trains what all experiments asked for, several at a time, and calls them again. Training calls come first,
    as many recipes in one call as can be, and an experiment is called a few times over.

    Args:
        store: of the book's folder.
        directory: where data files are looked for first.
        quick: the reduced size.
        digests: of the data sets that were read, which the benches of a book share; filled in.
    """

    def __init__(
        self,
        store: Store,
        *,
        directory: Path | None = None,
        quick: bool = False,
        digests: dict[DataRecipe, str] | None = None,
    ) -> None:
        self.quick = quick
        self.used: dict[str, Recipe] = {}
        self.choices: list[Choice] = []
        self._store = store
        self._directory = directory
        self._digests = {} if digests is None else digests

    def size(self, full: T, quick: T) -> T:
        """The full size of something, or the quick one."""
        return quick if self.quick else full

    def data(self, recipe: Recipe) -> Data:
        """The data set of a recipe."""
        return load_once(self._named(recipe).data, self._directory)

    def train(self, *recipes: Recipe) -> tuple[RunResult, ...]:
        """The result of each recipe.

        Raises:
            NeedsRunsError: some are not done yet.
        """
        named = [self._named(recipe) for recipe in recipes]
        self.used |= {recipe.hash: recipe for recipe in named}
        results = [self._store.result(recipe.hash) for recipe in named]
        missing = [recipe for recipe, result in zip(named, results, strict=True) if result is None]
        if missing:
            raise NeedsRunsError(missing)
        return tuple(result for result in results if result is not None)

    def best_rates(
        self,
        recipes: Sequence[Recipe],
        rates: Sequence[float],
        *,
        score: Score | None = None,
        pilots: int = 1,
        purpose: str = "",
    ) -> list[Recipe]:
        """Each recipe with the learning rate that is best for it, chosen on validation data.

        The pilot runs have seeds of their own, the same for every seed that is judged. The rate at which
        fewest diverge wins; among equals, that of the greatest mean score.

        Args:
            recipes: the sides of a comparison.
            rates: learning rates.
            score: of a run that did not diverge, greater is better; by default the last validation metric.
            pilots: runs of each rate.
            purpose: see `Choice`, which the bench keeps of each side.
        Raises:
            NeedsRunsError: some pilot runs are not done yet.
        """
        trials = [
            [[vary(recipe, lr=rate, seed=PILOT_SEED + i) for i in range(pilots)] for rate in rates]
            for recipe in recipes
        ]
        results = iter(self.train(*(run for side in trials for runs in side for run in runs)))
        best = []
        for recipe, side in zip(recipes, trials, strict=True):
            scores = {
                rate: _score([next(results) for _ in runs], score or final_score)
                for rate, runs in zip(rates, side, strict=True)
            }
            best.append(vary(recipe, lr=max(scores, key=scores.__getitem__)))
            self.choices.append(Choice(best[-1], scores, purpose))
        return best

    def network(self, recipe: Recipe) -> nn.Module:
        """The trained network of a recipe, in training mode; on the CPU.

        That of a run that diverged has the weights it ended with, which may not be finite.

        Raises:
            NeedsRunsError: it is not trained yet, or its checkpoint is lost or half-written.
        """
        named = self._named(recipe)
        self.train(recipe)
        try:
            weights = self._store.load_checkpoint(named.hash)
        except StoreError as lost:
            self._store.reopen(named.hash)
            raise NeedsRunsError([named]) from lost
        with reproducible(named.training):
            network = build(named, self.data(named)).module
        network.load_state_dict(weights)
        return network

    def test(self, recipe: Recipe) -> float:
        """The metric of a trained network on the test set, taken once and kept; NaN for one that diverged."""
        named = self._named(recipe)
        (result,) = self.train(recipe)
        if result.diverged:
            return math.nan
        value = self._store.test(named.hash)
        if value is None:
            data = self.data(named)
            with reproducible(named.training):
                value = evaluate(self.network(named), data.test_x, data.test_y, named.training.metric)
            self._store.record_test(named.hash, value)
        return value

    def _named(self, recipe: Recipe) -> Recipe:
        """The recipe with what its data are; a data set is read once to know it."""
        plain = dataclasses.replace(recipe.data, digest="")
        if plain not in self._digests:
            self._digests[plain] = load_once(plain, self._directory).digest
        return dataclasses.replace(recipe, data=dataclasses.replace(plain, digest=self._digests[plain]))


def make(network: str, data: str, **options: Any) -> Recipe:
    """A recipe from flat options, without records of its layers unless `records` asks for them.

    Example:
        >>> make("mlp", "digits", norm="none", batch_size=2, lr=1.0).training.records
        0
    """
    return make_base(network, data, **{"records": 0, "lr": 1.0, **options})


def vary(recipe: Recipe, **options: Any) -> Recipe:
    """The recipe with other values of some options, each in the part that has it.

    Raises:
        OptionError: no part has an option of that name, or its value is not allowed.
    Example:
        >>> vary(make("mlp", "digits", norm="none", batch_size=2), norm="batch", depth=3).network.depth
        3
    """
    parts: dict[str, dict[str, Any]] = {"network": {}, "data": {}, "training": {}}
    known = {
        field.name: part
        for part in parts
        for field in dataclasses.fields(getattr(recipe, part))
        if field.name not in ("name", "digest")
    }
    for option, value in options.items():
        if option not in known:
            raise unknown_name("option", option, sorted(known))
        parts[known[option]][option] = value
    changed = {part: dataclasses.replace(getattr(recipe, part), **new) for part, new in parts.items()}
    return dataclasses.replace(recipe, **changed)


def final_score(result: RunResult) -> float:
    """The last validation metric; below all others for a run that diverged."""
    final = final_metric(result)
    return -math.inf if final is None else final


def _score(results: Sequence[RunResult], score: Score) -> tuple[int, float]:
    alive = [score(result) for result in results if not result.diverged]
    return len(alive), statistics.fmean(alive) if alive else -math.inf
