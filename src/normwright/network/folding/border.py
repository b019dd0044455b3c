"""Zero padding behind an affine map: what the map's shift adds where a kernel reaches over the border.

A convolution pads what it is given with 0. Where an affine map before it is folded into it, the padding lies
before the map, whose shift must not reach it:

    W * (scale·x + shift)  =  (W·scale) * x + S * 1,    S = sum of W·shift over the channels in

where * pads with 0 on both sides, so that the shift, as the input, ends at the border. S * 1 is one more
convolution, of a single channel of ones, for the whole batch. To pad each channel of x with the value that
the map makes 0 is exact too, but copies x, which takes longer than to leave the map as a multiply-add: see
`benchmarks/border.py`.
"""

from __future__ import annotations

from torch import Tensor, nn

from normwright.errors import OptionError
from normwright.network.folding.block_affine import ChannelMap

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


def shift_of(weight: Tensor, affine: ChannelMap, *, groups: int = 1) -> Tensor:
    """S, what the shift of an affine map before a convolution adds at each place in the kernel.

    Args:
        weight: (out, in/groups, *kernel), of the convolution as it was; floating point.
        affine: of in channels.
        groups: of the convolution.
    Returns:
        (out, 1, *kernel), float64.
    Example:
        >>> from normwright.network.folding.affine import Affine
        >>> affine = Affine(torch.ones(2).double(), torch.tensor([1.0, 2.0]).double())
        >>> shift_of(torch.ones(1, 2, 3), affine)
        tensor([[[3., 3., 3.]]], dtype=torch.float64)
    """
    wide = weight.detach().double()
    grouped = wide.view(groups, weight.shape[0] // groups, *weight.shape[1:])
    shift = affine.shift.to(weight.device).view(groups, 1, -1, *[1] * (weight.dim() - 2))
    return (grouped * shift).sum(2).reshape(weight.shape[0], 1, *weight.shape[2:])
