"""The channels family: batch norm. See `schema.py` and, for the kernels, `channels_kernels.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.backends.masks import mask_shape
from normwright.backends.moments import statistics_dtype
from normwright.backends.triton.channel_affine import channel_affine as channel_affine
from normwright.backends.triton.channel_affine import channel_affine_backward as channel_affine_backward
from normwright.backends.triton.channel_affine import channel_affine_out as channel_affine_out
from normwright.backends.triton.channels_gradients import (
    Given,
    blank_gradients,
    reduce_alone,
    reduce_then_store,
)
from normwright.backends.triton.channels_kernels import forward_channels, merge_channels, reduce_channels
from normwright.backends.triton.channels_settings import ChannelsTile
from normwright.backends.triton.channels_view import Channels, seen_as_channels, vector
from normwright.backends.triton.launch import cdiv, compute_type, empty, on_device_of

Results = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]

_MERGED_CHANNELS = 16


def _reduce(seen: Channels, dense: Tensor, counter: Tensor | None) -> Tensor:
    """What `reduce_channels` leaves of each range."""
    tile = seen.tile
    parts = empty(dense, tile.ranges * (2 * seen.channels + 1), dtype=torch.float64)
    options = (compute_type(dense), *seen.cut, tile.stages)
    reduce_channels[seen.grid](dense, parts, counter, *seen.sizes, *options, num_warps=tile.warps)
    return parts


def channels_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
    eps: float,
    activation: str | None,
    save_mask: bool,
    *,
    tile: ChannelsTile | None = None,
) -> Results:
    """See `schema.py`. `tile` takes the place of the table's."""
    seen = seen_as_channels(x, tile)
    mean = empty(x, x.shape[1], dtype=statistics_dtype(x))
    rstd = torch.empty_like(mean)
    mask = empty(x, *(mask_shape(x, seen.order) if save_mask else (0,)), dtype=torch.uint8)
    y = seen.blank(x)
    dense = seen.of(x)
    assert dense is not None
    running: tuple[Tensor | None, ...] = (running_mean, running_var)
    if running_mean is None or running_var is None:
        running = (None, None)
    strides = [0 if statistic is None else statistic.stride(0) for statistic in running]
    tensors = (dense, seen.of(residual), vector(weight), vector(bias), y.dense, mask if save_mask else None)
    options = (momentum is None, activation, compute_type(x), *seen.cut, seen.tile.stages, seen.ranges)
    with on_device_of(x):
        parts = _reduce(seen, dense, num_batches_tracked)
        forward_channels[seen.grid](
            *tensors, mean, rstd, parts, *running, num_batches_tracked, *seen.sizes, *seen.mask_bytes,
            *strides, momentum or 0.0, eps, *options, num_warps=seen.tile.warps,
        )  # fmt: skip
    return y.filled(), mean, rstd, mask


def channel_moments(x: Tensor, *, tile: ChannelsTile | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """See `schema.py`. `tile` takes the place of the table's."""
    seen = seen_as_channels(x, tile)
    dense = seen.of(x)
    assert dense is not None
    counted = empty(x, dtype=statistics_dtype(x))
    mean, m2 = (empty(x, x.shape[1], dtype=statistics_dtype(x)) for _ in range(2))
    sizes = (seen.rows * seen.space, seen.channels, seen.tile.ranges, _MERGED_CHANNELS, seen.ranges)
    with on_device_of(x):
        parts = _reduce(seen, dense, None)
        merge_channels[(cdiv(seen.channels, _MERGED_CHANNELS),)](
            parts, counted, mean, m2, *sizes, num_warps=4
        )
    return counted, mean, m2


def channels_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str | None,
    output_mask: Sequence[bool],
    *,
    tile: ChannelsTile | None = None,
) -> Gradients:
    """See `schema.py`. `tile` takes the place of the table's."""
    derives = activation is not None and mask is None
    seen = seen_as_channels(x, tile, backward=True, derives=derives)
    results = blank_gradients(seen, (x, residual, weight, bias), output_mask)
    given = Given(dy, x, residual, weight, bias, mask, mean, rstd)
    with on_device_of(x):
        if results.dx is None:
            reduce_alone(seen, given, results, activation)
        else:
            reduce_then_store(seen, given, results, activation)
    return results.filled(x)
