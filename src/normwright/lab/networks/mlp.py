"""A multilayer perceptron of any depth and width."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial

from torch import nn

from normwright.lab.networks.block import block
from normwright.lab.recipe import NetworkRecipe


def build(recipe: NetworkRecipe, sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """`depth` hidden layers of `width` units, each with a normaliser, then a linear output.

    Args:
        recipe: depth, width, activation, place and dropout (after every hidden layer) count.
        sample_shape: any; a sample is flattened.
        classes: how many outputs.
    Returns:
        A network (N, *sample_shape) -> (N, classes) of `flatten`, `hidden1`, …, `output`.
    Example:
        >>> network = build(NetworkRecipe(name="mlp", depth=2), (1, 8, 8), 10)
        >>> [name for name, _ in network.named_children()]
        ['flatten', 'hidden1', 'hidden2', 'output']
    """
    sizes = [math.prod(sample_shape)] + [recipe.width] * recipe.depth
    hidden = {
        f"hidden{i}": block(
            recipe, sizes[i], linear=partial(nn.Linear, sizes[i - 1]), norm=nn.BatchNorm1d, dropout=True
        )
        for i in range(1, recipe.depth + 1)
    }
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    parts.update(hidden)
    parts["output"] = nn.Linear(recipe.width, classes)
    return nn.Sequential(parts)
