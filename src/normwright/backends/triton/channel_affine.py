"""Batch norm with moments that are known. See `schema.py` and, for the kernels, `kernels/channels.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.normalised import Gradients
from normwright.backends.triton.arrange import dense_or_none
from normwright.backends.triton.channels_gradients import Given, blank_gradients, reduce_alone
from normwright.backends.triton.channels_settings import ChannelsTile
from normwright.backends.triton.channels_view import seen_as_channels
from normwright.backends.triton.kernels.channels import affine_channels
from normwright.backends.triton.launch import compute_type, launch, on_device_of


def channel_affine(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str | None,
    *,
    tile: ChannelsTile | None = None,
) -> Tensor:
    """See `schema.py`. `tile` takes the place of the table's."""
    y = torch.empty_like(x)
    channel_affine_out(x, residual, weight, bias, mean, variance, eps, activation, y, tile=tile)
    return y


def channel_affine_out(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str | None,
    out: Tensor,
    *,
    tile: ChannelsTile | None = None,
) -> None:
    """See `schema.py`. `tile` takes the place of the table's."""
    seen = seen_as_channels(x, tile)
    dense, dense_residual = seen.of(x), seen.of(residual)
    parameters = [dense_or_none(parameter) for parameter in (weight, bias, mean, variance)]
    result = seen.blank_in(out, (dense, dense_residual), parameters)
    tensors = (dense, dense_residual, *parameters, result.dense)
    options = (eps, activation, compute_type(x), *seen.cut, seen.tile.stages)
    with on_device_of(x):
        launch(affine_channels, seen.grid)(*tensors, *seen.sizes, *options, num_warps=seen.tile.warps)
    result.filled()


def channel_affine_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str | None,
    wanted: int,
    *,
    tile: ChannelsTile | None = None,
) -> Gradients:
    """See `schema.py`. `tile` takes the place of the table's."""
    seen = seen_as_channels(x, tile, backward=True, derives=activation is not None)
    results = blank_gradients(seen.blank, (x, residual, weight, bias), wanted)
    given = Given(dy, x, residual, weight, bias, None, mean, variance)
    with on_device_of(x):
        reduce_alone(seen, given, results, activation, eps)
    return results.filled()
