"""From a recipe to a network that is ready to be trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from normwright.errors import unknown_name
from normwright.lab.initialise import initialise
from normwright.lab.networks import lenet, lstm, mlp, resnet20, vgg
from normwright.lab.networks.user_network import build_user_network
from normwright.lab.placement import Placement, place
from normwright.lab.recipe import NetworkRecipe
from normwright.lab.user_code import is_user_code, resolve

BUILDERS: dict[str, Callable[[NetworkRecipe, tuple[int, ...], int], nn.Module]] = {
    "mlp": mlp.build,
    "lenet": lenet.build,
    "vgg": vgg.build,
    "resnet20": resnet20.build,
    "lstm": lstm.build,
}


@dataclass(frozen=True)
class BuiltNetwork:
    """A network, and where its normalisers stand."""

    module: nn.Module
    placement: Placement


def build_network(
    recipe: NetworkRecipe,
    norm: str,
    sample_shape: tuple[int, ...],
    classes: int,
    *,
    function: Callable[..., Any] | None = None,
) -> BuiltNetwork:
    """Builds a network, fills its weights and puts a normaliser in every place.

    The weights are drawn from PyTorch's global generator: seed it before. They do not depend on `norm`,
    nor does the state in which the generator is left, so that runs with one seed differ in
    the normaliser alone. Without a normaliser the same places hold `nn.Identity`.

    Args:
        recipe: a built-in network or a user's function, and how it is built.
        norm: one of `NORMS`.
        sample_shape: shape of one sample, without the batch axis.
        classes: how many outputs.
        function: the user's function, instead of the one that the recipe names.
    Returns:
        The network, in training mode, on the device where it was built.
    Raises:
        OptionError: an unknown network; a normaliser that the network has no place for.
        ShapeError: samples that a built-in network cannot take.
        UserCodeError: a user's function is missing or returns the wrong thing.
    Example:
        >>> built = build_network(NetworkRecipe(name="mlp", depth=2), "layer", (1, 8, 8), 10)
        >>> built.placement.places
        ('hidden1.norm', 'hidden2.norm')
    """
    module = _build(recipe, sample_shape, classes, function)
    initialise(module, recipe.initialisation, recipe.init_std)
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    example = torch.zeros(2, *sample_shape, device=device)
    placement = place(
        module,
        norm,
        example,
        groups=recipe.groups,
        ghost_size=recipe.ghost_size,
        affine=recipe.affine,
    )
    return BuiltNetwork(module.train(), placement)


def _build(
    recipe: NetworkRecipe, sample_shape: tuple[int, ...], classes: int, function: Callable[..., Any] | None
) -> nn.Module:
    if function is not None:
        return build_user_network(function, recipe.name, sample_shape, classes)
    if recipe.name in BUILDERS:
        return BUILDERS[recipe.name](recipe, sample_shape, classes)
    if not is_user_code(recipe.name):
        raise unknown_name(
            "network", recipe.name, [*BUILDERS, "package.module:function", "path/to/file.py:function"]
        )
    return build_user_network(resolve(recipe.name), recipe.name, sample_shape, classes)
