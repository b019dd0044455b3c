"""LeNet as "Dive into Deep Learning" teaches it: sigmoids and average pooling."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from normwright.lab.networks.block import block
from normwright.lab.networks.images import image_shape
from normwright.lab.recipe import NetworkRecipe

_KERNEL = 5
_FIRST_PADDING = 2


def build(recipe: NetworkRecipe, sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    """LeNet with a normaliser after each convolution and each hidden linear layer.

        (C, 28, 28) conv1 -> (6, 28, 28) pool1 -> (6, 14, 14) conv2 -> (16, 10, 10) pool2 -> (16, 5, 5)
                    flatten -> 400 fc1 -> 120 fc2 -> 84 output -> classes

    These are the shapes of the book's plain LeNet (section 7.6), whose first convolution pads by 2; its
    batch-norm LeNet (section 8.5) does not pad and has 256 features. Here one network serves all
    normalisers. The second convolution pads an axis by 2 only where it would leave less than
    one pixel per pool, that is in images below 12 pixels.

    Args:
        recipe: activation (the book's is sigmoid), place and dropout (after fc1 and fc2) count.
        sample_shape: (channels, height, width), at least 8×8.
        classes: how many outputs.
    Returns:
        A network (N, *sample_shape) -> (N, classes); 61,706 parameters for (1, 28, 28), 10 classes and
        no normaliser.
    Raises:
        ShapeError: samples that are not images, or too small.
    References:
        Zhang et al., Dive into Deep Learning, sections 7.6 and 8.5; LeCun et al. 1998.
    """
    channels, *size = image_shape("lenet", sample_shape, least=8)
    pooled = [length // 2 for length in size]
    padding = [0 if length - _KERNEL + 1 >= 2 else _FIRST_PADDING for length in pooled]
    height, width = (
        (length + 2 * pad - _KERNEL + 1) // 2 for length, pad in zip(pooled, padding, strict=True)
    )

    def convolution(inputs: int, outputs: int, pad: tuple[int, int]) -> nn.Sequential:
        conv = partial(nn.Conv2d, inputs, kernel_size=_KERNEL, padding=pad)
        return block(recipe, outputs, conv=conv, norm=nn.BatchNorm2d)

    def linear(inputs: int, outputs: int) -> nn.Sequential:
        linear = partial(nn.Linear, inputs)
        return block(recipe, outputs, linear=linear, norm=nn.BatchNorm1d, dropout=True)

    return nn.Sequential(
        OrderedDict(
            conv1=convolution(channels, 6, (_FIRST_PADDING, _FIRST_PADDING)),
            pool1=nn.AvgPool2d(2),
            conv2=convolution(6, 16, (padding[0], padding[1])),
            pool2=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            fc1=linear(16 * height * width, 120),
            fc2=linear(120, 84),
            output=nn.Linear(84, classes),
        )
    )
