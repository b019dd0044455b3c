"""How a call of the groups family sees its tensors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.masks import Order, groups_order
from normwright.backends.moments import compute_dtype
from normwright.backends.triton.arrange import Blank, arranged, blank
from normwright.backends.triton.launch import compute_type


class Filled(NamedTuple):
    """What a backward fills: dense dx and dresidual where asked for, and whether dweight and dbias are."""

    dx: Tensor | None
    dresidual: Tensor | None
    wants_dweight: bool
    wants_dbias: bool

    @property
    def needs_sums(self) -> bool:
        """Whether any but dresidual is asked for."""
        return self.dx is not None or self.wants_dweight or self.wants_dbias


class Parts(NamedTuple):
    """(parts, channels) that add up to dweight and dbias; None where they are not wanted."""

    along: Tensor | None
    level: Tensor | None


class GroupView(NamedTuple):
    """(samples, channels, space), or (samples, space, channels) where `channels_last`: x's order."""

    order: Order
    samples: int
    channels: int
    space: int
    groups: int
    channels_last: bool

    @property
    def share(self) -> int:
        """Channels of a group."""
        return self.channels // self.groups

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the dense tensors that the kernels take."""
        if self.channels_last:
            return self.samples, self.space, self.channels
        return self.samples, self.channels, self.space

    @property
    def run_of_mask(self) -> int:
        """Elements of a run of the mask."""
        return self.order.run

    def parts(self, x: Tensor, pieces: int) -> Parts:
        """Room for the sums of each channel in each piece of each sample."""
        shape = (self.samples * pieces, self.channels)
        along, level = (torch.empty(shape, dtype=compute_dtype(x), device=x.device) for _ in range(2))
        return Parts(along, level)

    def of(self, tensor: Tensor | None) -> Tensor | None:
        """x, or what is like x, as the kernels take it."""
        return None if tensor is None else arranged(tensor, self.order, self.shape)

    def blank_of(self, whole: Tensor) -> Blank:
        """A result that is to be returned as `whole`, an empty tensor."""
        return blank(whole, self.order, self.shape)


def view_of(x: Tensor, groups: int) -> GroupView:
    """How the kernels see x, in the order of its mask."""
    order = groups_order(x, groups)
    channels_last = x.dim() > 2 and order.axes[-1] == 1
    return GroupView(order, x.shape[0], x.shape[1], math.prod(x.shape[2:]), groups, channels_last)


def options_of(activation: str | None, center: bool, x: Tensor, space: int) -> tuple[Any, ...]:
    """The constants ACTIVATION, CENTER, SPACE and COMPUTE of the kernels of runs."""
    return activation, center, space, compute_type(x)
