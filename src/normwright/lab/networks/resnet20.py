"""ResNet-20 for small images, with shortcuts that have no parameters."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from normwright.errors import OptionError
from normwright.lab.networks.block import activation, block, dropout_part
from normwright.lab.networks.images import image_shape
from normwright.lab.recipe import NetworkRecipe

_STAGE_CHANNELS = (16, 32, 64)
_BLOCKS_PER_STAGE = 3


def build(recipe: NetworkRecipe, sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The CIFAR ResNet of 20 weighted layers: a convolution, three stages of three blocks, a linear output.

    As in the paper, the convolutions have no bias: with no normaliser, or with one that adds none (RMS,
    local response), the network has a bias in its output alone.

    Args:
        recipe: activation (the paper's is relu), place and dropout (before the output) count.
        sample_shape: (channels, height, width), at least 8×8.
        classes: how many outputs.
    Returns:
        A network (N, *sample_shape) -> (N, classes) of `stem`, `stage1` (`block1`, …), …, `output`;
        269,722 parameters with batch norm for (3, 32, 32) and 10 classes.
    Raises:
        OptionError: the activation is maxout.
        ShapeError: samples that are not images, or too small.
    References:
        He et al. 2016, arXiv:1512.03385, section 4.2, shortcuts of option A.
    """
    if recipe.activation == "maxout":
        raise OptionError(
            "the activation of resnet20 must keep the number of channels, which its shortcuts are added to, "
            "but maxout halves it: take another, or mlp, lenet or vgg"
        )
    channels, _, _ = image_shape("resnet20", sample_shape, least=8)
    first = _STAGE_CHANNELS[0]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["stem"] = block(recipe, first, conv=partial(_convolution, channels), norm=nn.BatchNorm2d)
    channels = first
    for i, outputs in enumerate(_STAGE_CHANNELS, start=1):
        parts[f"stage{i}"] = _stage(recipe, channels, outputs)
        channels = outputs
    parts.update(mean=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    parts.update(dropout_part(recipe))
    parts["output"] = nn.Linear(channels, classes)
    return nn.Sequential(parts)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around which the input is added.

        place before:  y = activation(norm2(conv2(activation(norm1(conv1(x))))) + shortcut(x))
        place after:   y = norm2(activation(conv2(norm1(activation(conv1(x)))) + shortcut(x)))

    Where the block halves the image, the shortcut takes every second pixel; channels that the input
    lacks are 0.

    Args:
        recipe: gives the activation and the normaliser's place.
        inputs, outputs: channels.
        stride: of the first convolution and the shortcut.
    """

    def __init__(self, recipe: NetworkRecipe, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm_first = recipe.place == "before"
        self.stride = stride
        self.new_channels = outputs - inputs
        self.conv1 = _convolution(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.activation1 = activation(recipe.activation)
        self.conv2 = _convolution(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation2 = activation(recipe.activation)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W) -> (N, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        y: Tensor
        if self.norm_first:
            y = self.norm2(self.conv2(self.activation1(self.norm1(self.conv1(x)))))
            y = self.activation2(y + self._shortcut(x))
        else:
            y = self.conv2(self.norm1(self.activation1(self.conv1(x))))
            y = self.norm2(self.activation2(y + self._shortcut(x)))
        return y

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        before = self.new_channels // 2
        return F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before)
        )


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _stage(recipe: NetworkRecipe, inputs: int, outputs: int) -> nn.Sequential:
    """The first block of a stage halves the image if it widens the network."""
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, _BLOCKS_PER_STAGE + 1):
        blocks[f"block{i}"] = ResidualBlock(recipe, inputs, outputs, stride=1 if inputs == outputs else 2)
        inputs = outputs
    return nn.Sequential(blocks)
