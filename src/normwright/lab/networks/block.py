"""What every built-in network is made of: a layer, its normaliser and its activation."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from normwright.errors import unknown_name
from normwright.lab.recipe import ACTIVATIONS, NetworkRecipe

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
}


def activation(name: str) -> nn.Module:
    """A new activation with PyTorch's default options; `prelu` learns one slope.

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
    recipe: NetworkRecipe, *, norm: nn.Module, dropout: bool = False, **layer: nn.Module
) -> nn.Sequential:
    """A layer, its normaliser and activation in the order that the recipe asks for, dropout last.

    Args:
        recipe: gives the activation, the normaliser's place, and the probability of dropout.
        norm: stands as `norm` before or after `activation`.
        dropout: ends the block with dropout, if the recipe asks for any.
        layer: one layer, under the name that it is to have in the block.
    Example:
        >>> recipe = NetworkRecipe(name="mlp", place="after")
        >>> list(dict(block(recipe, linear=nn.Linear(4, 3), norm=nn.BatchNorm1d(3)).named_children()))
        ['linear', 'activation', 'norm']
    """
    last_two = [("norm", norm), ("activation", activation(recipe.activation))]
    if recipe.place == "after":
        last_two.reverse()
    parts = [*layer.items(), *last_two]
    if dropout:
        parts += dropout_part(recipe)
    return nn.Sequential(OrderedDict(parts))


def dropout_part(recipe: NetworkRecipe) -> list[tuple[str, nn.Module]]:
    """The named dropout of a recipe, or nothing: at probability 0 it would still draw random numbers."""
    return [("dropout", nn.Dropout(recipe.dropout))] if recipe.dropout else []
