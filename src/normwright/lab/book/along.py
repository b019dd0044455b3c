"""Trains a recipe once more in this process, to look at its network on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

from torch import nn

from normwright.doctor.random_states import random_states_kept
from normwright.lab.book.bench import Bench
from normwright.lab.recipe import Recipe
from normwright.lab.training import Run, build, reproducible, used_samples

Look = Callable[[int, nn.Module], None]


class _SeenAllError(Exception):
    """There is nothing left to look at."""


def look_along(bench: Bench, recipe: Recipe, steps: Collection[int], look: Look) -> None:
    """Trains as the book trains, and calls look(step, network) after each of some steps.

    The network is a copy, in training mode; whatever is done to it, and whatever is drawn meanwhile, leaves
    the run alone. Training ends at the last of the steps, or where the run diverges.

    Args:
        bench: gives the data.
        recipe: what is trained.
        steps: numbers of training steps done; 0 is the network before the first.
        look: called in their order.
    """
    data = used_samples(recipe.training, bench.data(recipe))

    def shown(done: int) -> None:
        with random_states_kept():
            look(done, copy.deepcopy(run.network))

    def on_step(done: int, total: int) -> None:
        if done in steps:
            shown(done)
        if done == max(steps):
            raise _SeenAllError

    with reproducible(recipe.training):
        run = Run(recipe.training, build(recipe, data), data)
        if 0 in steps:
            shown(0)
        try:
            if max(steps) > 0:
                run.train(on_step)
        except _SeenAllError:
            pass
