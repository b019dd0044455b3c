"""The channels family: batch norm. See `schema.py` and, for the kernels, `kernels/channels.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.masks import channels_order, mask_shape
from normwright.backends.moments import statistics_dtype
from normwright.backends.normalised import Gradients, MaskedResults, Results
from normwright.backends.triton.arrange import dense_or_none
from normwright.backends.triton.channel_affine import channel_affine as channel_affine
from normwright.backends.triton.channel_affine import channel_affine_backward as channel_affine_backward
from normwright.backends.triton.channel_affine import channel_affine_out as channel_affine_out
from normwright.backends.triton.channels_gradients import (
    Given,
    blank_gradients,
    reduce_alone,
    reduce_then_store,
)
from normwright.backends.triton.channels_settings import ChannelsTile
from normwright.backends.triton.channels_view import Channels, seen_as_channels
from normwright.backends.triton.kernels.channels import forward_channels, merge_channels, reduce_channels
from normwright.backends.triton.launch import cdiv, compute_type, empty, launch, on_device_of

_MERGED_CHANNELS = 16


def _reduce(seen: Channels, dense: Tensor, counter: Tensor | None) -> Tensor:
    """What `reduce_channels` leaves of each range."""
    tile = seen.tile
    parts = empty(dense, tile.ranges * (2 * seen.channels + 1), dtype=torch.float64)
    options = (compute_type(dense), *seen.cut, tile.stages)
    launch(reduce_channels, seen.grid)(dense, parts, counter, *seen.sizes, *options, num_warps=tile.warps)
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
    *,
    tile: ChannelsTile | None = None,
) -> Results:
    """See `schema.py`. `tile` takes the place of the table's."""
    running = (running_mean, running_var, num_batches_tracked)
    return _forward(x, residual, weight, bias, None, running, momentum, eps, activation, tile)


def channels_forward_masked(
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
    *,
    tile: ChannelsTile | None = None,
) -> MaskedResults:
    """See `schema.py`. `tile` takes the place of the table's."""
    mask = empty(x, *mask_shape(x, channels_order(x)), dtype=torch.uint8)
    running = (running_mean, running_var, num_batches_tracked)
    y, moments = _forward(x, residual, weight, bias, mask, running, momentum, eps, activation, tile)
    return y, moments, mask


def _forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    running: tuple[Tensor | None, Tensor | None, Tensor | None],
    momentum: float | None,
    eps: float,
    activation: str | None,
    tile: ChannelsTile | None,
) -> Results:
    seen = seen_as_channels(x, tile)
    moments = empty(x, 2, x.shape[1], dtype=statistics_dtype(x))
    y = seen.blank(x)
    dense = seen.of(x)
    assert dense is not None
    *statistics, counter = running
    if any(statistic is None for statistic in statistics):
        statistics = [None, None]
    strides = [0 if statistic is None else statistic.stride(0) for statistic in statistics]
    tensors = (dense, seen.of(residual), dense_or_none(weight), dense_or_none(bias), y.dense, mask, *moments)
    options = (momentum is None, activation, compute_type(x), *seen.cut, seen.tile.stages, seen.ranges)
    with on_device_of(x):
        parts = _reduce(seen, dense, counter)
        launch(forward_channels, seen.grid)(
            *tensors, parts, *statistics, counter, *seen.sizes, *seen.mask_bytes, *strides, momentum or 0.0,
            eps, *options, num_warps=seen.tile.warps,
        )  # fmt: skip
    return y.filled(), moments


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
        launch(merge_channels, (cdiv(seen.channels, _MERGED_CHANNELS),))(
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
    moments: Tensor,
    activation: str | None,
    wanted: int,
    *,
    tile: ChannelsTile | None = None,
) -> Gradients:
    """See `schema.py`. `tile` takes the place of the table's."""
    derives = activation is not None and mask is None
    seen = seen_as_channels(x, tile, backward=True, derives=derives)
    results = blank_gradients(seen.blank, (x, residual, weight, bias), wanted)
    given = Given(dy, x, residual, weight, bias, mask, *moments)
    with on_device_of(x):
        if results.dx is None:
            reduce_alone(seen, given, results, activation)
        else:
            reduce_then_store(seen, given, results, activation)
    return results.filled()
