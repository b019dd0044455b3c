"""The operators in plain PyTorch: every device's fallback, and what the kernels are compared with.

Each operator chooses a view and the axes that its moments are taken over; the mathematics is in
`normalised.py` and `moments.py`. The backward functions use differentiable operations only, so that the
double backward (`functional/autograd.py`) can call them as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normwright.backends import masks
from normwright.backends.channel_tanh import channel_tanh, channel_tanh_backward
from normwright.backends.checks import checked
from normwright.backends.layout import Layout, channels_layout, groups_layout, rows_layout
from normwright.backends.lstm_cell import lstm_cell, lstm_cell_backward
from normwright.backends.moments import (
    move_running_statistics,
    restandardise,
    standardise,
    statistics_dtype,
)
from normwright.backends.normalised import (
    Gradients,
    MaskedResults,
    Normalised,
    Results,
    activated,
    differentiate,
    mapped,
    normalise,
)
from normwright.backends.parts import parts_backward, parts_forward


def _rows(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
    *,
    masked: bool,
) -> Normalised:
    layout, order = rows_layout(x, axes), masks.rows_order(x, axes) if masked else None
    call = (x, residual, weight, bias, layout, eps, activation)
    return normalise(*call, center=center, mask_order=order)


def _outer(x: Tensor, axes: int) -> Sequence[int]:
    return x.shape[: x.dim() - axes]


def rows_forward(x: Tensor, *call: Any) -> Results:
    """See `schema.py`."""
    return _rows(x, *call, masked=False).results(_outer(x, call[3]))


def rows_forward_masked(x: Tensor, *call: Any) -> MaskedResults:
    """See `schema.py`."""
    return _rows(x, *call, masked=True).masked_results(_outer(x, call[3]))


def rows_inference(*call: Any) -> Tensor:
    """See `schema.py`."""
    return _rows(*call, masked=False).y


def rows_inference_out(*call: Any) -> None:
    """See `schema.py`."""
    *inputs, out = call
    out.copy_(rows_inference(*inputs))


def rows_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    moments: Tensor,
    axes: int,
    center: bool,
    activation: str | None,
    wanted: int,
) -> Gradients:
    """See `schema.py`."""
    layout = rows_layout(x, axes)
    wide = moments.reshape([*moments.shape, *[1] * axes])
    mean = wide[0] if center else None
    order = None if mask is None else masks.rows_order(x, axes)
    call = (dy, x, residual, weight, bias, mean, wide[-1], layout, activation, wanted)
    return differentiate(*call, center=center, mask=mask, mask_order=order)


def _groups(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    center: bool,
    eps: float,
    activation: str | None,
    *,
    masked: bool,
) -> Normalised:
    layout, order = groups_layout(x, groups), masks.groups_order(x, groups) if masked else None
    call = (x, residual, weight, bias, layout, eps, activation)
    return normalise(*call, center=center, mask_order=order)


def groups_forward(x: Tensor, *call: Any) -> Results:
    """See `schema.py`."""
    return _groups(x, *call, masked=False).results((x.shape[0], call[3]))


def groups_forward_masked(x: Tensor, *call: Any) -> MaskedResults:
    """See `schema.py`."""
    return _groups(x, *call, masked=True).masked_results((x.shape[0], call[3]))


def groups_inference(*call: Any) -> Tensor:
    """See `schema.py`."""
    return _groups(*call, masked=False).y


def groups_inference_out(*call: Any) -> None:
    """See `schema.py`."""
    *inputs, out = call
    out.copy_(groups_inference(*inputs))


def groups_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    moments: Tensor,
    groups: int,
    center: bool,
    activation: str | None,
    wanted: int,
) -> Gradients:
    """See `schema.py`."""
    layout = groups_layout(x, groups)
    wide = moments.reshape([*moments.shape, *[1] * (x.dim() - 1)])
    mean = wide[0] if center else None
    order = None if mask is None else masks.groups_order(x, groups)
    call = (dy, x, residual, weight, bias, mean, wide[-1], layout, activation, wanted)
    return differentiate(*call, center=center, mask=mask, mask_order=order)


def _channels(
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
    masked: bool,
) -> Normalised:
    layout, order = channels_layout(x), masks.channels_order(x) if masked else None
    normalised = normalise(x, residual, weight, bias, layout, eps, activation, mask_order=order)
    mean, variance, _ = normalised.moments
    assert mean is not None
    count = x.numel() // x.shape[1] if x.numel() else 0
    running = (running_mean, running_var, num_batches_tracked, momentum)
    move_running_statistics(x, mean.reshape(-1), variance.reshape(-1), count, *running)
    return normalised


def channels_forward(x: Tensor, *call: Any) -> Results:
    """See `schema.py`."""
    return _channels(x, *call, masked=False).results(x.shape[1:2])


def channels_forward_masked(x: Tensor, *call: Any) -> MaskedResults:
    """See `schema.py`."""
    return _channels(x, *call, masked=True).masked_results(x.shape[1:2])


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
) -> Gradients:
    """See `schema.py`."""
    layout = channels_layout(x)
    mean, rstd = (moment.view(layout.parameter_view) for moment in moments)
    order = None if mask is None else masks.channels_order(x)
    call = (dy, x, residual, weight, bias, mean, rstd, layout, activation, wanted)
    return differentiate(*call, mask=mask, mask_order=order)


def _known_moments(
    x: Tensor, mean: Tensor, variance: Tensor, eps: float, layout: Layout
) -> tuple[Tensor, Tensor]:
    dtype = statistics_dtype(x)
    rstd = (variance.to(dtype) + eps).rsqrt()
    return mean.to(dtype).view(layout.parameter_view), rstd.view(layout.parameter_view)


def channel_affine(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str | None,
) -> Tensor:
    """See `schema.py`."""
    layout = channels_layout(x)
    x_hat = restandardise(x, *_known_moments(x, mean, variance, eps, layout))
    return activated(mapped(x_hat, residual, weight, bias, layout), x, activation)


def channel_affine_out(*call: Any) -> None:
    """See `schema.py`."""
    *inputs, out = call
    out.copy_(channel_affine(*inputs))


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
) -> Gradients:
    """See `schema.py`."""
    layout = channels_layout(x)
    moments = _known_moments(x, mean, variance, eps, layout)
    return differentiate(
        dy, x, residual, weight, bias, *moments, layout, activation, wanted, batch_moments=False
    )


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See `schema.py`."""
    dtype = statistics_dtype(x)
    count = math.prod((x.shape[0], *x.shape[2:]))  # of no channels too
    counted = torch.tensor(float(count), dtype=dtype, device=x.device)
    if not x.numel():
        return counted, x.new_zeros(x.shape[1], dtype=dtype), x.new_zeros(x.shape[1], dtype=dtype)
    layout = channels_layout(x)
    _, moments = standardise(x, layout.moment_axes, 1.0, center=True)
    assert moments.mean is not None
    return counted, moments.mean.flatten(), moments.variance.flatten() * count


# Those that take what a caller has checked, and the same behind their checks.
FUNCTIONS = {
    function.__name__: function
    for function in (
        rows_forward,
        rows_forward_masked,
        rows_inference,
        rows_inference_out,
        rows_backward,
        groups_forward,
        groups_forward_masked,
        groups_inference,
        groups_inference_out,
        groups_backward,
        channels_forward,
        channels_forward_masked,
        channels_backward,
        channel_affine,
        channel_affine_out,
        channel_affine_backward,
        channel_moments,
        parts_forward,
        parts_backward,
        channel_tanh,
        channel_tanh_backward,
        lstm_cell,
        lstm_cell_backward,
    )
}
OPERATORS = {name: checked(name, function) for name, function in FUNCTIONS.items()}
