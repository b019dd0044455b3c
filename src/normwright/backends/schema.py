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
comes back empty. residual and bias matter to a backward only through the activation's input; where
`save_mask` kept a mask of relu or leaky_relu (masks.py), that undoes the activation, the backward takes no
residual, and dresidual comes in the likeness of x.

An `_inference` returns y alone, for where no backward follows. An operator whose name ends in `_out` writes
y to `out`, which may be x itself. `channel_moments` gives the count, mean and M2 (the sum of squared
deviations) of each channel.

channels_forward moves the running statistics in place, with the *unbiased* variance:

    running = factor·batch + (1 - factor)·running,   factor = momentum, or 1/num_batches_tracked where None

A backend registers its kernels for its own dispatch key; `eager.py` serves every other device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normwright.backends import eager, masks
from normwright.backends.moments import statistics_dtype

NAMESPACE = "normwright"

_INPUTS = "Tensor x, Tensor? residual, Tensor? weight, Tensor? bias"
_ACTIVATION = "str? activation"
_RESULTS = "(Tensor y, Tensor mean, Tensor rstd, Tensor mask)"
_GRADIENTS = "(Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)"

SCHEMAS = (
    f"rows_forward({_INPUTS}, SymInt[] normalized_shape, bool center, float eps, {_ACTIVATION}, "
    f"bool save_mask) -> {_RESULTS}",
    f"rows_inference({_INPUTS}, SymInt[] normalized_shape, bool center, float eps, {_ACTIVATION}) -> Tensor",
    f"rows_inference_out({_INPUTS}, SymInt[] normalized_shape, bool center, float eps, {_ACTIVATION}, "
    "Tensor(a!) out) -> ()",
    f"rows_backward(Tensor dy, {_INPUTS}, Tensor? mask, Tensor mean, Tensor rstd, "
    f"SymInt[] normalized_shape, bool center, {_ACTIVATION}, bool[4] output_mask) -> {_GRADIENTS}",
    f"groups_forward({_INPUTS}, SymInt groups, float eps, {_ACTIVATION}, bool save_mask) -> {_RESULTS}",
    f"groups_inference({_INPUTS}, SymInt groups, float eps, {_ACTIVATION}) -> Tensor",
    f"groups_inference_out({_INPUTS}, SymInt groups, float eps, {_ACTIVATION}, Tensor(a!) out) -> ()",
    f"groups_backward(Tensor dy, {_INPUTS}, Tensor? mask, Tensor mean, Tensor rstd, SymInt groups, "
    f"{_ACTIVATION}, bool[4] output_mask) -> {_GRADIENTS}",
    f"channels_forward({_INPUTS}, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
    f"Tensor(c!)? num_batches_tracked, float? momentum, float eps, {_ACTIVATION}, bool save_mask) "
    f"-> {_RESULTS}",
    f"channels_backward(Tensor dy, {_INPUTS}, Tensor? mask, Tensor mean, Tensor rstd, "
    f"{_ACTIVATION}, bool[4] output_mask) -> {_GRADIENTS}",
    f"channel_affine({_INPUTS}, Tensor mean, Tensor variance, float eps, {_ACTIVATION}) -> Tensor",
    f"channel_affine_out({_INPUTS}, Tensor mean, Tensor variance, float eps, {_ACTIVATION}, "
    "Tensor(a!) out) -> ()",
    f"channel_affine_backward(Tensor dy, {_INPUTS}, Tensor mean, Tensor variance, float eps, "
    f"{_ACTIVATION}, bool[4] output_mask) -> {_GRADIENTS}",
    "channel_moments(Tensor x) -> (Tensor count, Tensor mean, Tensor m2)",
)

NAMES = tuple(schema[: schema.index("(")] for schema in SCHEMAS)

Results = tuple[Tensor, Tensor, Tensor, Tensor]


def _statistics(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty(shape, dtype=statistics_dtype(x))


def _mask(x: Tensor, order: Callable[[], masks.Order], save_mask: bool) -> Tensor:
    return x.new_empty(masks.mask_shape(x, order()) if save_mask else (0,), dtype=torch.uint8)


def _rows_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Any,
    bias: Any,
    normalized_shape: Sequence[int],
    center: bool,
    *settings: Any,
) -> Results:
    outer = x.shape[: x.dim() - len(normalized_shape)]
    mask = _mask(x, lambda: masks.rows_order(x, normalized_shape), settings[-1])
    return torch.empty_like(x), _statistics(x, outer if center else (0,)), _statistics(x, outer), mask


def _groups_forward(
    x: Tensor, residual: Tensor | None, weight: Any, bias: Any, groups: int, *settings: Any
) -> Results:
    shape = (x.shape[0], groups)
    mask = _mask(x, lambda: masks.groups_order(x, groups), settings[-1])
    return torch.empty_like(x), _statistics(x, shape), _statistics(x, shape), mask


def _channels_forward(x: Tensor, *settings: Any) -> Results:
    shape = (x.shape[1],)
    mask = _mask(x, lambda: masks.channels_order(x), settings[-1])
    return torch.empty_like(x), _statistics(x, shape), _statistics(x, shape), mask


def _only_y(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _channel_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _statistics(x, ()), _statistics(x, (x.shape[1],)), _statistics(x, (x.shape[1],))


def _any_out(*_: Any) -> None:
    """Only changes `out`."""


def _any_backward(
    dy: Tensor, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, *settings: Any
) -> tuple[Tensor, ...]:
    *_, output_mask = settings
    # With a mask the residual is not kept; its gradient is then like x.
    sources = (x, x if residual is None else residual, weight, bias)
    return tuple(
        torch.empty_like(source) if asked and source is not None else x.new_empty(0)
        for source, asked in zip(sources, output_mask, strict=True)
    )


FAKES: dict[str, Callable[..., Any]] = {
    "rows_forward": _rows_forward,
    "rows_inference": _only_y,
    "rows_inference_out": _any_out,
    "rows_backward": _any_backward,
    "groups_forward": _groups_forward,
    "groups_inference": _only_y,
    "groups_inference_out": _any_out,
    "groups_backward": _any_backward,
    "channels_forward": _channels_forward,
    "channels_backward": _any_backward,
    "channel_affine": _only_y,
    "channel_affine_out": _any_out,
    "channel_affine_backward": _any_backward,
    "channel_moments": _channel_moments,
}


def register(library: torch.library.Library) -> None:
    """Defines every operator, with the eager kernel for every device and its fake."""
    for schema in SCHEMAS:
        name = library.define(schema)
        library.impl(name, eager.OPERATORS[name], "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", FAKES[name], lib=library)
