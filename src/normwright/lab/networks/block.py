"""What every built-in network is made of: a layer, its normaliser and its activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from normwright.errors import unknown_name
from normwright.lab.recipe import ACTIVATIONS, NetworkRecipe
from normwright.nn import Maxout

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "maxout": Maxout,
}

# How many channels of what comes before make one of what comes out, where that is not one.
_PIECES = {"maxout": Maxout().pieces}


def activation(name: str) -> nn.Module:
    """A new activation with its default options; `prelu` learns one slope, `maxout` has two pieces.

    Raises:
        OptionError: a name outside `ACTIVATIONS`.
    Example:
        >>> activation("leaky_relu")
        LeakyReLU(negative_slope=0.01)
    """
    if name not in _ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return _ACTIVATIONS[name]()


def block(
    recipe: NetworkRecipe,
    width: int,
    *,
    norm: Callable[[int], nn.Module],
    dropout: bool = False,
    **layer: Callable[[int], nn.Module],
) -> nn.Sequential:
    """A layer, its normaliser and activation in the order that the recipe asks for, dropout last.

    Args:
        recipe: gives the activation, the normaliser's place, and the probability of dropout.
        width: units or channels that come out. Before maxout there are twice as many, as it takes the larger
            of every two.
        norm: makes, for so many, what stands as `norm` before or after `activation`.
        dropout: ends the block with dropout, if the recipe asks for any.
        layer: makes one layer that gives so many, under the name that it is to have in the block.
    Example:
        >>> recipe = NetworkRecipe(name="mlp", place="after")
        >>> made = block(recipe, 3, linear=lambda width: nn.Linear(4, width), norm=nn.BatchNorm1d)
        >>> list(dict(made.named_children()))
        ['linear', 'activation', 'norm']
    """
    wide = width * _PIECES.get(recipe.activation, 1)
    parts = [(name, make(wide)) for name, make in layer.items()]
    if recipe.place == "after":
        parts += [("activation", activation(recipe.activation)), ("norm", norm(width))]
    else:
        parts += [("norm", norm(wide)), ("activation", activation(recipe.activation))]
    if dropout:
        parts += dropout_part(recipe)
    return nn.Sequential(OrderedDict(parts))


def dropout_part(recipe: NetworkRecipe) -> list[tuple[str, nn.Module]]:
    """The named dropout of a recipe, or nothing: at probability 0 it would still draw random numbers."""
    return [("dropout", nn.Dropout(recipe.dropout))] if recipe.dropout else []
