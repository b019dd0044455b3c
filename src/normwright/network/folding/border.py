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

from torch import Tensor

from normwright.network.folding.block_affine import ChannelMap


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
