"""Zero padding behind an affine map: each channel padded with the value that the map makes 0.

A convolution pads what it is given with 0. Where an affine map before it is folded into it, the padding is
mapped too: 0 becomes shift. Padded with -shift/scale instead it becomes 0 as before, and the fold is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normwright.errors import OptionError
from normwright.network.folding.algebra import Affine

Amounts = tuple[tuple[int, int], ...]  # of each axis of space, before and behind


def meets_whole_kernel(layer: nn.Module) -> bool:
    """Whether every output of a layer is a sum over its whole kernel, so that a shift before it is a bias.

    A linear layer's is. A convolution's is but for padding with zeros. A transposed convolution's is only
    where it moves by one and crops all that meets less.

    Example:
        >>> meets_whole_kernel(nn.Conv2d(3, 8, 3)), meets_whole_kernel(nn.Conv2d(3, 8, 3, padding=1))
        (True, False)
    """
    if isinstance(layer, nn.Linear):
        return True
    if not isinstance(layer, nn.modules.conv._ConvNd):
        raise OptionError(f"a layer must be a convolution or linear, but is {type(layer).__name__}")
    if layer.transposed:
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        crops = all(p >= r for p, r in zip(layer.padding, reach, strict=True))  # type: ignore[operator]
        return crops and set(layer.stride) == {1} and not any(layer.output_padding)
    return layer.padding_mode != "zeros" or not any(map(any, padding_amounts(layer)))


def padding_amounts(convolution: nn.modules.conv._ConvNd) -> Amounts:
    """How much a convolution pads each axis of space, before and behind.

    Example:
        >>> padding_amounts(nn.Conv2d(3, 8, (2, 5), padding="same"))
        ((0, 1), (2, 2))
    """
    if convolution.padding == "valid":
        return tuple((0, 0) for _ in convolution.kernel_size)
    if convolution.padding == "same":
        reach = [d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in reach)
    return tuple((int(amount), int(amount)) for amount in convolution.padding)


def zero_points(affine: Affine) -> Tensor:
    """The value that an affine map makes 0, -shift/scale, of each channel: (C,), float64.

    Where scale and shift are both 0 every value is one, and 0 is taken.

    Raises:
        OptionError: a scale is 0 whose shift is not: no value is mapped to 0; the channel is named.
    Example:
        >>> zero_points(Affine(torch.tensor([2.0]).double(), torch.tensor([3.0]).double()))
        tensor([-1.5000], dtype=torch.float64)
    """
    never = (affine.scale == 0) & (affine.shift != 0)
    if never.any():
        channel = int(never.nonzero()[0])
        raise OptionError(
            "for its padding to be folded a map's scale must not be 0, but it is in channel "
            f"{channel}, whose shift is {float(affine.shift[channel])}: no value is mapped to 0"
        )
    # 0 - shift, so that a shift of 0 gives 0 and not -0
    return torch.where(affine.scale == 0, 0.0, (0.0 - affine.shift) / affine.scale)


def pad_by_channel(x: Tensor, amounts: Amounts, value: Tensor) -> Tensor:
    """Pads the axes of space, each channel with a value of its own.

    Args:
        x: (N, C, *space) or (C, *space).
        amounts: of each axis of space, before and behind.
        value: (C,), of x's dtype.
    Returns:
        x's shape with the amounts added to space, in its dtype and memory format.
    Example:
        >>> pad_by_channel(torch.ones(1, 2, 1), ((1, 0),), torch.tensor([5.0, 7.0]))
        tensor([[[5., 1.],
                 [7., 1.]]])
    """
    # PyTorch's padding keeps the memory format and goes through torch.func, torch.fx and torch.export; its
    # zeros at the border are then written over.
    padded = F.pad(x, [amount for pair in reversed(amounts) for amount in pair])
    border = value.to(x.dtype).view(-1, *[1] * len(amounts))
    for axis, (before, behind) in enumerate(amounts, -len(amounts)):
        for start, amount in ((0, before), (-behind, behind)):
            if amount:
                edge = padded.narrow(axis, start, amount)
                edge.copy_(border.expand_as(edge))  # ONNX needs the rank
    return padded
