"""Short names for the sides of a comparison: the options that tell them apart, and no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from normwright.lab.recipe import Recipe
from normwright.lab.verdict import NAMES

_NETWORKS = {"mlp": "MLP", "lenet": "LeNet", "vgg": "VGG", "resnet20": "ResNet-20", "lstm": "LSTM"}
_ACTIVATIONS = {"relu": "ReLU", "leaky_relu": "leaky ReLU", "prelu": "PReLU", "rrelu": "RReLU"}
_STARTS = {"xavier": "Xavier", "kaiming": "Kaiming"}

# In the order in which they are looked at, and said. All others come behind, but for the rate and the seed.
_WORDS: Mapping[str, Callable[[Any], str]] = {
    "network": lambda name: _NETWORKS.get(name, name.rpartition(":")[2].replace("_", " ")),
    "depth": lambda count: f"{count} layer{'' if count == 1 else 's'}",
    "width": lambda count: f"{count} units",
    "activation": lambda name: _ACTIVATIONS.get(name, name),
    "initialisation": lambda name: f"{_STARTS.get(name, name)} start",
    "init_std": lambda deviation: f"initial deviation {deviation:g}",
    "norm": lambda name: NAMES[name],
    "place": lambda place: f"{place} the activation",
    "affine": lambda has: f"{'with' if has else 'without'} weight and bias",
    "dropout": lambda share: f"dropout {share:g}" if share else "no dropout",
    "weight_decay": lambda decay: f"weight decay {decay:g}" if decay else "no weight decay",
    "batch_size": lambda size: f"batch {size}",
    "shuffle": lambda new: "reshuffled" if new else "fixed batches",
    "samples": lambda count: f"{count:,} samples" if count else "all samples",
}
_NO_OPTIONS = ("name", "digest", "lr", "seed")


def side_names(sides: Sequence[tuple[Recipe, str]]) -> list[str]:
    """A name for each side.

    An option is named where it tells sides apart that no option before it does; so names stay short where
    sides differ in much that goes together. One side alone has the name of its normaliser.

    Args:
        sides: recipes, whatever their rates and seeds, and what a rate was chosen for, or "".
    Example:
        >>> from normwright.lab.book.bench import make
        >>> pairs = [("none", 2), ("batch", 2), ("batch", 8)]
        >>> side_names([(make("mlp", "digits", norm=norm, batch_size=size), "") for norm, size in pairs])
        ['no normaliser, batch 2', 'batch norm, batch 2', 'batch norm, batch 8']
    """
    options = [{**_options(recipe), "purpose": purpose} for recipe, purpose in sides]
    telling: list[str] = []
    for name in dict.fromkeys((*_WORDS, *(name for side in options for name in side))):
        if _kinds(options, [*telling, name]) > _kinds(options, telling):
            telling.append(name)
    said = [[_word(name, side[name]) for name in telling or ["norm"]] for side in options]
    return [", ".join(filter(None, words)) for words in said]


def _options(recipe: Recipe) -> dict[str, Any]:
    named = {"network": recipe.network.name, "data": recipe.data.name}
    for part in (recipe.network, recipe.data, recipe.training):
        named |= {k: v for k, v in dataclasses.asdict(part).items() if k not in _NO_OPTIONS}
    return named


def _kinds(options: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int:
    """How many kinds of sides these options tell apart."""
    return len({tuple(side[name] for name in names) for side in options})


def _word(name: str, value: Any) -> str:
    if name in _WORDS:
        return _WORDS[name](value)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return shown if name == "purpose" else f"{name.replace('_', ' ')} {shown}"
