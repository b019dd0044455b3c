"""Maxout as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.errors import OptionError, ShapeError


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
    check_pieces(pieces)
    if not -input.dim() <= axis < input.dim():
        raise ShapeError(f"axis must be one of the {input.dim()} axes of the input, but is {axis}")
    axis %= input.dim()
    if input.shape[axis] % pieces:
        raise ShapeError(
            f"pieces must divide the channels, but {pieces} does not divide the {input.shape[axis]} of axis "
            f"{axis} of an input {list(input.shape)}: make the layer before {pieces} times as wide"
        )
    parts = input.unflatten(axis, (input.shape[axis] // pieces, pieces))
    if pieces == 2:  # a third of the time
        first, second = parts.unbind(axis + 1)
        return torch.maximum(first, second)
    largest: Tensor = parts.amax(axis + 1)
    return largest


def check_pieces(pieces: int) -> None:
    """A whole number of at least 1."""
    if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 1:
        raise OptionError(f"pieces must be at least 1 and a whole number, but is {pieces!r}")
