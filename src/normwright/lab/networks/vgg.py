"""A small VGG: stages of 3×3 convolutions, each half as large and twice as wide as the one before."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from normwright.lab.networks.block import block, dropout_part
from normwright.lab.networks.images import image_shape
from normwright.lab.recipe import NetworkRecipe

_STAGES = 3
_MOST_CHANNELS = 512


def build(recipe: NetworkRecipe, sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three stages of two 3×3 convolutions and a max pool, then the mean over space and a linear output.

    The stages have `width`, 2·`width` and 4·`width` channels, none more than 512 (VGG's own most) unless
    `width` itself is. Meant for images of 28 to 64 pixels.

    Args:
        recipe: width, activation, place and dropout (before the output) count.
        sample_shape: (channels, height, width), at least 8×8.
        classes: how many outputs.
    Returns:
        A network (N, *sample_shape) -> (N, classes) of `stage1` (`conv1`, `conv2`, `pool`), …, `output`.
    Raises:
        ShapeError: samples that are not images, or too small.
    References:
        Simonyan & Zisserman 2014, arXiv:1409.1556.
    """
    channels, _, _ = image_shape("vgg", sample_shape, least=2**_STAGES)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(_STAGES):
        outputs = min(recipe.width * 2**i, max(recipe.width, _MOST_CHANNELS))
        parts[f"stage{i + 1}"] = _stage(recipe, channels, outputs)
        channels = outputs
    parts.update(mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    parts.update(dropout_part(recipe))
    parts["output"] = nn.Linear(channels, classes)
    return nn.Sequential(parts)


def _stage(recipe: NetworkRecipe, inputs: int, outputs: int) -> nn.Sequential:
    def convolution(channels: int) -> nn.Sequential:
        conv = partial(nn.Conv2d, channels, kernel_size=3, padding=1)
        return block(recipe, outputs, conv=conv, norm=nn.BatchNorm2d)

    return nn.Sequential(
        OrderedDict(conv1=convolution(inputs), conv2=convolution(outputs), pool=nn.MaxPool2d(2))
    )
