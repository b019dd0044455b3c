"""The optimiser and the schedule of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from normwright.errors import OptionError, UserCodeError, unknown_name
from normwright.lab.recipe import TrainingRecipe
from normwright.lab.user_code import is_user_code, resolve

_CLASSES: dict[str, Callable[..., Optimizer]] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


def make_optimiser(recipe: TrainingRecipe, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """SGD (with the recipe's momentum) or AdamW, with weight decay on all parameters."""
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


def optimiser_named(name: str, network: nn.Module, **settings: float | None) -> Optimizer:
    """The optimiser of a network's parameters, with PyTorch's own default for a setting that is None.

    Args:
        name: `sgd`, `adamw`, or a user's function (network) -> Optimizer.
        network: on the device where it is trained.
        settings: lr, momentum (of sgd) and weight_decay.
    Raises:
        OptionError: an unknown name; a setting that it does not take; a network without parameters.
        UserCodeError: a user's function is missing, or returns something else.
        Exception: whatever the user's code raises, unchanged.
    Example:
        >>> optimiser_named("sgd", nn.Linear(1, 1), lr=0.1, momentum=None).param_groups[0]["lr"]
        0.1
    """
    given = {setting: value for setting, value in settings.items() if value is not None}
    if is_user_code(name):
        if given:
            raise OptionError(
                f"{name} decides on {', '.join(given)} itself, but {'they' if len(given) > 1 else 'it'} came "
                "too: leave out what the function sets"
            )
        made = resolve(name)(network)
        if not isinstance(made, Optimizer):
            raise UserCodeError(
                f"{name} must return a torch.optim.Optimizer, but returned {type(made).__name__}: "
                f"{made!r:.80}"
            )
        return made
    if name not in _CLASSES:
        raise unknown_name(
            "optimiser", name, [*_CLASSES, "package.module:function", "path/to/file.py:function"]
        )
    if name == "adamw" and "momentum" in given:
        raise OptionError("adamw must come without a momentum, which it has in its betas: leave it out")
    for setting, value in given.items():
        if not math.isfinite(value):
            raise OptionError(f"{setting} must be a finite number, but is {value}")
    if not any(True for _ in network.parameters()):
        raise OptionError(
            f"{type(network).__name__} must have parameters to be trained by {name}, but has none: leave the "
            "optimiser out"
        )
    try:
        return _CLASSES[name](network.parameters(), **given)
    except ValueError as error:
        raise OptionError(f"{name} refuses its settings: {error}") from error


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
