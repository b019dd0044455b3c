"""How the channels family sees its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends.masks import LONG_RUN, Order, channels_order
from normwright.backends.triton.arrange import Blank, arranged, blank, blank_apart
from normwright.backends.triton.channels_settings import ChannelsTile, channels_tile
from normwright.backends.triton.launch import cdiv
from normwright.backends.triton.settings import padded, power_of_two


class Channels(NamedTuple):
    """How a call sees its tensors: (rows, channels·space) in x's order in memory, cut as the tile says."""

    order: Order
    rows: int
    channels: int
    space: int
    tile: ChannelsTile

    @property
    def strips(self) -> int:
        """Programs side by side."""
        return cdiv(self.channels, self.tile.channels)

    @property
    def grid(self) -> tuple[int, int]:
        """A program for each range of each strip."""
        return self.strips, self.tile.ranges

    @property
    def sizes(self) -> tuple[int, ...]:
        """rows, channels, width_units and space_units of a kernel."""
        return (
            self.rows,
            self.channels,
            self.channels * self.space // self._units[0],
            self.space // self._units[1],
        )

    @property
    def cut(self) -> tuple[int, ...]:
        """WIDTH_UNIT to BLOCK of a kernel."""
        tile = self.tile
        short = tile.channels > 1 and self.space > 1
        filled = tile.channels if tile.channels == 1 else power_of_two(tile.channels)
        spaces = padded(self.space) if short else 1
        return (*self._units, tile.channels, filled, spaces, tile.rows, tile.block)

    @property
    def mask_bytes(self) -> tuple[int, int]:
        """Of a row, and of a strip in it."""
        if self.tile.channels == 1:
            return self.channels * cdiv(self.space, 8), cdiv(self.space, 8)
        return cdiv(self.channels * self.space, 8), self.tile.channels * self.space // 8

    @property
    def ranges(self) -> int:
        """RANGES of a kernel."""
        return padded(self.tile.ranges)

    @property
    def _units(self) -> tuple[int, int]:
        # The powers of two that a compiler may count on: of the width, and of one channel's space.
        space = math.gcd(self.space, 16)
        if self.tile.channels == 1:
            return space, space
        return math.gcd(self.channels * self.space, 16), 1

    def of(self, tensor: Tensor | None) -> Tensor | None:
        """x, or what is like x, as the kernels take it."""
        return None if tensor is None else arranged(tensor, self.order, self._shape)

    def blank(self, like: Tensor) -> Blank:
        """A result like a tensor that `of` takes."""
        return blank(torch.empty_like(like), self.order, self._shape)

    def blank_in(
        self, whole: Tensor, alike: Iterable[Tensor | None], parameters: Iterable[Tensor | None]
    ) -> Blank:
        """A result that is returned in `whole`, which may be one of the dense tensors that are read."""
        return blank_apart(whole, self.order, self._shape, alike, parameters)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.rows, self.channels * self.space


def seen_as_channels(
    x: Tensor, tile: ChannelsTile | None, *, backward: bool = False, derives: bool = False
) -> Channels:
    """x, cut by the table where no tile is given."""
    order = channels_order(x)
    rows, channels, space = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    if order.axes[-1] == 1:
        rows, space = rows * space, 1
    sizes = (rows, channels, space, x.element_size())
    return cut_in_channels(order, *sizes, tile, backward=backward, derives=derives)


def cut_in_channels(
    order: Order,
    rows: int,
    channels: int,
    space: int,
    itemsize: int,
    tile: ChannelsTile | None,
    *,
    backward: bool = False,
    derives: bool = False,
) -> Channels:
    """(rows, channels·space) in an order, cut by the table where no tile is given."""
    tile = tile or channels_tile(rows, channels, space, itemsize, backward=backward, derives=derives)
    tiles = cdiv(rows, tile.rows) * (cdiv(space, tile.block) if tile.channels == 1 else 1)
    if not _covers(tile, space):
        raise ValueError(f"{tile} must hold whole channels of a space of {space}: see channels_walk.py")
    if tile.ranges > tiles:  # a range without elements has no mean
        tile = replace(tile, ranges=tiles)
    return Channels(order, rows, channels, space, tile)


def _covers(tile: ChannelsTile, space: int) -> bool:
    if tile.channels == 1:
        return space >= LONG_RUN
    if space == 1:
        return tile.channels == tile.block
    return tile.channels % 8 == 0 and tile.channels * space <= tile.block
