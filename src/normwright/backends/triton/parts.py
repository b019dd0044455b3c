"""The parts family by Triton kernels: ghost, split and masked batch norm. See `schema.py`.

The operators lay out a plan of the spans (`parts_plan.py`) and hand it over: what comes here is its table on
the device, and how it cuts.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DRESIDUAL, DX
from normwright.backends.masks import Order, channels_order
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.backends.normalised import Gradients, Results
from normwright.backends.triton.arrange import Blank, arranged, blank, dense_or_none
from normwright.backends.triton.channels_gradients import add_ranges, blank_gradients
from normwright.backends.triton.kernels.parts import forward_parts, reduce_parts
from normwright.backends.triton.kernels.parts_backward import backward_parts, reduce_part_gradients
from normwright.backends.triton.launch import cdiv, compute_type, empty, launch, on_device_of
from normwright.backends.triton.parts_plan import Cut


class _View(NamedTuple):
    """How a call sees its tensors: flat, in x's order in memory, cut as the plan says."""

    order: Order
    channels: int
    space: int
    cut: Cut

    @property
    def strips(self) -> int:
        """Programs side by side."""
        return cdiv(self.channels, self.cut.tile.channels)

    @property
    def sizes(self) -> tuple[int, int]:
        """channel_units and space_units of a kernel."""
        return self.channels // self._channel_unit, self.space // self.cut.unit

    def options(self, x: Tensor) -> tuple[Any, ...]:
        """COMPUTE to STAGES of a kernel."""
        tile = self.cut.tile
        units = (self._channel_unit, self.cut.unit, self._quickest)
        return compute_type(x), *units, tile.pieces, tile.length, tile.channels, tile.stages

    @property
    def _quickest(self) -> bool:
        return self.order.axes[-1] == 1

    @property
    def _channel_unit(self) -> int:
        return math.gcd(self.channels, 16) if self._quickest else 1

    def of(self, tensor: Tensor | None) -> Tensor | None:
        """x, or what is like x, as the kernels take it."""
        return None if tensor is None else arranged(tensor, self.order, (tensor.numel(),))

    def blank(self, like: Tensor) -> Blank:
        """A result like a tensor that `of` takes."""
        return blank(torch.empty_like(like), self.order, (like.numel(),))


def _view_of(x: Tensor, cut: Cut) -> _View:
    return _View(channels_order(x), x.shape[1], math.prod(x.shape[2:]), cut)


def parts_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    table: Tensor,
    cut: Cut,
    parts: int,
    eps: float,
    activation: str | None,
) -> Results:
    """See `schema.py`; the spans are a plan."""
    view = _view_of(x, cut)
    ranges, of_none = cut.ranges
    y, dense = view.blank(x), view.of(x)
    moments = empty(x, 3, parts, view.channels, dtype=statistics_dtype(x))
    sums = empty(x, 2, ranges, view.channels, dtype=torch.float64)
    inputs = (dense, view.of(residual), dense_or_none(weight), dense_or_none(bias))
    options, warps = view.options(x), cut.tile.warps
    with on_device_of(x):
        launch(reduce_parts, (view.strips * ranges,))(
            dense, sums, table, cut.pieces, *view.sizes, *options, num_warps=warps
        )
        launch(forward_parts, (view.strips * (ranges + of_none),))(
            *inputs, y.dense, moments, sums, table, cut.pieces, parts, ranges, *view.sizes, eps, activation,
            *options, cut.most, num_warps=warps,
        )  # fmt: skip
    return y.filled(), moments


def parts_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    moments: Tensor,
    table: Tensor,
    cut: Cut,
    parts: int,
    activation: str | None,
    wanted: int,
) -> Gradients:
    """See `schema.py`; the spans are a plan."""
    view = _view_of(x, cut)
    ranges, of_none = cut.ranges
    results = blank_gradients(view.blank, (x, residual, weight, bias), wanted)
    needs_sums = wanted & DX or results.dweight is not None or results.dbias is not None
    sums = [empty(x, ranges, view.channels, dtype=compute_dtype(x)) if needs_sums else None for _ in range(2)]
    inputs = (*map(view.of, (dy, x, residual)), *map(dense_or_none, (weight, bias, moments)))
    sizes = (table, cut.pieces, parts, *view.sizes, activation, *view.options(x))
    warps = cut.tile.warps
    with on_device_of(x):
        if needs_sums:
            launch(reduce_part_gradients, (view.strips * ranges,))(*inputs, *sums, *sizes, num_warps=warps)
        if wanted & (DX | DRESIDUAL):
            launch(backward_parts, (view.strips * (ranges + of_none),))(
                *inputs, *sums, *results.large, *sizes, cut.most, num_warps=warps
            )
        add_ranges(sums, results[2:], ranges, view.channels)
    return results.filled()
