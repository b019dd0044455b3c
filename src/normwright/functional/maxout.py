"""Maxout as a function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.backends.normalised import is_batched
from normwright.errors import ShapeError
from normwright.functional.arguments import whole
from normwright.functional.forward_mode import needs_plain_operations


def maxout(input: Tensor, pieces: int, *, axis: int = 1) -> Tensor:
    """Takes the largest of every `pieces` neighbouring channels.

        y_c = max of x_(c·pieces), …, x_(c·pieces + pieces - 1)

    After a linear or convolution layer of C·pieces channels it is a convex function of that layer's input,
    made of `pieces` affine ones. Where several are the largest, they share the gradient.

    Args:
        input: (N, C·pieces, *space), or with the channels at another axis.
        pieces: at least 1; the paper's are 2 to 5.
        axis: that of the channels.
    Returns:
        (N, C, *space), of input's dtype.
    Raises:
        OptionError: pieces below 1.
        ShapeError: no such axis, or pieces does not divide the channels.
    References:
        Goodfellow et al. 2013, arXiv:1302.4389.
    Example:
        >>> maxout(torch.tensor([[1.0, 3.0, -2.0, -4.0]]), 2)
        tensor([[ 3., -2.]])
    """
    pieces, axis = whole("pieces", pieces, 1), whole("axis", axis)
    if not -input.dim() <= axis < input.dim():
        raise ShapeError(f"axis must be one of the {input.dim()} axes of the input, but is {axis}")
    axis %= input.dim()
    if input.shape[axis] % pieces:
        raise ShapeError(
            f"pieces must divide the channels, but {pieces} does not divide the {input.shape[axis]} of axis "
            f"{axis} of an input {list(input.shape)}: make the layer before {pieces} times as wide"
        )
    wants_gradient = torch.is_grad_enabled() and input.requires_grad
    if pieces == 2 and wants_gradient and not needs_plain_operations(input):
        larger: Tensor = _Larger.apply(input, axis)
        return larger
    if pieces == 2:
        return torch.maximum(*_pairs(input, axis))
    largest: Tensor = input.unflatten(axis, (input.shape[axis] // pieces, pieces)).amax(axis + 1)
    return largest


def _pairs(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """The first, and the second, of every two neighbours."""
    pairs: tuple[Tensor, ...] = x.unflatten(axis, (x.shape[axis] // 2, 2)).unbind(axis + 1)
    return pairs


class _Larger(torch.autograd.Function):
    """Of two, with half of the passes that the derivatives of PyTorch's maximum and views take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.axis = axis
        return torch.maximum(*_pairs(x, axis))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        first, second = _pairs(x.detach(), ctx.axis)
        share = torch.gt(first, second).to(dy.dtype).add_(torch.ge(first, second)).mul_(0.5)
        if torch.is_grad_enabled() or is_batched(dy):
            of_first = dy * share
            return torch.stack([of_first, dy - of_first], ctx.axis + 1).reshape(x.shape), None
        dx = torch.empty_like(x)
        of_first, of_second = _pairs(dx, ctx.axis)
        torch.mul(dy, share, out=of_first)
        torch.sub(dy, of_first, out=of_second)
        return dx, None
