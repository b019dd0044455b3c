"""Brings tensors of any strides into the order in memory that a kernel takes them in.

`masks.py` says that order: x's own where x is dense, channels last or not; else a copy is made, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends.masks import Order


def arranged(tensor: Tensor, order: Order, shape: Sequence[int]) -> Tensor:
    """The tensor in the order and, dense, in the shape of a kernel; a view where it lies so already."""
    return tensor.permute(order.axes).reshape(shape).contiguous()


def dense_or_none(tensor: Tensor | None) -> Tensor | None:
    """A parameter, a mask or moments as a kernel takes them."""
    return None if tensor is None else tensor.contiguous()


class Blank(NamedTuple):
    """A result: what is returned, and the dense tensor that a kernel fills, a view of it if it can be."""

    whole: Tensor
    dense: Tensor
    is_view: bool
    order: Order

    def filled(self) -> Tensor:
        """The result, after the kernel."""
        if not self.is_view:
            axes = self.order.axes
            self.whole.permute(axes).copy_(self.dense.view([self.whole.shape[axis] for axis in axes]))
        return self.whole


def blank(whole: Tensor, order: Order, shape: Sequence[int]) -> Blank:
    """A result that is to be returned as `whole`, an empty tensor."""
    permuted = whole.permute(order.axes)
    if permuted.is_contiguous():
        return Blank(whole, permuted.view(shape), True, order)
    return Blank(whole, torch.empty(shape, dtype=whole.dtype, device=whole.device), False, order)


def blank_apart(
    whole: Tensor,
    order: Order,
    shape: Sequence[int],
    alike: Iterable[Tensor | None],
    parameters: Iterable[Tensor | None],
) -> Blank:
    """The same where `whole` may share memory with what is read for it.

    With what is alike it may element by element, or not at all; never with parameters, which every program
    reads.
    """
    result = blank(whole, order, shape)
    apart = all(parameter is None or _are_apart(result.dense, parameter) for parameter in parameters)
    if apart and all(tensor is None or _same_or_apart(result.dense, tensor) for tensor in alike):
        return result
    return Blank(whole, torch.empty_like(result.dense), False, order)


def _same_or_apart(a: Tensor, b: Tensor) -> bool:
    """Whether two dense tensors are the same memory, element by element, or have none in common."""
    same = a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.numel() == b.numel()
    return same or _are_apart(a, b)


def _are_apart(a: Tensor, b: Tensor) -> bool:
    ends = [tensor.data_ptr() + tensor.numel() * tensor.element_size() for tensor in (a, b)]
    return ends[0] <= b.data_ptr() or ends[1] <= a.data_ptr()
