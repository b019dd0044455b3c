"""Dynamic tanh. See `schema.py` and, for the kernels, `kernels/tanh.py`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from normwright.backends.gradients import DALPHA, DBIAS, DWEIGHT, DX
from normwright.backends.masks import Order, is_dense
from normwright.backends.moments import compute_dtype
from normwright.backends.normalised import Gradients
from normwright.backends.triton.arrange import dense_or_none
from normwright.backends.triton.channels_gradients import add_ranges
from normwright.backends.triton.channels_view import Channels, cut_in_channels
from normwright.backends.triton.kernels.parameters import add_parts
from normwright.backends.triton.kernels.tanh import squash_channels, squash_gradients
from normwright.backends.triton.launch import compute_type, empty, launch, on_device_of

# Parts of alpha's gradient, of which there is one number, that are added up at a time: those of all channels.
_ADDED_TO_ONE = 1024


def _seen(x: Tensor, axis: int, *, backward: bool = False) -> Channels:
    """x with its channels on an axis: in the order of its axes, or that axis quickest where x is dense so."""
    axis %= x.dim()
    axes = list(range(x.dim()))
    others = [*axes[:axis], *axes[axis + 1 :]]
    channels, space = x.shape[axis], math.prod(x.shape[axis + 1 :])
    if space > 1 and not is_dense(x, axes) and is_dense(x, [*others, axis]):
        axes, space = [*others, axis], 1
    rows = x.numel() // (channels * space)
    sizes = (rows, channels, space)
    return cut_in_channels(
        Order(axes, channels), *sizes, x.element_size(), None, backward=backward, derives=backward
    )


def channel_tanh(x: Tensor, alpha: Tensor, weight: Tensor | None, bias: Tensor | None, axis: int) -> Tensor:
    """See `schema.py`."""
    seen = _seen(x, axis)
    y = seen.blank(x)
    tensors = (seen.of(x), alpha, dense_or_none(weight), dense_or_none(bias), y.dense)
    with on_device_of(x):
        launch(squash_channels, seen.grid)(
            *tensors, *seen.sizes, *_options(seen, x), num_warps=seen.tile.warps
        )
    return y.filled()


def channel_tanh_backward(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    axis: int,
    wanted: int,
) -> Gradients:
    """See `schema.py`."""
    seen = _seen(x, axis, backward=True)
    dx = seen.blank(x) if wanted & DX else None
    sums = [
        torch.empty_like(parameter) if wanted & bit and parameter is not None else None
        for bit, parameter in ((DALPHA, alpha), (DWEIGHT, weight), (DBIAS, bias))
    ]
    dalpha, dweight, dbias = sums
    shape = (seen.tile.ranges, seen.channels)
    parts = [None if total is None else empty(x, *shape, dtype=compute_dtype(x)) for total in sums]
    tensors = (seen.of(dy), seen.of(x), alpha, dense_or_none(weight), None if dx is None else dx.dense)
    with on_device_of(x):
        launch(squash_gradients, seen.grid)(
            *tensors, *parts, *seen.sizes, *_options(seen, x), num_warps=seen.tile.warps
        )
        add_ranges(parts[1:], sums[1:], *shape)
        if dalpha is not None:
            launch(add_parts, (1,))(
                parts[0], None, dalpha, None, math.prod(shape), 1, 0, _ADDED_TO_ONE, 1, num_warps=4
            )
    return None if dx is None else dx.filled(), dalpha, dweight, dbias


def _options(seen: Channels, x: Tensor) -> tuple[Any, ...]:
    return compute_type(x), *seen.cut, seen.tile.stages
