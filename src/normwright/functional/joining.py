"""Sequences of a padded batch joined end to end, and spread out again: each the other's derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Join(torch.autograd.Function):
    """(C, M), the first lengths[n] elements of each of (N, C, L); runs of memory, copied as they lie."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: list[int]) -> Tensor:
        """See the class."""
        ctx.lengths, ctx.length = lengths, x.shape[2]
        return torch.cat([one[:, :size] for one, size in zip(x.unbind(), lengths, strict=True)], 1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        """Nothing comes back to padding."""
        return Spread.apply(dy, ctx.lengths, ctx.length), None


class Spread(torch.autograd.Function):
    """(N, C, length), the sequences of (C, M) each in a place of its own, with 0 behind it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, lengths: list[int], length: int) -> Tensor:
        """See the class."""
        ctx.lengths = lengths
        whole = y.new_empty(len(lengths), y.shape[0], length)
        for one, part, size in zip(whole.unbind(), y.split(lengths, 1), lengths, strict=True):
            one[:, :size] = part
            one[:, size:] = 0
        return whole

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> Any:
        """What came of padding is dropped."""
        return Join.apply(dx, ctx.lengths), None, None
