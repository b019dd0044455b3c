"""Which elements an activation passes with slope 1, one bit each, kept instead of the residual.

With a residual, relu and leaky_relu could be undone only by keeping the residual for the backward. A mask
holds what they need in 1/32 of float32. Its order is that of x in memory, cut into runs, each of which begins
on a byte, lowest bit first; csrc/kernels.h (`mask_run`) says the same to the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MASKED = ("relu", "leaky_relu")

LONG_RUN = 64


class Order(NamedTuple):
    """x's axes from the slowest to the quickest in memory, and the elements of a run."""

    axes: list[int]
    run: int


def is_dense(x: Tensor, axes: Sequence[int], block: int = 1) -> bool:
    """Whether the axes follow each other in memory, the last one quickest, in steps of a block."""
    for axis in reversed(axes):
        if x.shape[axis] != 1 and x.stride(axis) != block:
            return False
        block = block * x.shape[axis]
    return True


def _channel_axes(x: Tensor) -> tuple[list[int], bool]:
    """The axes in the order that the kernels take x in, and whether the channels are quickest."""
    contiguous = list(range(x.dim()))
    last = [0, *contiguous[2:], 1]
    # One without elements counts as contiguous, as to the kernels.
    quickest = x.dim() > 2 and not x.is_contiguous() and is_dense(x, last)
    return (last if quickest else contiguous), quickest


def rows_order(x: Tensor, trailing_axes: int) -> Order:
    """Of `rows_forward_masked`'s mask."""
    outer = x.dim() - trailing_axes
    trailing = sorted(range(outer, x.dim()), key=x.stride, reverse=True)
    length = math.prod(x.shape[outer:])
    axes = [*range(outer), *trailing]
    dense = is_dense(x, trailing) and is_dense(x, range(outer), length)
    return Order(axes if dense else list(range(x.dim())), length)


def groups_order(x: Tensor, groups: int) -> Order:
    """Of `groups_forward_masked`'s mask."""
    axes, quickest = _channel_axes(x)
    space = math.prod(x.shape[2:])
    if quickest:
        return Order(axes, x.shape[1])
    return Order(axes, space if space >= LONG_RUN else x.shape[1] // max(groups, 1) * space)


def channels_order(x: Tensor) -> Order:
    """Of `channels_forward_masked`'s mask."""
    axes, quickest = _channel_axes(x)
    space = math.prod(x.shape[2:])
    if quickest:
        return Order(axes, x.shape[1])
    return Order(axes, space if space >= LONG_RUN else x.shape[1] * space)


def mask_shape(x: Tensor, order: Order) -> tuple[int, int]:
    """(runs, bytes of a run)."""
    return (x.numel() // order.run if order.run else 0), (order.run + 7) // 8


def pack(ones: Tensor, order: Order) -> Tensor:
    """The mask of a boolean tensor."""
    runs, bytes_per_run = mask_shape(ones, order)
    bits = ones.permute(order.axes).reshape(runs, order.run)
    bits = torch.nn.functional.pad(bits, (0, bytes_per_run * 8 - order.run))
    weights = 1 << torch.arange(8, device=ones.device)
    return (bits.view(runs, bytes_per_run, 8) * weights).sum(-1).to(torch.uint8)


def unpack(mask: Tensor, x: Tensor, order: Order) -> Tensor:
    """The boolean tensor of a mask, of x's shape."""
    runs = mask.shape[0]
    bits = (mask.unsqueeze(-1) >> torch.arange(8, device=mask.device)) & 1
    flat = bits.reshape(runs, mask.shape[1] * 8)[:, : order.run]
    inverse = [order.axes.index(axis) for axis in range(x.dim())]
    return flat.reshape([x.shape[axis] for axis in order.axes]).permute(inverse).bool()
