"""Maxout as a module. See `functional.maxout`."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.functional import maxout
from normwright.functional.arguments import whole


class Maxout(torch.nn.Module):
    """The largest of every `pieces` neighbouring channels. It has no state.

    Args:
        pieces: how many affine functions of the layer before make up one output.
        axis: that of the channels.
    Raises:
        OptionError: pieces below 1.
    References:
        Goodfellow et al. 2013, arXiv:1302.4389.
    Example:
        >>> torch.nn.Sequential(torch.nn.Linear(8, 3 * 5), Maxout(5))(torch.randn(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, pieces: int = 2, *, axis: int = 1) -> None:
        super().__init__()
        self.pieces, self.axis = whole("pieces", pieces, 1), axis

    def forward(self, input: Tensor) -> Tensor:
        """(N, C·pieces, *space) -> (N, C, *space)."""
        return maxout(input, self.pieces, axis=self.axis)

    def extra_repr(self) -> str:
        """The options."""
        return f"{self.pieces}, axis={self.axis}"
