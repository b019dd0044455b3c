"""The order of a layer, its normaliser, its activation and dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwright.errors import OptionError
from normwright.lab.networks.block import activation, block
from normwright.lab.recipe import ACTIVATIONS, NetworkRecipe


def convolution(width: int) -> nn.Conv2d:
    return nn.Conv2d(1, width, 3)


@pytest.mark.parametrize(
    ("place", "dropout", "order"),
    [
        ("before", 0.0, ["conv", "norm", "activation"]),
        ("after", 0.0, ["conv", "activation", "norm"]),
        ("before", 0.2, ["conv", "norm", "activation", "dropout"]),
        ("after", 0.2, ["conv", "activation", "norm", "dropout"]),
    ],
)
def test_order(place: str, dropout: float, order: list[str]) -> None:
    recipe = NetworkRecipe(name="lenet", place=place, dropout=dropout)
    made = block(recipe, 2, conv=convolution, norm=nn.BatchNorm2d, dropout=True)
    assert [name for name, _ in made.named_children()] == order


def test_a_block_drops_nothing_unless_told() -> None:
    recipe = NetworkRecipe(name="lenet", dropout=0.2)
    made = block(recipe, 2, conv=convolution, norm=nn.BatchNorm2d)
    assert [name for name, _ in made.named_children()] == ["conv", "norm", "activation"]


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_as_many_channels_come_out_as_were_asked_for(name: str, place: str) -> None:
    recipe = NetworkRecipe(name="lenet", activation=name, place=place)
    made = block(recipe, 3, conv=convolution, norm=nn.BatchNorm2d)
    assert made(torch.randn(2, 1, 5, 5)).shape == (2, 3, 3, 3)
    assert made.conv.out_channels == (6 if name == "maxout" else 3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_the_recipe_is_made_anew(name: str) -> None:
    assert type(activation(name)).__name__.lower() == name.replace("_", "")
    assert activation(name) is not activation(name)


def test_an_unknown_activation_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'relu'"):
        activation("relux")
