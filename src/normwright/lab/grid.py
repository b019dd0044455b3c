"""The runs of a comparison: every normaliser at every batch size, learning rate and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normwright.errors import OptionError, unknown_name
from normwright.lab.machine import clock_of
from normwright.lab.recipe import NORMS, DataRecipe, NetworkRecipe, Recipe, TrainingRecipe


@dataclass(frozen=True)
class Grid:
    """What a comparison varies, around one recipe that it keeps.

    Args:
        base: the recipe that every run shares but for what follows.
        norms: of `NORMS`; the order of the table.
        batch_sizes: samples per step.
        lrs: each normaliser is judged at the best of them.
        seeds: how many; 0, 1, …
    Raises:
        OptionError: an axis is empty, holds a value twice or one that no recipe allows.
    """

    base: Recipe
    norms: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    lrs: tuple[float, ...]
    seeds: int

    def __post_init__(self) -> None:
        for name in self.norms:
            if name not in NORMS:
                raise unknown_name("normaliser", name, NORMS)
        axes: dict[str, Sequence[object]] = {
            "norms": self.norms,
            "batch sizes": self.batch_sizes,
            "learning rates": self.lrs,
        }
        for what, values in axes.items():
            if not values:
                raise OptionError(f"there must be at least one of the {what}, but none came")
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise OptionError(f"the {what} must differ, but {twice[0]!r} came {len(twice)} times")
        if not isinstance(self.seeds, int) or self.seeds < 1:
            raise OptionError(f"seeds must be at least 1 and a whole number, but is {self.seeds!r}")
        for norm, batch_size, lr in (
            (n, b, r) for n in self.norms for b in self.batch_sizes for r in self.lrs
        ):
            self.recipe(norm, batch_size, lr, 0)

    @property
    def clock(self) -> str:
        """By which its runs are timed now."""
        return clock_of(self.base.training.device, self.base.training.threads)

    def recipe(self, norm: str, batch_size: int, lr: float, seed: int) -> Recipe:
        """One run."""
        training = dataclasses.replace(self.base.training, norm=norm, batch_size=batch_size, lr=lr, seed=seed)
        return dataclasses.replace(self.base, training=training)

    def seeds_of(self, norm: str, batch_size: int, lr: float) -> list[Recipe]:
        """The runs that differ in the seed alone."""
        return [self.recipe(norm, batch_size, lr, seed) for seed in range(self.seeds)]

    def recipes(self) -> list[Recipe]:
        """Every run, seed by seed, so that a comparison that is stopped early has seen all normalisers."""
        return [
            self.recipe(norm, batch_size, lr, seed)
            for seed in range(self.seeds)
            for batch_size in self.batch_sizes
            for lr in self.lrs
            for norm in self.norms
        ]


# Every option of a recipe, and the part that has it.
OPTIONS: dict[str, type] = {
    field.name: part
    for part in (NetworkRecipe, DataRecipe, TrainingRecipe)
    for field in dataclasses.fields(part)
    if field.name not in ("name", "digest")
}


def make_base(network: str, data: str, **options: object) -> Recipe:
    """A recipe from flat options; each goes to the part (network, data, training) that has it.

    Raises:
        OptionError: no part has an option of that name, or its value is not allowed.
    Example:
        >>> make_base("mlp", "digits", norm="none", batch_size=2, lr=1.0, depth=3).network.depth
        3
    """
    parts: dict[type, dict[str, Any]] = {
        NetworkRecipe: {"name": network},
        DataRecipe: {"name": data},
        TrainingRecipe: {},
    }
    for option, value in options.items():
        if option not in OPTIONS:
            raise unknown_name("option", option, sorted(OPTIONS))
        parts[OPTIONS[option]][option] = value
    return Recipe(
        network=NetworkRecipe(**parts[NetworkRecipe]),
        data=DataRecipe(**parts[DataRecipe]),
        training=TrainingRecipe(**parts[TrainingRecipe]),
    )
