"""Every operator of the namespace `normwright`, defined once, with its fake implementation.

One family per memory access pattern, not one per layer name:

    rows        reduce the trailing axes                            layer norm, RMS norm
    groups      reduce a group of channels and space, per sample    group norm, instance norm
    channels    reduce all but the channel axis                     batch norm in training
    channel_affine    reduce nothing, the moments are known         batch norm in inference

each   y = activation(x̂·weight + bias + residual),  x̂ = (x - mean)·rstd,  rstd = 1/√(variance + eps).

x is (N, C, *space), or (*outer, *normalized_shape) for rows, in any strides; y, dx and dresidual keep
the strides of `torch.empty_like(x)`. weight and bias have x's dtype or a wider one. mean and rstd are
`statistics_dtype(x)`: (C,) for channels, (N, groups) for groups, x's outer shape for rows (mean is empty
where `center` is false). A gradient that `output_mask` (dx, dresidual, dweight, dbias) does not ask for
comes back empty. residual and bias matter to a backward only through the activation's input.

channels_forward moves the running statistics in place, with the *unbiased* variance:

    running = factor·batch + (1 - factor)·running,   factor = momentum, or 1/num_batches_tracked where None

A backend registers its kernels for its own dispatch key; `eager.py` serves every other device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normwright.backends import eager
from normwright.backends.moments import statistics_dtype

NAMESPACE = "normwright"

_INPUTS = "Tensor x, Tensor? residual, Tensor? weight, Tensor? bias"
_GRADIENTS = "(Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)"

SCHEMAS = (
    f"rows_forward({_INPUTS}, SymInt[] normalized_shape, bool center, float eps, str? activation) "
    "-> (Tensor y, Tensor mean, Tensor rstd)",
    f"rows_backward(Tensor dy, {_INPUTS}, Tensor mean, Tensor rstd, SymInt[] normalized_shape, bool center, "
    f"str? activation, bool[4] output_mask) -> {_GRADIENTS}",
    f"groups_forward({_INPUTS}, SymInt groups, float eps, str? activation) "
    "-> (Tensor y, Tensor mean, Tensor rstd)",
    f"groups_backward(Tensor dy, {_INPUTS}, Tensor mean, Tensor rstd, SymInt groups, "
    f"str? activation, bool[4] output_mask) -> {_GRADIENTS}",
    f"channels_forward({_INPUTS}, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
    "Tensor(c!)? num_batches_tracked, float? momentum, float eps, str? activation) "
    "-> (Tensor y, Tensor mean, Tensor rstd)",
    f"channels_backward(Tensor dy, {_INPUTS}, Tensor mean, Tensor rstd, "
    f"str? activation, bool[4] output_mask) -> {_GRADIENTS}",
    f"channel_affine({_INPUTS}, Tensor mean, Tensor variance, float eps, str? activation) -> Tensor",
    f"channel_affine_backward(Tensor dy, {_INPUTS}, Tensor mean, Tensor variance, float eps, "
    f"str? activation, bool[4] output_mask) -> {_GRADIENTS}",
)


def _statistics(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty(shape, dtype=statistics_dtype(x))


def _rows_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Any,
    bias: Any,
    normalized_shape: Sequence[int],
    center: bool,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    outer = x.shape[: x.dim() - len(normalized_shape)]
    return torch.empty_like(x), _statistics(x, outer if center else (0,)), _statistics(x, outer)


def _groups_forward(
    x: Tensor, residual: Tensor | None, weight: Any, bias: Any, groups: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (x.shape[0], groups)
    return torch.empty_like(x), _statistics(x, shape), _statistics(x, shape)


def _channels_forward(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), _statistics(x, (x.shape[1],)), _statistics(x, (x.shape[1],))


def _channel_affine(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _any_backward(
    dy: Tensor, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, *settings: Any
) -> tuple[Tensor, ...]:
    output_mask = settings[-1]
    return tuple(
        torch.empty_like(source) if asked and source is not None else x.new_empty(0)
        for source, asked in zip((x, residual, weight, bias), output_mask, strict=True)
    )


FAKES: dict[str, Callable[..., Any]] = {
    "rows_forward": _rows_forward,
    "rows_backward": _any_backward,
    "groups_forward": _groups_forward,
    "groups_backward": _any_backward,
    "channels_forward": _channels_forward,
    "channels_backward": _any_backward,
    "channel_affine": _channel_affine,
    "channel_affine_backward": _any_backward,
}


def register(library: torch.library.Library) -> None:
    """Defines every operator, with the eager kernel for every device and its fake."""
    for schema in SCHEMAS:
        name = library.define(schema)
        library.impl(name, eager.OPERATORS[name], "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", FAKES[name], lib=library)
