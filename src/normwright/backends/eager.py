"""The operators in plain PyTorch: every device's fallback, and what the kernels are compared with.

Each operator chooses a view and the axes that its moments are taken over; the mathematics is in
`moments.py`. The backward functions use differentiable operations only, so that the double backward
(`functional/autograd.py`) can call them as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normwright.backends import masks
from normwright.backends.activation import ACTIVATIONS, LEAKY_SLOPE
from normwright.backends.layout import Layout, channels_layout, groups_layout, rows_layout
from normwright.backends.moments import (
    Moments,
    moved,
    restandardise,
    standardise,
    standardise_backward,
    statistics_dtype,
    total,
    unbiased,
)

Results = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


def _map(
    x_hat: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, layout: Layout
) -> Tensor:
    """x̂·weight + bias + residual, in x̂'s dtype."""
    z = x_hat
    if weight is not None:
        z = z * weight.view(layout.parameter_view).to(z.dtype)
    if bias is not None:
        z = z + bias.view(layout.parameter_view).to(z.dtype)
    if residual is not None:
        z = z + residual.view(layout.view).to(z.dtype)
    return z


def _like(value: Tensor, x: Tensor) -> Tensor:
    """The value in the shape, dtype and strides that `empty_like(x)` has; broadcasting may choose others."""
    if value.shape != x.shape:
        # Copied, because a view may not be changed in place afterwards, as ReLU(inplace=True) does.
        value = value.reshape(x.shape).clone()
    value = value.to(x.dtype)
    model = torch.empty_like(x)
    return value if value.stride() == model.stride() else model.copy_(value)


def _epilogue(
    x_hat: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    layout: Layout,
    activation: str | None,
    mask_order: masks.Order | None = None,
) -> tuple[Tensor, Tensor]:
    """y, and the mask where its order is given."""
    z = _map(x_hat, residual, weight, bias, layout)
    mask = x.new_empty(0, dtype=torch.uint8)
    if mask_order is not None:
        ones = ~(z <= 0) if activation == "relu" else z > 0
        mask = masks.pack(ones.reshape(x.shape), mask_order)
    return _like(ACTIVATIONS[activation].value(z) if activation else z, x), mask


def _forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    layout: Layout,
    eps: float,
    activation: str | None,
    *,
    center: bool = True,
    mask_order: masks.Order | None = None,
) -> tuple[Tensor, Tensor, Moments]:
    x_hat, moments = standardise(x.view(layout.view), layout.moment_axes, eps, center=center)
    y, mask = _epilogue(x_hat, x, residual, weight, bias, layout, activation, mask_order)
    return y, mask, moments


def _through_mask(dz: Tensor, mask: Tensor, x: Tensor, order: masks.Order, activation: str | None) -> Tensor:
    ones = masks.unpack(mask, x, order).view(dz.shape)
    return torch.where(ones, dz, dz * LEAKY_SLOPE) if activation == "leaky_relu" else dz.masked_fill(~ones, 0)


def _backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor,
    layout: Layout,
    activation: str | None,
    output_mask: Sequence[bool],
    *,
    center: bool = True,
    batch_moments: bool = True,
    mask: Tensor | None = None,
    mask_order: masks.Order | None = None,
) -> Gradients:
    """dx, dresidual, dweight, dbias; an empty tensor for each that `output_mask` does not ask for.

    mean and rstd broadcast against the layout's view. `batch_moments=False` takes them as constants.
    """
    x_hat = restandardise(x.view(layout.view), mean, rstd)
    dz = dy.reshape(layout.view).to(x_hat.dtype)
    if mask is not None and mask_order is not None:
        dz = _through_mask(dz, mask, x, mask_order, activation)
    elif activation:
        dz = dz * ACTIVATIONS[activation].derivative(_map(x_hat, residual, weight, bias, layout))
    dx, dresidual, dweight, dbias = (x.new_empty(0) for _ in range(4))
    if output_mask[0]:
        g = dz if weight is None else dz * weight.view(layout.parameter_view).to(dz.dtype)
        if batch_moments:
            g = standardise_backward(g, x_hat, rstd, layout.moment_axes, center=center)
        else:
            g = g * rstd.to(g.dtype)
        dx = _like(g, x)
    if output_mask[1]:
        dresidual = _like(dz, x if residual is None else residual)
    if output_mask[2] and weight is not None:
        dweight = _parameter_gradient(dz * x_hat, weight, layout)
    if output_mask[3] and bias is not None:
        dbias = _parameter_gradient(dz, bias, layout)
    return dx, dresidual, dweight, dbias


def _parameter_gradient(terms: Tensor, parameter: Tensor, layout: Layout) -> Tensor:
    # An empty list of axes would mean all of them: a parameter per element is summed over nothing.
    gradient = total(terms, layout.parameter_axes) if layout.parameter_axes else terms
    return gradient.reshape(parameter.shape).to(parameter.dtype)


def rows_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    normalized_shape: Sequence[int],
    center: bool,
    eps: float,
    activation: str | None,
    save_mask: bool,
) -> Results:
    """See `schema.py`."""
    layout = rows_layout(x, normalized_shape)
    order = masks.rows_order(x, normalized_shape) if save_mask else None
    y, mask, moments = _forward(
        x, residual, weight, bias, layout, eps, activation, center=center, mask_order=order
    )
    outer = x.shape[: x.dim() - len(normalized_shape)]
    mean = moments.rstd.new_empty(0) if moments.mean is None else moments.mean.reshape(outer)
    return y, mean, moments.rstd.reshape(outer), mask


def rows_inference(*call: Any) -> Tensor:
    """See `schema.py`."""
    without_mask = (*call, False)
    return rows_forward(*without_mask)[0]


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
    mean: Tensor,
    rstd: Tensor,
    normalized_shape: Sequence[int],
    center: bool,
    activation: str | None,
    output_mask: Sequence[bool],
) -> Gradients:
    """See `schema.py`."""
    layout = rows_layout(x, normalized_shape)
    shape = [*rstd.shape, *[1] * len(normalized_shape)]
    wide_mean = mean.reshape(shape) if center else None
    wide_rstd = rstd.reshape(shape)
    order = None if mask is None else masks.rows_order(x, normalized_shape)
    call = (dy, x, residual, weight, bias, wide_mean, wide_rstd, layout, activation, output_mask)
    return _backward(*call, center=center, mask=mask, mask_order=order)


def groups_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    eps: float,
    activation: str | None,
    save_mask: bool,
) -> Results:
    """See `schema.py`."""
    order = masks.groups_order(x, groups) if save_mask else None
    layout = groups_layout(x, groups)
    y, mask, moments = _forward(x, residual, weight, bias, layout, eps, activation, mask_order=order)
    assert moments.mean is not None
    shape = (x.shape[0], groups)
    return y, moments.mean.reshape(shape), moments.rstd.reshape(shape), mask


def groups_inference(*call: Any) -> Tensor:
    """See `schema.py`."""
    without_mask = (*call, False)
    return groups_forward(*without_mask)[0]


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
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    activation: str | None,
    output_mask: Sequence[bool],
) -> Gradients:
    """See `schema.py`."""
    layout = groups_layout(x, groups)
    shape = [*rstd.shape, *[1] * (x.dim() - 1)]
    wide_mean, wide_rstd = mean.reshape(shape), rstd.reshape(shape)
    order = None if mask is None else masks.groups_order(x, groups)
    call = (dy, x, residual, weight, bias, wide_mean, wide_rstd, layout, activation, output_mask)
    return _backward(*call, mask=mask, mask_order=order)


def _factor(momentum: float | None, num_batches_tracked: Tensor | None, dtype: torch.dtype) -> float | Tensor:
    """This batch's share in the running statistics: momentum, or 1/batches so far for the cumulative mean."""
    if momentum is not None:
        return momentum
    assert num_batches_tracked is not None
    return num_batches_tracked.to(dtype).reciprocal()


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
) -> Results:
    """See `schema.py`."""
    order = masks.channels_order(x) if save_mask else None
    layout = channels_layout(x)
    y, mask, moments = _forward(x, residual, weight, bias, layout, eps, activation, mask_order=order)
    assert moments.mean is not None
    mean = moments.mean.reshape(-1)
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    if x.numel() and running_mean is not None and running_var is not None:
        factor = _factor(momentum, num_batches_tracked, running_mean.dtype)
        count = x.numel() // x.shape[1]
        variance = unbiased(x, moments.variance.reshape(-1), count, running_var.dtype)
        running_mean.copy_(moved(running_mean, mean.to(running_mean.dtype), factor))
        running_var.copy_(moved(running_var, variance, factor))
    return y, mean, moments.rstd.reshape(-1), mask


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
) -> Gradients:
    """See `schema.py`."""
    layout = channels_layout(x)
    wide_mean, wide_rstd = mean.view(layout.parameter_view), rstd.view(layout.parameter_view)
    order = None if mask is None else masks.channels_order(x)
    call = (dy, x, residual, weight, bias, wide_mean, wide_rstd, layout, activation, output_mask)
    return _backward(*call, mask=mask, mask_order=order)


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
    return _epilogue(x_hat, x, residual, weight, bias, layout, activation)[0]


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
    output_mask: Sequence[bool],
) -> Gradients:
    """See `schema.py`."""
    layout = channels_layout(x)
    moments = _known_moments(x, mean, variance, eps, layout)
    return _backward(
        dy, x, residual, weight, bias, *moments, layout, activation, output_mask, batch_moments=False
    )


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See `schema.py`."""
    dtype = statistics_dtype(x)
    count = x.numel() // x.shape[1] if x.shape[1] else 0
    counted = torch.tensor(float(count), dtype=dtype, device=x.device)
    if not x.numel():
        return counted, x.new_zeros(x.shape[1], dtype=dtype), x.new_zeros(x.shape[1], dtype=dtype)
    layout = channels_layout(x)
    _, moments = standardise(x, layout.moment_axes, 1.0, center=True)
    assert moments.mean is not None
    return counted, moments.mean.flatten(), moments.variance.flatten() * count


OPERATORS = {
    function.__name__: function
    for function in (
        rows_forward,
        rows_inference,
        rows_inference_out,
        rows_backward,
        groups_forward,
        groups_inference,
        groups_inference_out,
        groups_backward,
        channels_forward,
        channels_backward,
        channel_affine,
        channel_affine_out,
        channel_affine_backward,
        channel_moments,
    )
}
