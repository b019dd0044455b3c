"""An LSTM that reads an image row by row."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from normwright.lab.networks.block import dropout_part
from normwright.lab.networks.images import image_shape
from normwright.lab.recipe import NetworkRecipe


def build(recipe: NetworkRecipe, sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """`depth` LSTM layers of `width` units, a normaliser after each, a linear output from the last row.

    An image (C, H, W) is a sequence of H steps with C·W features. The normalisers take every step of
    every sample as one sample: the statistics of batch norm run over samples and steps alike. (Those of
    recurrent-batch and recurrent-layer are taken inside of the LSTMs, step by step.) The recipe's activation
    and place have no meaning here, as an LSTM has its own gates.

    Args:
        recipe: depth, width and dropout (after every normaliser) count.
        sample_shape: (channels, height, width).
        classes: how many outputs.
    Returns:
        A network (N, *sample_shape) -> (N, classes) of `rows`, `layer1`, …, `last`, `output`.
    Raises:
        ShapeError: samples that are not images.
    """
    channels, _, pixels = image_shape("lstm", sample_shape)
    parts: OrderedDict[str, nn.Module] = OrderedDict(rows=ImageRows())
    features = channels * pixels
    for i in range(1, recipe.depth + 1):
        parts[f"layer{i}"] = NormalisedLSTM(recipe, features, recipe.width)
        features = recipe.width
    parts["last"] = LastStep()
    parts["output"] = nn.Linear(features, classes)
    return nn.Sequential(parts)


class ImageRows(nn.Module):
    """Images as sequences of their rows."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> (N, H, C·W)."""
        return x.transpose(1, 2).flatten(2)


class NormalisedLSTM(nn.Module):
    """One LSTM layer, a normaliser over its outputs as (N·T, width), and dropout."""

    def __init__(self, recipe: NetworkRecipe, features: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, width, batch_first=True)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Sequential(OrderedDict(dropout_part(recipe)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, features) -> (N, T, width)."""
        y, _ = self.lstm(x)
        rows: Tensor = self.dropout(self.norm(y.flatten(0, 1)))
        return rows.view(y.shape)


class LastStep(nn.Module):
    """The last step of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, width) -> (N, width)."""
        return x[:, -1]
