"""Chosen learning rates: what a side was judged at, and whether the rates tried went far enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normwright.lab.book.side_names import side_names
from normwright.lab.recipe import Recipe

SMALLEST, LARGEST = "smallest", "largest"
RISING, LEVEL, ALIKE = "rising", "level", "alike"

# A point of accuracy. The standard error of an accuracy near a half is as large on 2,500 validation images.
_CHANCE = 0.01

Score = tuple[int, float]
"""How many pilot runs of a rate lasted, and their mean score: the greatest of them is chosen."""


@dataclass(frozen=True)
class Choice:
    """Whatever chooses a rate tells the bench this.

    Args:
        recipe: the side, at the chosen rate.
        scores: of every rate tried.
        purpose: what it was chosen for, such as "for speed", where one side has a rate for each of several.
    """

    recipe: Recipe
    scores: Mapping[float, Score]
    purpose: str = ""

    @property
    def edge(self) -> str:
        """`SMALLEST` or `LARGEST`, where the rate is that of several that were tried; else ""."""
        if len(self.scores) == 1:
            return ""
        ends = {min(self.scores): SMALLEST, max(self.scores): LARGEST}
        return ends.get(self.recipe.training.lr, "")

    @property
    def trend(self) -> str:
        """What the scores say of that choice.

        `ALIKE` where all rates score the same, but for chance; else, at an edge, `RISING` where its score
        stands out from that of the rate beside it, so that one beyond might be better, or `LEVEL`.
        """
        best, rates = self.scores[self.recipe.training.lr], sorted(self.scores)
        if len(rates) > 1 and all(_alike(best, score) for score in self.scores.values()):
            return ALIKE
        if not self.edge:
            return ""
        beside = rates[1] if self.edge == SMALLEST else rates[-2]
        return LEVEL if _alike(best, self.scores[beside]) else RISING


@dataclass(frozen=True)
class ChosenRate:
    """A choice as plain values, which a trial keeps.

    Args:
        side: its name, by what tells it from the others.
        rate: the learning rate at which it was judged.
        tried: all that it was chosen from, rising.
        edge, trend: see `Choice`.
    """

    side: str
    rate: float
    tried: tuple[float, ...]
    edge: str
    trend: str


def chosen_rates(choices: Sequence[Choice]) -> tuple[ChosenRate, ...]:
    """The choices in their order, each once, under names that tell the sides apart."""
    names = side_names([(choice.recipe, choice.purpose) for choice in choices])
    found = (
        ChosenRate(name, choice.recipe.training.lr, tuple(sorted(choice.scores)), choice.edge, choice.trend)
        for name, choice in zip(names, choices, strict=True)
    )
    return tuple(dict.fromkeys(found))


def _alike(one: Score, other: Score) -> bool:
    if one[0] != other[0]:
        return False
    return one[1] == other[1] or abs(one[1] - other[1]) <= _CHANCE
