"""The optimiser and the schedule of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.optim.lr_scheduler import LambdaLR

from normwright.lab.recipe import TrainingRecipe


def make_optimiser(recipe: TrainingRecipe, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """SGD (with the recipe's momentum) or AdamW, with weight decay on all parameters."""
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


def make_schedule(recipe: TrainingRecipe, optimiser: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """The learning rate over `steps` steps, to be advanced after each of them."""
    return LambdaLR(optimiser, lambda step: lr_factor(recipe, step, steps))


def lr_factor(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step, counted from 0.

    `constant` is 1. `cosine` rises linearly over the first `warmup` share of the steps, reaches 1 and
    falls to 0 along half a cosine.

    Example:
        >>> recipe = TrainingRecipe(norm="none", batch_size=1, lr=1.0, schedule="cosine", warmup=0.5)
        >>> [round(lr_factor(recipe, step, 4), 3) for step in range(5)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if recipe.schedule == "constant":
        return 1.0
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
